package incident

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

func nodeKind() schema.GroupVersionKind { return corev1.SchemeGroupVersion.WithKind("Node") }

// letGo takes away what the controller put on the pod, and says whether that is done. While another incident holds the
// pod, only the label changes hands. One that has ordered its own release holds nothing any more: of two that are
// released at once both take the label and the policy away, rather than each leave them to the other; and where either was
// to delete the pod, both do.
func (r *releaseStep) letGo(ctx context.Context, s *scene, last *v1alpha1.EventResponse) (bool, error) {
	holder, err := r.heldByOther(ctx, s)
	if err != nil {
		return false, err
	}
	next, doomed := "", false
	if holder != nil {
		next = string(holder.UID)
	} else if doomed, err = r.doomed(ctx, s, last); err != nil {
		return false, err
	}
	pod := podMetadata()
	err = r.orders.live.Get(ctx, client.ObjectKey{Namespace: s.incident.Spec.Pod.Namespace, Name: s.incident.Spec.Pod.Name}, pod)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read pod %s/%s: %w", s.incident.Spec.Pod.Namespace, s.incident.Spec.Pod.Name, err)
	}
	present := err == nil && string(pod.UID) == s.incident.Spec.Pod.UID
	if present && doomed {
		// The policy goes after the pod: what waits to be killed must not send.
		s.set(v1alpha1.ConditionReleased, metav1.ConditionFalse, v1alpha1.ReasonWaiting, dying(pod))
		return false, r.deletePod(ctx, s, pod)
	}
	if present && pod.Labels[v1alpha1.LabelFrozen] != next {
		if err := r.hold.label(ctx, s.incident.Spec.Pod, next); client.IgnoreNotFound(err) != nil {
			return false, err
		}
	}
	if next != "" {
		return true, nil
	}
	return true, r.hold.policies.Remove(ctx, s.incident.Spec.Pod)
}

// dying says what a deleted pod waits for.
func dying(pod *metav1.PartialObjectMetadata) string {
	message := fmt.Sprintf("pod %s/%s is deleted unthawed", pod.Namespace, pod.Name)
	if len(pod.Finalizers) > 0 {
		message += "; it waits for its finalizers: " + strings.Join(pod.Finalizers, ", ")
	}
	return message
}

// deletePod lets a frozen pod die unthawed: it cannot react to a signal, so it gets the shortest time to. Where the node is
// gone no kubelet ends the deletion, and the object goes without one.
func (r *releaseStep) deletePod(ctx context.Context, s *scene, pod *metav1.PartialObjectMetadata) error {
	seconds := int64(1)
	if pod.DeletionTimestamp != nil {
		gone, err := r.nodeGone(ctx, s)
		if err != nil {
			return err
		}
		if gone {
			seconds = 0
		}
	}
	err := r.orders.client.Delete(ctx, pod, client.GracePeriodSeconds(seconds), client.Preconditions{UID: &pod.UID})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
