package attestor

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// setupIncidents starts the controller that announces custody records.
func (a *Announcer) setupIncidents(mgr ctrl.Manager) error {
	ended := predicate.NewPredicateFuncs(func(object client.Object) bool {
		incident, ok := object.(*v1alpha1.Incident)
		return ok && len(dueRecords(incident)) > 0
	})
	err := ctrl.NewControllerManagedBy(mgr).
		Named("attestor-incidents").
		For(&v1alpha1.Incident{}, builder.WithPredicates(ended)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(reconcile.Func(a.ReconcileIncident))
	if err != nil {
		return fmt.Errorf("set up announcer of custody records: %w", err)
	}
	return nil
}

// ReconcileIncident announces the custody records that are due.
func (a *Announcer) ReconcileIncident(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var incident v1alpha1.Incident
	if err := a.Client.Get(ctx, request.NamespacedName, &incident); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	for _, number := range dueRecords(&incident) {
		if err := a.announceRecord(ctx, &incident, number); err != nil {
			return ctrl.Result{}, err
		}
	}
	return ctrl.Result{}, nil
}

// dueRecords are the numbers of the records that an incident came far enough for, and does not name yet.
func dueRecords(incident *v1alpha1.Incident) []int32 {
	if incident.Status.CompletionEvent == nil {
		return nil
	}
	due := map[int32]bool{
		evidence.CustodyCaptured: true,
		evidence.CustodyReleased: meta.IsStatusConditionTrue(incident.Status.Conditions, v1alpha1.ConditionReleased),
	}
	for i := range incident.Status.Custody {
		due[incident.Status.Custody[i].Index] = false
	}
	var numbers []int32
	for _, number := range []int32{evidence.CustodyCaptured, evidence.CustodyReleased} {
		if due[number] {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

func (a *Announcer) announceRecord(ctx context.Context, incident *v1alpha1.Incident, number int32) error {
	uid := string(incident.UID)
	bundle := &v1alpha1.AttestationBundle{
		ObjectMeta: metav1.ObjectMeta{
			Name: v1alpha1.CustodyBundleName(uid, number), Labels: map[string]string{v1alpha1.LabelIncidentUID: uid},
		},
		Spec: v1alpha1.AttestationBundleSpec{
			AttestedFor: v1alpha1.AttestedFor{Kind: v1alpha1.AttestedIncident, Ref: v1alpha1.Ref{Name: incident.Name, UID: uid}},
			IncidentUID: uid, Number: number,
		},
	}
	err := a.Client.Get(ctx, client.ObjectKeyFromObject(bundle), &v1alpha1.AttestationBundle{})
	if err == nil || !apierrors.IsNotFound(err) {
		return err
	}
	if err := a.Client.Create(ctx, bundle, fieldOwner); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create bundle of custody record %d of incident %s: %w", number, incident.Name, err)
	}
	return nil
}

// sealedNow passes bundles that came to be sealed.
func sealedNow() predicate.Predicate {
	sealed := func(object client.Object) bool {
		bundle, ok := object.(*v1alpha1.AttestationBundle)
		return ok && isTrue(v1alpha1.ConditionSealed)(&bundle.Status)
	}
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return false }, // after a start every bundle is looked at anyway
		UpdateFunc:  func(e event.UpdateEvent) bool { return sealed(e.ObjectNew) && !sealed(e.ObjectOld) },
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}

// recordsOf maps a sealed bundle to those of the custody records that may have waited for it.
func (r *Reconciler) recordsOf() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, object client.Object) []reconcile.Request {
		bundle, ok := object.(*v1alpha1.AttestationBundle)
		if !ok {
			return nil
		}
		uid := bundle.Spec.IncidentUID
		if uid == "" { // of a trigger, whose incident is named after it
			var incident v1alpha1.Incident
			if found, err := r.find(ctx, v1alpha1.IncidentName(bundle.Spec.AttestedFor.UID), &incident); err != nil {
				log.FromContext(ctx).Error(err, "incident of a sealed bundle not read", "bundle", bundle.Name)
				return nil
			} else if !found {
				return nil
			}
			uid = string(incident.UID)
		}
		var requests []reconcile.Request
		for _, number := range []int32{evidence.CustodyCaptured, evidence.CustodyReleased} {
			if name := v1alpha1.CustodyBundleName(uid, number); name != bundle.Name {
				requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKey{Name: name}})
			}
		}
		return requests
	})
}
