package trigger

import (
	corev1 "k8s.io/api/core/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// note is one Kubernetes event. Its reason is the reason of the condition that it goes with.
type note struct {
	kind, reason, action, text string
}

func noteOpened(incident string) note {
	return note{corev1.EventTypeNormal, v1alpha1.ReasonIncidentOpened, "Open", "opened incident " + incident}
}

func noteOverdue() note {
	return note{
		corev1.EventTypeWarning, v1alpha1.ReasonOverdue, "Wait",
		"waits for its seal longer than " + overdueAfter.String() + ", the pod is not contained",
	}
}

func (r *Reconciler) note(event *v1alpha1.SecurityEvent, n note) {
	r.Recorder.Eventf(event, nil, n.kind, n.reason, n.action, "%s", n.text)
}
