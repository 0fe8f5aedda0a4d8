package config

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// note is one Kubernetes event. Its reason is the reason of the condition that it goes with.
type note struct {
	kind, reason, action, text string
}

func noteReady(ready metav1.Condition) note {
	kind := corev1.EventTypeWarning
	if ready.Status == metav1.ConditionTrue {
		kind = corev1.EventTypeNormal
	}
	return note{kind, ready.Reason, "Validate", ready.Message}
}
