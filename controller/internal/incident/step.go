package incident

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// step moves an incident on by one condition. It can be repeated at any point: names are derived, and what exists with
// equal content is success.
type step interface {
	run(ctx context.Context, s *scene) (progress, error)
}

// progress says whether the next step may start, and when to look again if nothing happens before.
type progress struct {
	done  bool
	after time.Duration
}

func finished() progress { return progress{done: true} }

func waiting(after time.Duration) progress { return progress{after: after} }

// scene is one incident at one moment. Steps change its status; what they changed is recorded after each of them.
type scene struct {
	incident *v1alpha1.Incident
	recorded *v1alpha1.Incident
	now      time.Time
}

func newScene(incident *v1alpha1.Incident, now time.Time) *scene {
	return &scene{incident: incident, recorded: incident.DeepCopy(), now: now}
}

func (s *scene) is(condition string) bool {
	return meta.IsStatusConditionTrue(s.incident.Status.Conditions, condition)
}

func (s *scene) reason(condition string) string {
	if found := meta.FindStatusCondition(s.incident.Status.Conditions, condition); found != nil {
		return found.Reason
	}
	return ""
}

func (s *scene) message(condition string) string {
	if found := meta.FindStatusCondition(s.incident.Status.Conditions, condition); found != nil {
		return found.Message
	}
	return ""
}

func (s *scene) set(condition string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&s.incident.Status.Conditions, metav1.Condition{
		Type: condition, Status: status, Reason: reason, Message: truncate(message),
		ObservedGeneration: s.incident.Generation, LastTransitionTime: metav1.NewTime(s.now),
	})
}

// fail ends the way to the manifest for good. The pod stays as it is until it is released.
func (s *scene) fail(step v1alpha1.Step, reason, message string) {
	s.set(v1alpha1.ConditionFailed, metav1.ConditionTrue, reason, "step "+string(step)+": "+message)
}

// reflect shows in a condition what keeps a response from being closed, such as a store that is full, and that it is over.
func (s *scene) reflect(condition string, response *v1alpha1.EventResponse) {
	complete := meta.FindStatusCondition(response.Status.Conditions, v1alpha1.ConditionComplete)
	if complete == nil || response.Status.CompletedAt != nil {
		return
	}
	shown := s.reason(condition)
	switch {
	case complete.Reason != v1alpha1.ReasonRunning:
		s.set(condition, metav1.ConditionFalse, complete.Reason, complete.Message)
	case shown != "" && shown != v1alpha1.ReasonWaiting && shown != v1alpha1.ReasonRunning:
		s.set(condition, metav1.ConditionFalse, v1alpha1.ReasonRunning, "response "+response.Name+" goes on")
	}
}

// response is the reference to the first attempt at a step, when it is on record.
func (s *scene) response(step v1alpha1.Step) *v1alpha1.Ref {
	name := v1alpha1.ResponseName(s.incident.Name, step, 1)
	for i := range s.incident.Status.Responses {
		if s.incident.Status.Responses[i].Name == name {
			return &s.incident.Status.Responses[i]
		}
	}
	return nil
}

// remember notes a response. The note alone is no reason to write: it is recorded with the step's condition.
func (s *scene) remember(response *v1alpha1.EventResponse) {
	for i := range s.incident.Status.Responses {
		if s.incident.Status.Responses[i].Name == response.Name {
			return
		}
	}
	s.incident.Status.Responses = append(s.incident.Status.Responses, v1alpha1.Ref{Name: response.Name, UID: string(response.UID)})
}

// truncate cuts a message to the length that the API server takes.
func truncate(message string) string {
	const most = 32768
	return message[:min(len(message), most)]
}
