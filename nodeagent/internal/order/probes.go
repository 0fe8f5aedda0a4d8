package order

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// probeKill is the earliest time at which the kubelet kills a frozen container because a probe of it fails, or nil when
// none will. A probe by network fails from the freeze on; an exec probe cannot run in a frozen container, and the kubelet
// does not count that as a failure. The first failure may come at once and the last of failureThreshold counts.
func probeKill(pod *corev1.Pod, container v1alpha1.ContainerFreeze) *metav1.MicroTime {
	if container.FrozenAt == nil {
		return nil
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name != container.Name {
			continue
		}
		probe := pod.Spec.Containers[i].LivenessProbe
		if probe == nil || probe.Exec != nil {
			return nil
		}
		failures, period := max(probe.FailureThreshold, 1), max(probe.PeriodSeconds, 1)
		at := metav1.NewMicroTime(container.FrozenAt.Add(time.Duration(failures-1) * time.Duration(period) * time.Second))
		return &at
	}
	return nil
}
