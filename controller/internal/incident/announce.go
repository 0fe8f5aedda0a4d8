package incident

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// operator is the source of the controller's own events.
const operator = "ugallu-forensics"

// announcer creates the outcome event of an incident and fixes on it when the pod goes free by itself.
type announcer struct {
	client client.Client
	live   client.Reader
}

// announce creates the event, or finds it created, and notes it and the deadline in the scene.
func (a *announcer) announce(ctx context.Context, s *scene, eventType string, reference *v1alpha1.EvidenceRef) error {
	event := outcome(s, eventType, reference)
	spec := event.Spec.DeepCopy()
	err := a.client.Create(ctx, event, client.FieldOwner(fieldOwner))
	if apierrors.IsAlreadyExists(err) {
		err = a.live.Get(ctx, client.ObjectKeyFromObject(event), event)
	}
	if err != nil {
		return fmt.Errorf("announce %s: %w", event.Name, err)
	}
	// The text is for people; everything else must be equal.
	spec.Description = event.Spec.Description
	if !equality.Semantic.DeepEqual(spec, &event.Spec) {
		return fmt.Errorf("event %s: %w", event.Name, errForeign)
	}
	if err := a.fixDeadline(ctx, s, event); err != nil {
		return err
	}
	s.incident.Status.CompletionEvent = &v1alpha1.Ref{Name: event.Name, UID: string(event.UID)}
	s.incident.Status.UnfreezeAt = event.Status.UnfreezeAt
	return nil
}

// fixDeadline computes unfreezeAt from the event's creation, so that a restart does not move it, and makes the event say so:
// what stands there already may be somebody else's.
func (a *announcer) fixDeadline(ctx context.Context, s *scene, event *v1alpha1.SecurityEvent) error {
	at := deadline(event.CreationTimestamp, s.incident.Spec.AutoUnfreezeAfter.Duration)
	if at.Equal(event.Status.UnfreezeAt) {
		return nil
	}
	before := event.DeepCopy()
	event.Status.UnfreezeAt = at
	// No lock: of our workloads nobody else writes this field, and the attestor writes the others at this very moment.
	if err := a.client.Status().Patch(ctx, event, client.MergeFrom(before), client.FieldOwner(fieldOwner)); err != nil {
		return fmt.Errorf("fix the deadline on event %s: %w", event.Name, err)
	}
	return nil
}

// deadline is nil where the pod never goes free by itself. Times in the API have whole seconds.
func deadline(created metav1.Time, after time.Duration) *metav1.Time {
	if after == 0 {
		return nil
	}
	at := metav1.NewTime(created.Add(after)).Rfc3339Copy()
	return &at
}

func outcome(s *scene, eventType string, reference *v1alpha1.EvidenceRef) *v1alpha1.SecurityEvent {
	incident := s.incident
	description := fmt.Sprintf("incident %s: the evidence of pod %s/%s is stored", incident.Name, incident.Spec.Pod.Namespace, incident.Spec.Pod.Name)
	if eventType == v1alpha1.EventCaptureFailed {
		description = fmt.Sprintf("incident %s: the capture of pod %s/%s failed: %s: %s", incident.Name, incident.Spec.Pod.Namespace,
			incident.Spec.Pod.Name, s.reason(v1alpha1.ConditionFailed), s.message(v1alpha1.ConditionFailed))
	}
	const longest = 4096
	return &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{
			Name:   v1alpha1.OutcomeEventName(incident.Name, eventType),
			Labels: map[string]string{v1alpha1.LabelIncidentUID: string(incident.UID)},
		},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassForensic, Type: eventType, Severity: incident.Spec.Trigger.Severity,
			Source: v1alpha1.EventSource{Operator: operator},
			Subject: v1alpha1.EventSubject{
				Kind: "Pod", Namespace: incident.Spec.Pod.Namespace, Name: incident.Spec.Pod.Name, UID: incident.Spec.Pod.UID,
			},
			Description: description[:min(len(description), longest)],
			Incident:    &v1alpha1.IncidentRef{UID: string(incident.UID)},
			Trigger:     incident.Spec.Trigger.Ref.DeepCopy(),
			Evidence:    reference,
		},
	}
}
