package trigger

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/match"
)

// resolved is the live pod of an event's subject.
type resolved struct {
	match.Pod
	ref v1alpha1.PodRef
	// unscheduled pods exist but run nowhere: there is nothing to contain yet.
	unscheduled bool
}

// resolve reads the subject's pod from the API server. A subject that is no pod resolves to nothing.
func (r *Reconciler) resolve(ctx context.Context, event *v1alpha1.SecurityEvent, config *v1alpha1.ForensicsConfig) (resolved, error) {
	subject := event.Spec.Subject
	if subject.Kind != "Pod" || subject.Namespace == "" {
		return resolved{}, nil
	}
	var pod corev1.Pod
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: subject.Namespace, Name: subject.Name}, &pod)
	if apierrors.IsNotFound(err) {
		return resolved{}, nil
	}
	if err != nil {
		return resolved{}, fmt.Errorf("read pod %s/%s: %w", subject.Namespace, subject.Name, err)
	}
	return resolved{
		Pod: match.Pod{
			Found: pod.Spec.NodeName != "", UID: string(pod.UID), CreatedAt: pod.CreationTimestamp.Time,
			Protected: protected(&pod, config.Spec.Trigger.ProtectedNamespaces),
		},
		ref:         v1alpha1.PodRef{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), NodeName: pod.Spec.NodeName},
		unscheduled: pod.Spec.NodeName == "",
	}, nil
}

// protected pods are what the cluster, or this project, stands on: freezing them would end the investigation too.
func protected(pod *corev1.Pod, namespaces []string) bool {
	switch pod.Namespace {
	// By their whole names: whoever may make namespaces could give one of their own a prefix.
	case metav1.NamespaceSystem, v1alpha1.NamespaceSystem, v1alpha1.NamespacePrivileged:
		return true
	}
	if slices.Contains(namespaces, pod.Namespace) {
		return true
	}
	// Owner references and other annotations are the pod owner's to write; this one cannot be added to a pod that is there.
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror
}
