package incident

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

func nodeKind() schema.GroupVersionKind { return corev1.SchemeGroupVersion.WithKind("Node") }

// letGo takes away what the controller put on the pod, and says whether that is done. While another incident holds the
// pod, only the label changes hands.
func (r *releaseStep) letGo(ctx context.Context, s *scene) (bool, error) {
	holders, err := r.hold.holders(ctx, r.orders.live, s.incident.Spec.Pod.UID)
	if err != nil {
		return false, err
	}
	next := ""
	for i := range holders {
		if holders[i].UID != s.incident.UID {
			next = string(holders[i].UID)
			break
		}
	}
	pod := podMetadata()
	err = r.orders.live.Get(ctx, client.ObjectKey{Namespace: s.incident.Spec.Pod.Namespace, Name: s.incident.Spec.Pod.Name}, pod)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read pod %s/%s: %w", s.incident.Spec.Pod.Namespace, s.incident.Spec.Pod.Name, err)
	}
	present := err == nil && string(pod.UID) == s.incident.Spec.Pod.UID
	if present && next == "" && s.incident.Spec.Disposition == v1alpha1.DispositionDelete {
		// The policy goes after the pod: what waits to be killed must not send.
		return false, r.deletePod(ctx, s.incident.Spec.Pod)
	}
	if present && pod.Labels[v1alpha1.LabelFrozen] != next {
		if err := r.hold.label(ctx, s.incident.Spec.Pod, next); client.IgnoreNotFound(err) != nil {
			return false, err
		}
	}
	if next != "" {
		return true, nil
	}
	return true, r.removePolicy(ctx, s)
}

// removePolicy looks for both kinds when none is on record: it can stand without a record.
func (r *releaseStep) removePolicy(ctx context.Context, s *scene) error {
	backends := []v1alpha1.FreezeBackend{v1alpha1.BackendCoreV1, v1alpha1.BackendCilium}
	if s.incident.Status.Policy != nil {
		backends = []v1alpha1.FreezeBackend{s.incident.Status.Policy.Backend}
	}
	for _, backend := range backends {
		if err := r.hold.policies.Remove(ctx, s.incident.Spec.Pod, backend); err != nil {
			return err
		}
	}
	return nil
}

// deletePod lets a frozen pod die unthawed: it cannot react to a signal, so it gets the shortest time to.
func (r *releaseStep) deletePod(ctx context.Context, ref v1alpha1.PodRef) error {
	pod := podMetadata()
	pod.SetNamespace(ref.Namespace)
	pod.SetName(ref.Name)
	err := r.orders.client.Delete(ctx, pod, client.GracePeriodSeconds(1), client.Preconditions{UID: ptr.To(types.UID(ref.UID))})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete pod %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	return nil
}
