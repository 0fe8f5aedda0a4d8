package incident

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/stamp"
)

// keyRetry is how soon an acknowledgement is looked at again when the key of its stamps could not be read.
const keyRetry = 5 * time.Second

// acknowledgeStep waits for the word to let the pod go: enough stamped acknowledgements, or the deadline, or a failed
// capture whose incident says so. It owns the condition Acknowledged.
type acknowledgeStep struct {
	client client.Client
}

// letGo says whether the word was given, by whom or what ever.
func letGo(s *scene) bool {
	if s.is(v1alpha1.ConditionAcknowledged) {
		return true
	}
	reason := s.reason(v1alpha1.ConditionAcknowledged)
	return reason == v1alpha1.ReasonDeadlineReached || reason == v1alpha1.ReasonCaptureFailed
}

func (a *acknowledgeStep) run(ctx context.Context, s *scene) (progress, error) {
	if letGo(s) {
		return finished(), nil
	}
	if s.incident.Status.CompletionEvent == nil {
		return waiting(0), nil
	}
	if s.is(v1alpha1.ConditionFailed) && s.incident.Spec.OnFailure == v1alpha1.OnFailureRelease {
		s.set(v1alpha1.ConditionAcknowledged, metav1.ConditionFalse, v1alpha1.ReasonCaptureFailed, "the capture failed and onFailure is Release")
		return finished(), nil
	}
	again, err := a.acknowledged(ctx, s)
	if err != nil {
		return progress{}, err
	}
	if s.is(v1alpha1.ConditionAcknowledged) {
		return finished(), nil
	}
	if s.incident.Status.UnfreezeAt == nil {
		return waiting(again), nil
	}
	if left := s.incident.Status.UnfreezeAt.Sub(s.now); left > 0 {
		if again > 0 {
			left = min(left, again)
		}
		return waiting(left), nil
	}
	s.set(v1alpha1.ConditionAcknowledged, metav1.ConditionFalse, v1alpha1.ReasonDeadlineReached,
		"nobody acknowledged until "+s.incident.Status.UnfreezeAt.UTC().Format("2006-01-02T15:04:05Z"))
	return finished(), nil
}

// acknowledged reads the outcome event. The annotation asks; only stamps release. What cannot be checked now is looked
// at again, and does not keep the deadline from counting.
func (a *acknowledgeStep) acknowledged(ctx context.Context, s *scene) (again time.Duration, err error) {
	var event v1alpha1.SecurityEvent
	err = a.client.Get(ctx, client.ObjectKey{Name: s.incident.Status.CompletionEvent.Name}, &event)
	if client.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("read event %s: %w", s.incident.Status.CompletionEvent.Name, err)
	}
	// Bound by uid: an event that was deleted, or made anew under the name, acknowledges nothing.
	if err != nil || string(event.UID) != s.incident.Status.CompletionEvent.UID ||
		event.Annotations[v1alpha1.AnnotationAcknowledged] != "true" {
		return 0, nil //nolint:nilerr // not found is the answer: nobody acknowledged
	}
	key, err := stamp.Key(ctx, a.client, false)
	if err != nil {
		s.set(v1alpha1.ConditionAcknowledged, metav1.ConditionFalse, v1alpha1.ReasonWaiting, "the acknowledgement cannot be checked: "+err.Error())
		log.FromContext(ctx).Error(err, "acknowledgement not checked", "incident", s.incident.Name)
		return keyRetry, nil
	}
	valid := stamps(key, &event)
	required := int(s.incident.Spec.RequiredAcknowledgements)
	if len(valid) < required {
		s.set(v1alpha1.ConditionAcknowledged, metav1.ConditionFalse, v1alpha1.ReasonStampInvalid,
			fmt.Sprintf("annotation %s is true, but %d of %d acknowledgements carry a valid stamp of the admission webhook; take the annotation off and acknowledge again",
				v1alpha1.AnnotationAcknowledged, len(valid), required))
		return 0, nil
	}
	s.incident.Status.Acknowledgements = valid[:required]
	names := make([]string, 0, required)
	for _, ack := range valid[:required] {
		names = append(names, ack.Username)
	}
	s.set(v1alpha1.ConditionAcknowledged, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "acknowledged by "+strings.Join(names, ", "))
	return 0, nil
}

// stamps returns the acknowledgements of this very event and manifest that check, one for each account.
func stamps(key []byte, event *v1alpha1.SecurityEvent) []v1alpha1.Acknowledgement {
	var claimed, valid []v1alpha1.Acknowledgement
	if json.Unmarshal([]byte(event.Annotations[v1alpha1.AnnotationAcknowledgements]), &claimed) != nil {
		return nil
	}
	manifest := ""
	if event.Spec.Evidence != nil {
		manifest = event.Spec.Evidence.SHA256
	}
	seen := map[string]bool{}
	for _, ack := range claimed {
		if ack.EventUID != string(event.UID) || ack.ManifestSHA256 != manifest || seen[ack.Username] || !stamp.Valid(key, ack) {
			continue
		}
		seen[ack.Username] = true
		valid = append(valid, ack)
	}
	return valid
}
