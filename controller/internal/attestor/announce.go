package attestor

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/v1alpha1"
)

// Announcer creates the bundle object of every event, of every response that is complete, and of every custody record
// that is due.
type Announcer struct {
	Client client.Client
}

// SetupWithManager starts one controller for events and one for responses.
func (a *Announcer) SetupWithManager(mgr ctrl.Manager) error {
	options := controller.Options{MaxConcurrentReconciles: workers}
	created := predicate.Funcs{
		UpdateFunc:  func(event.UpdateEvent) bool { return false }, // an event's spec never changes
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
	err := ctrl.NewControllerManagedBy(mgr).
		Named("attestor-events").
		For(&v1alpha1.SecurityEvent{}, builder.WithPredicates(created)).
		WithOptions(options).
		Complete(reconcile.Func(a.ReconcileEvent))
	if err != nil {
		return fmt.Errorf("set up announcer of events: %w", err)
	}
	complete := predicate.NewPredicateFuncs(func(object client.Object) bool {
		response, ok := object.(*v1alpha1.EventResponse)
		return ok && response.Status.CompletedAt != nil
	})
	err = ctrl.NewControllerManagedBy(mgr).
		Named("attestor-responses").
		For(&v1alpha1.EventResponse{}, builder.WithPredicates(complete)).
		WithOptions(options).
		Complete(reconcile.Func(a.ReconcileResponse))
	if err != nil {
		return fmt.Errorf("set up announcer of responses: %w", err)
	}
	return a.setupIncidents(mgr)
}

// ReconcileEvent announces an event.
func (a *Announcer) ReconcileEvent(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var event v1alpha1.SecurityEvent
	if err := a.Client.Get(ctx, request.NamespacedName, &event); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	incident := ""
	if event.Spec.Incident != nil {
		incident = event.Spec.Incident.UID
	}
	return ctrl.Result{}, a.announce(ctx, v1alpha1.AttestedSecurityEvent, &event, incident)
}

// ReconcileResponse announces a response once it is complete.
func (a *Announcer) ReconcileResponse(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var response v1alpha1.EventResponse
	if err := a.Client.Get(ctx, request.NamespacedName, &response); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if response.Status.CompletedAt == nil {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{}, a.announce(ctx, v1alpha1.AttestedEventResponse, &response, response.Spec.IncidentUID)
}

func (a *Announcer) announce(
	ctx context.Context, kind v1alpha1.AttestedKind, object client.Object, incident string,
) error {
	uid := string(object.GetUID())
	name := v1alpha1.BundleName(uid)
	err := a.Client.Get(ctx, client.ObjectKey{Name: name}, &v1alpha1.AttestationBundle{})
	if err == nil || !apierrors.IsNotFound(err) {
		return err
	}
	bundle := &v1alpha1.AttestationBundle{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.AttestationBundleSpec{
			AttestedFor: v1alpha1.AttestedFor{Kind: kind, Ref: v1alpha1.Ref{Name: object.GetName(), UID: uid}},
			IncidentUID: incident,
		},
	}
	if incident != "" {
		bundle.Labels = map[string]string{v1alpha1.LabelIncidentUID: incident}
	}
	if err := a.Client.Create(ctx, bundle, fieldOwner); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create bundle of %s %s: %w", kind, object.GetName(), err)
	}
	return nil
}
