package incident

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
)

// record writes the status when a step changed it, with an optimistic lock, and announces each condition that turned.
func (r *Reconciler) record(ctx context.Context, s *scene) error {
	s.incident.Status.State = state(s)
	before, after := s.recorded.Status.DeepCopy(), &s.incident.Status
	before.Responses = after.Responses
	if len(after.Conditions) == 0 || equality.Semantic.DeepEqual(*before, *after) {
		return nil
	}
	patch := client.MergeFromWithOptions(s.recorded, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, s.incident, patch, client.FieldOwner(fieldOwner)); err != nil {
		return fmt.Errorf("record status: %w", err)
	}
	for _, condition := range s.incident.Status.Conditions {
		if turned(s.recorded.Status.Conditions, condition) {
			r.announce(ctx, s.incident, condition)
		}
	}
	s.recorded = s.incident.DeepCopy()
	return nil
}

func turned(before []metav1.Condition, condition metav1.Condition) bool {
	previous := meta.FindStatusCondition(before, condition.Type)
	return previous == nil || previous.Status != condition.Status || previous.Reason != condition.Reason
}

func (r *Reconciler) announce(ctx context.Context, incident *v1alpha1.Incident, condition metav1.Condition) {
	transitions.WithLabelValues(condition.Type, string(condition.Status), condition.Reason).Inc()
	n := noteTurned(condition)
	r.Recorder.Eventf(incident, nil, n.kind, n.reason, n.action, "%s", n.text)
	if condition.Status == metav1.ConditionTrue {
		log.FromContext(ctx).Info("step finished", "condition", condition.Type, "reason", condition.Reason)
	}
}

// state is computed from the conditions, so that it cannot contradict them.
func state(s *scene) v1alpha1.IncidentState {
	switch {
	case s.is(v1alpha1.ConditionReleased):
		return v1alpha1.IncidentReleased
	case letGo(s):
		return v1alpha1.IncidentReleasing
	case s.is(v1alpha1.ConditionFailed):
		return v1alpha1.IncidentFailed
	case s.is(v1alpha1.ConditionUploaded):
		return v1alpha1.IncidentHeld
	case s.is(v1alpha1.ConditionContained), s.reason(v1alpha1.ConditionCaptured) != "":
		return v1alpha1.IncidentCapturing
	}
	return v1alpha1.IncidentContaining
}
