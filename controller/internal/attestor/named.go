package attestor

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/v1alpha1"
)

// named waits until a response's incident names it, by name and uid: the controller ordered what it names, and anybody may
// have made the rest.
func (r *Reconciler) named(ctx context.Context, response *v1alpha1.EventResponse) error {
	incident, err := r.namingIncident(ctx, response.Spec.IncidentUID)
	if err != nil {
		return err
	}
	for _, ref := range incident.Status.Responses {
		if ref.Name != response.Name {
			continue
		}
		if ref.UID == string(response.UID) {
			return nil
		}
		err := fmt.Errorf("incident %s names response %s with uid %s, not this one", incident.Name, ref.Name, ref.UID)
		return &stageError{reason: v1alpha1.ReasonSubjectGone, err: err, final: true}
	}
	wait := &waiting{message: "waits until incident " + incident.Name + " names this response: what the controller did not order is not signed", after: recordPoll}
	if completed := response.Status.CompletedAt; completed != nil {
		wait.after = r.pollSince(completed.Time)
	}
	return wait
}

// namingIncident is the incident with this uid, which names what belongs to it. One that the cache does not have yet is
// waited for; it is gone, for good, only where the API server does not have it either: what follows from this statement is
// then signed without it.
func (r *Reconciler) namingIncident(ctx context.Context, uid string) (*v1alpha1.Incident, error) {
	incident, err := incidentOf(ctx, r.Client, uid)
	if err != nil {
		return nil, err
	}
	if incident != nil {
		return incident, nil
	}
	if incident, err = incidentOf(ctx, r.Live, uid); err != nil {
		return nil, err
	}
	if incident == nil {
		return nil, &stageError{reason: v1alpha1.ReasonSubjectGone, err: fmt.Errorf("the incident with uid %s is gone", uid), final: true}
	}
	return nil, &waiting{message: "waits until incident " + incident.Name + " comes into the attestor's cache", after: recordPoll}
}

// namesChanged passes incidents that came to name something, or into the cache.
func namesChanged() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return true },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, okBefore := e.ObjectOld.(*v1alpha1.Incident)
			after, okAfter := e.ObjectNew.(*v1alpha1.Incident)
			return okBefore && okAfter && !equality.Semantic.DeepEqual(namedBy(before), namedBy(after))
		},
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}

// namedOf maps an incident to the bundles of what it names.
func namedOf(_ context.Context, object client.Object) []reconcile.Request {
	incident, ok := object.(*v1alpha1.Incident)
	if !ok {
		return nil
	}
	var requests []reconcile.Request
	for _, ref := range namedBy(incident) {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKey{Name: v1alpha1.BundleName(ref.UID)}})
	}
	return requests
}

// namedBy an incident are its responses and the event that ends its capture.
func namedBy(incident *v1alpha1.Incident) []v1alpha1.Ref {
	named := append([]v1alpha1.Ref{}, incident.Status.Responses...)
	if ending := incident.Status.CompletionEvent; ending != nil {
		named = append(named, *ending)
	}
	return named
}
