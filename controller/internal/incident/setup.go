package incident

import (
	"context"
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// workers walk incidents at once. No step waits inside a walk, so that containment is never queued behind a capture.
const workers = 8

// SetupWithManager watches incidents and whatever moves them: responses, their outcome events, bundles, the label on
// the pod and the network policy. It returns the controller, so that further kinds can be watched while it runs.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) (controller.Controller, error) {
	own := predicate.Or(predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{})
	built, err := ctrl.NewControllerManagedBy(mgr).
		Named("incident").
		For(&v1alpha1.Incident{}, builder.WithPredicates(own)).
		Watches(&v1alpha1.EventResponse{}, handler.EnqueueRequestsFromMapFunc(ofResponse)).
		Watches(&v1alpha1.SecurityEvent{}, handler.EnqueueRequestsFromMapFunc(ofEvent)).
		Watches(&v1alpha1.AttestationBundle{}, handler.EnqueueRequestsFromMapFunc(r.ofBundle)).
		WatchesMetadata(podMetadata(), handler.EnqueueRequestsFromMapFunc(r.OfPod)).
		WatchesMetadata(policyMetadata(), handler.EnqueueRequestsFromMapFunc(r.OfPod)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Build(r)
	if err != nil {
		return nil, fmt.Errorf("set up incident: %w", err)
	}
	return built, nil
}

// policyMetadata is all that is watched of policies: they are read from the API server when an incident's walk needs them.
func policyMetadata() *metav1.PartialObjectMetadata {
	policy := &metav1.PartialObjectMetadata{}
	policy.SetGroupVersionKind(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"))
	return policy
}

func named(incident string) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: incident}}}
}

func ofResponse(_ context.Context, object client.Object) []reconcile.Request {
	response, ok := object.(*v1alpha1.EventResponse)
	if !ok {
		return nil
	}
	return named(response.Spec.IncidentName)
}

func ofEvent(_ context.Context, object client.Object) []reconcile.Request {
	event, ok := object.(*v1alpha1.SecurityEvent)
	if !ok || event.Spec.Class != v1alpha1.ClassForensic || event.Spec.Trigger == nil {
		return nil
	}
	return named(v1alpha1.IncidentName(event.Spec.Trigger.UID))
}

// ofBundle maps a bundle to its incident through the name of what it attests, er-<incident>-<step>, se-<incident>-… or the incident itself.
// A trigger's bundle has no incident.
func (r *Reconciler) ofBundle(_ context.Context, object client.Object) []reconcile.Request {
	bundle, ok := object.(*v1alpha1.AttestationBundle)
	if !ok || bundle.Spec.IncidentUID == "" {
		return nil
	}
	if bundle.Spec.AttestedFor.Kind == v1alpha1.AttestedIncident {
		return named(bundle.Spec.AttestedFor.Name)
	}
	parts := strings.SplitN(bundle.Spec.AttestedFor.Name, "-", 3)
	if len(parts) != 3 {
		return nil
	}
	return named(parts[1])
}

// OfPod maps a pod or the network policy of one to the open incidents that hold the pod.
func (r *Reconciler) OfPod(ctx context.Context, object client.Object) []reconcile.Request {
	podUID := object.GetLabels()[v1alpha1.LabelPodUID]
	if object.GetLabels()[v1alpha1.LabelFrozen] != "" {
		podUID = string(object.GetUID())
	}
	if podUID == "" {
		return nil
	}
	var list v1alpha1.IncidentList
	err := r.Client.List(ctx, &list, client.MatchingLabels{v1alpha1.LabelOpen: "true", v1alpha1.LabelPodUID: podUID})
	if err != nil {
		log.FromContext(ctx).Error(err, "list incidents of a pod", "podUID", podUID)
		return nil
	}
	requests := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}
