package incident

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// maxNote is what the events API takes.
const maxNote = 1024

// note is one Kubernetes event. Its reason is the reason of the condition that it goes with.
type note struct {
	kind, reason, action, text string
}

func noteTurned(condition metav1.Condition) note {
	kind := corev1.EventTypeNormal
	if condition.Type == v1alpha1.ConditionFailed || condition.Reason == v1alpha1.ReasonPartial ||
		condition.Reason == v1alpha1.ReasonStampInvalid || condition.Reason == v1alpha1.ReasonFailed {
		kind = corev1.EventTypeWarning
	}
	text := condition.Type + " " + string(condition.Status) + ": " + condition.Message
	return note{kind, condition.Reason, condition.Type, text[:min(len(text), maxNote)]}
}
