package order

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// explainKill says when and why the kubelet kills a frozen container, if it will: for a probe, or at the pod's deadline,
// whichever is earlier.
func explainKill(pod *corev1.Pod, container *v1alpha1.ContainerFreeze) {
	if container.FrozenAt == nil {
		return
	}
	explainProbes(pod, container)
	deadline, started := pod.Spec.ActiveDeadlineSeconds, pod.Status.StartTime
	// Without a start of the pod the kubelet counts nothing.
	if deadline == nil || started == nil {
		return
	}
	at := metav1.NewMicroTime(started.Add(time.Duration(*deadline) * time.Second))
	if probe := container.ProbeKillExpectedAt; probe != nil && !at.Before(probe) {
		return
	}
	ends := fmt.Sprintf("the pod's activeDeadlineSeconds of %d", *deadline)
	if container.ProbeKillExpectedAt == nil && container.ProbeKill != "" {
		ends += "; " + container.ProbeKill
	}
	container.ProbeKillExpectedAt, container.ProbeKill = &at, ends
}

// explainProbes says when and by which probe the kubelet kills a frozen container, if one will. A probe by network fails
// from the freeze on. An exec probe cannot be started in a frozen container, and the kubelet does not count that as a
// failure; one that was under way at the freeze runs out of time, which counts once: where one failure is enough, the
// container may be killed, and no time says so. The time is the earliest: the first failure may come at once, and the last
// of failureThreshold counts. Sidecars, which are init containers that stay, are probed like the others; a startup probe
// that has not succeeded yet kills as well.
func explainProbes(pod *corev1.Pod, container *v1alpha1.ContainerFreeze) {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == container.Name {
				explainProbe(&list[i], started(pod, container.Name), container)
				return
			}
		}
	}
}

func explainProbe(spec *corev1.Container, started bool, container *v1alpha1.ContainerFreeze) {
	kind, probe := "livenessProbe", spec.LivenessProbe
	if !started && spec.StartupProbe != nil {
		kind, probe = "startupProbe", spec.StartupProbe
	}
	if probe == nil {
		return
	}
	failures, period := max(probe.FailureThreshold, 1), max(probe.PeriodSeconds, 1)
	if probe.Exec != nil {
		if failures == 1 {
			container.ProbeKill = fmt.Sprintf("may be killed: %s by exec, 1 failure, if it was under way at the freeze and not done within %d s",
				kind, max(probe.TimeoutSeconds, 1))
		}
		return
	}
	at := metav1.NewMicroTime(container.FrozenAt.Add(time.Duration(failures-1) * time.Duration(period) * time.Second))
	container.ProbeKillExpectedAt = &at
	container.ProbeKill = fmt.Sprintf("%s by %s, %d failures %d s apart", kind, handler(probe), failures, period)
}

func handler(probe *corev1.Probe) string {
	switch {
	case probe.HTTPGet != nil:
		return "httpGet of port " + probe.HTTPGet.Port.String()
	case probe.TCPSocket != nil:
		return "tcpSocket to port " + probe.TCPSocket.Port.String()
	case probe.GRPC != nil:
		return fmt.Sprintf("grpc to port %d", probe.GRPC.Port)
	}
	return "an unknown handler"
}

// started is what the kubelet last said of the container's startup probe.
func started(pod *corev1.Pod, name string) bool {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return list[i].Started != nil && *list[i].Started
			}
		}
	}
	return false
}
