package trigger

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/v1alpha1"
)

// workers judge events at once: a verdict is a few reads and at most three writes.
const workers = 8

// Bounds of the wait before an event is looked at again after an error: a store that is back must not wait for its turn
// while a pod waits to be contained.
const firstRetry, lastRetry = 100 * time.Millisecond, 5 * time.Second

// SetupWithManager watches events, their bundles, and the configuration.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	unsettled := predicate.NewPredicateFuncs(func(object client.Object) bool {
		event, ok := object.(*v1alpha1.SecurityEvent)
		return ok && !settled(event)
	})
	err := ctrl.NewControllerManagedBy(mgr).
		Named("trigger").
		For(&v1alpha1.SecurityEvent{}, builder.WithPredicates(unsettled)).
		Watches(&v1alpha1.AttestationBundle{}, handler.EnqueueRequestsFromMapFunc(attested)).
		Watches(&v1alpha1.ForensicsConfig{}, handler.EnqueueRequestsFromMapFunc(r.unjudged),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
		}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up trigger: %w", err)
	}
	return nil
}

// attested maps a bundle to the event that it attests.
func attested(_ context.Context, object client.Object) []reconcile.Request {
	bundle, ok := object.(*v1alpha1.AttestationBundle)
	if !ok || bundle.Spec.AttestedFor.Kind != v1alpha1.AttestedSecurityEvent {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: bundle.Spec.AttestedFor.Name}}}
}

// unjudged maps the configuration to every event without a last verdict: with the first configuration they are judged,
// with a change those that wait for a seal are judged again.
func (r *Reconciler) unjudged(ctx context.Context, _ client.Object) []reconcile.Request {
	var list v1alpha1.SecurityEventList
	if err := r.Client.List(ctx, &list); err != nil {
		log.FromContext(ctx).Error(err, "list events after a change of the configuration")
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if !settled(&list.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}
