package config

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/v1alpha1"
)

// settle is how long changes of incidents are collected before they are counted: a storm of events is one write a second.
const settle = time.Second

// SetupWithManager watches the configuration, the store's, the definition of Cilium's policies, and the incidents.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	err := ctrl.NewControllerManagedBy(mgr).
		Named("config").
		For(&v1alpha1.ForensicsConfig{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.WORMConfig{}, always(), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesMetadata(Definition(), always(), builder.WithPredicates(predicate.NewPredicateFuncs(func(object client.Object) bool {
			return object.GetName() == DefinitionName
		}))).
		Watches(&v1alpha1.Incident{}, collect()).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up config: %w", err)
	}
	return nil
}

func always() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{theConfig()}
	})
}

func theConfig() reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKey{Name: v1alpha1.SingletonName}}
}

// collect looks only at what changes the count: incidents that come, go, or are released.
func collect() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc: func(_ context.Context, _ event.CreateEvent, q queue) { q.AddAfter(theConfig(), settle) },
		DeleteFunc: func(_ context.Context, _ event.DeleteEvent, q queue) { q.AddAfter(theConfig(), settle) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			before, wasIncident := e.ObjectOld.(*v1alpha1.Incident)
			after, isIncident := e.ObjectNew.(*v1alpha1.Incident)
			if wasIncident && isIncident && inFlight([]v1alpha1.Incident{*before}) != inFlight([]v1alpha1.Incident{*after}) {
				q.AddAfter(theConfig(), settle)
			}
		},
	}
}
