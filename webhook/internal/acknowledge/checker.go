package acknowledge

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/stamp"
)

// Checker is the validating half: it sees what will be stored, after every mutating webhook has had its turn.
type Checker struct {
	key        Key
	controller string
}

// NewChecker returns a checker. The controller's account alone may report Forensic events.
func NewChecker(key Key, controller string) *Checker {
	return &Checker{key: key, controller: controller}
}

// Handle allows or denies; it changes nothing.
func (c *Checker) Handle(ctx context.Context, req admission.Request) admission.Response {
	before, after, err := events(req)
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if req.Operation == admissionv1.Create {
		return answer(c.refuseCreate(after, req.UserInfo.Username))
	}
	made := change{before: marksOf(before), after: marksOf(after)}
	if !made.touchesStamps() && !made.touchesAcknowledged() {
		return admission.Allowed("")
	}
	key, err := c.key(ctx)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	made.void = void(key, before)
	return answer(refuseUpdate(key, made, after, req.UserInfo.Username))
}

func (c *Checker) refuseCreate(event *v1alpha1.SecurityEvent, user string) string {
	if event.Spec.Class == v1alpha1.ClassForensic && user != c.controller {
		return fmt.Sprintf("spec.class: %s may not report %s events: that class is the forensics controller's own",
			user, v1alpha1.ClassForensic)
	}
	return refuseCreate(marksOf(event))
}

func refuseUpdate(key []byte, made change, after *v1alpha1.SecurityEvent, user string) string {
	if !made.touchesStamps() {
		if made.touchesAcknowledged() && !made.takesOff() {
			return fmt.Sprintf("metadata.annotations[%s]: changed without a stamp in metadata.annotations[%s]",
				v1alpha1.AnnotationAcknowledged, v1alpha1.AnnotationAcknowledgements)
		}
		return ""
	}
	// Stamps come with an acknowledgement that was not there before, or before the last with none at all.
	if refusal := refuseChange(change{
		before: marks{acknowledged: made.before.acknowledged}, after: marks{acknowledged: made.after.acknowledged},
	}); refusal != "" {
		return refusal
	}
	return refuseStamps(key, made, after, user)
}

// refuseStamps demands that every stamp checks, that the valid old ones are still there, and that the one that was
// added is this user's, and his only one.
func refuseStamps(key []byte, made change, event *v1alpha1.SecurityEvent, user string) string {
	stamps := parseStamps(made.after.stamps)
	kept := validStamps(key, event, made.before.stamps)
	sameMAC := func(a, b v1alpha1.Acknowledgement) bool { return a.MAC == b.MAC }
	byUser := func(ack v1alpha1.Acknowledgement) bool { return ack.Username == user }
	last := len(stamps) - 1
	if last >= 0 && slices.EqualFunc(kept, stamps[:last], sameMAC) && !slices.ContainsFunc(kept, byUser) &&
		belongs(stamps[last], event) && byUser(stamps[last]) && stamp.Valid(key, stamps[last]) {
		return ""
	}
	return fmt.Sprintf("metadata.annotations[%s]: only the admission webhook writes this annotation",
		v1alpha1.AnnotationAcknowledgements)
}
