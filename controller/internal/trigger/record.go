package trigger

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/match"
)

// fieldOwner is the field manager of the conditions on events.
const fieldOwner = "ugallu-forensics-trigger"

// Reason turns a verdict into the reason of a condition, which the API server wants in CamelCase.
func Reason(verdict match.Reason) string {
	names := map[match.Reason]string{
		match.Matched:            v1alpha1.ReasonIncidentOpened,
		match.ClassMismatch:      "ClassMismatch",
		match.SeverityBelowMin:   "SeverityBelowMin",
		match.TypeNotWhitelisted: "TypeNotWhitelisted",
		match.NonPodSubject:      "NonPodSubject",
		match.NamespaceFiltered:  "NamespaceFiltered",
		match.EventTooOld:        "EventTooOld",
		match.PodNotFound:        "PodNotFound",
		match.PodUIDMismatch:     "PodUIDMismatch",
		match.ProtectedPod:       "ProtectedPod",
		match.NotAttested:        "NotAttested",
	}
	return names[verdict]
}

func message(verdict match.Reason, event *v1alpha1.SecurityEvent) string {
	subject := event.Spec.Subject
	messages := map[match.Reason]string{
		match.ClassMismatch:      fmt.Sprintf("class %s is not in ForensicsConfig spec.trigger.classes", event.Spec.Class),
		match.SeverityBelowMin:   fmt.Sprintf("severity %s is below ForensicsConfig spec.trigger.minSeverities", event.Spec.Severity),
		match.TypeNotWhitelisted: fmt.Sprintf("type %s is not in ForensicsConfig spec.trigger.whitelistedTypes", event.Spec.Type),
		match.NonPodSubject:      fmt.Sprintf("subject %s %s is not a pod with a namespace", subject.Kind, subject.Name),
		match.NamespaceFiltered:  fmt.Sprintf("namespace %s is not in ForensicsConfig spec.trigger.namespaceAllowlist", subject.Namespace),
		match.EventTooOld:        "the event is older than ForensicsConfig spec.trigger.maxEventAge",
		match.PodNotFound:        fmt.Sprintf("no node runs a pod %s/%s", subject.Namespace, subject.Name),
		match.PodUIDMismatch:     fmt.Sprintf("pod %s/%s is not the pod that the event is about: it has another uid, or is younger", subject.Namespace, subject.Name),
		// The agent, which checks for itself, begins its refusal with the same word.
		match.ProtectedPod: fmt.Sprintf("%s: pod %s/%s is static, or in a namespace that is never frozen", match.ProtectedPod, subject.Namespace, subject.Name),
		match.NotAttested:  "everything matches but the attestation: waiting for the event's bundle to be sealed",
	}
	return messages[verdict]
}

// recordOpened is the last word on an event: with it on record no incident is opened again, whatever becomes of the
// incident or the configuration.
func (r *Reconciler) recordOpened(ctx context.Context, event *v1alpha1.SecurityEvent) error {
	incident := v1alpha1.IncidentName(string(event.UID))
	conditions := []metav1.Condition{condition(v1alpha1.ConditionMatched, metav1.ConditionTrue,
		v1alpha1.ReasonIncidentOpened, fmt.Sprintf("incident %s is open, see kubectl get incident %s", incident, incident))}
	if _, err := r.record(ctx, event, append(conditions, onTime(event, v1alpha1.ReasonSealed, "the seal came")...)); err != nil {
		return err
	}
	r.overdue.remove(event.Name)
	r.note(event, noteOpened(incident))
	return nil
}

func (r *Reconciler) recordMiss(ctx context.Context, event *v1alpha1.SecurityEvent, verdict match.Reason) error {
	conditions := []metav1.Condition{condition(v1alpha1.ConditionMatched, metav1.ConditionFalse, Reason(verdict), message(verdict, event))}
	changed, err := r.record(ctx, event, append(conditions, onTime(event, Reason(verdict), "the event opens nothing, sealed or not")...))
	if err != nil || !changed {
		return err
	}
	misses.WithLabelValues(string(verdict)).Inc()
	r.overdue.remove(event.Name)
	log.FromContext(ctx).Info("event opens nothing", "reason", string(verdict))
	return nil
}

// recordWaiting counts the miss when the wait begins, and raises the alarm when it takes too long.
func (r *Reconciler) recordWaiting(ctx context.Context, event *v1alpha1.SecurityEvent, late bool) error {
	first := meta.FindStatusCondition(event.Status.Conditions, v1alpha1.ConditionMatched) == nil
	alarm := late && !meta.IsStatusConditionTrue(event.Status.Conditions, v1alpha1.ConditionAttestationOverdue)
	conditions := []metav1.Condition{condition(v1alpha1.ConditionMatched, metav1.ConditionFalse,
		Reason(match.NotAttested), message(match.NotAttested, event))}
	if late {
		conditions = append(conditions, condition(v1alpha1.ConditionAttestationOverdue, metav1.ConditionTrue, v1alpha1.ReasonOverdue,
			"not sealed after "+overdueAfter.String()+": the pod is not contained; look at the ugallu-attestor Deployment, the log and the store"))
	}
	if _, err := r.record(ctx, event, conditions); err != nil {
		return err
	}
	if first {
		misses.WithLabelValues(string(match.NotAttested)).Inc()
	}
	if late {
		r.overdue.add(event.Name)
	}
	if alarm {
		r.note(event, noteOverdue())
	}
	return nil
}

// onTime takes the alarm back, if there was one, and says why.
func onTime(event *v1alpha1.SecurityEvent, reason, message string) []metav1.Condition {
	if !meta.IsStatusConditionTrue(event.Status.Conditions, v1alpha1.ConditionAttestationOverdue) {
		return nil
	}
	return []metav1.Condition{condition(v1alpha1.ConditionAttestationOverdue, metav1.ConditionFalse,
		reason, message)}
}

// record merges conditions into the event, with an optimistic lock: the attestor writes other fields of the same status.
func (r *Reconciler) record(ctx context.Context, event *v1alpha1.SecurityEvent, conditions []metav1.Condition) (bool, error) {
	before := event.DeepCopy()
	for _, c := range conditions {
		c.ObservedGeneration = event.Generation
		c.LastTransitionTime = metav1.NewTime(r.Clock.Now())
		meta.SetStatusCondition(&event.Status.Conditions, c)
	}
	if equality.Semantic.DeepEqual(before.Status, event.Status) {
		return false, nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, event, patch, client.FieldOwner(fieldOwner)); err != nil {
		return false, fmt.Errorf("record verdict on event %s: %w", event.Name, err)
	}
	return true, nil
}
