package acknowledge

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/stamp"
)

// Stamper is the mutating half: it admits acknowledgements and stamps them.
type Stamper struct {
	authority authority
	key       Key
	clock     clock.PassiveClock
}

// Key reads the key that acknowledgements are stamped with. It is asked for at every acknowledgement: a key that was
// replaced counts at once, for every replica.
type Key func(ctx context.Context) ([]byte, error)

// NewStamper returns a stamper. The reader must read the API server itself, so that an account that lost its
// authority a moment ago has none.
func NewStamper(reader client.Reader, key Key, now clock.PassiveClock) *Stamper {
	return &Stamper{authority: authority{reader: reader}, key: key, clock: now}
}

// Handle patches the stamp in, or denies.
func (s *Stamper) Handle(ctx context.Context, req admission.Request) admission.Response {
	before, after, err := events(req)
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if req.Operation == admissionv1.Create {
		return answer(refuseCreate(marksOf(after)))
	}
	key, err := s.key(ctx)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	c := change{before: marksOf(before), after: marksOf(after), void: void(key, before)}
	if refusal := refuseChange(c); refusal != "" || !c.touchesAcknowledged() || c.takesOff() {
		return answer(refusal)
	}
	return s.acknowledge(ctx, key, after, req.UserInfo.Username)
}

func (s *Stamper) acknowledge(ctx context.Context, key []byte, event *v1alpha1.SecurityEvent, user string) admission.Response {
	required, refusal, err := s.admit(ctx, event, user)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	if refusal != "" {
		return admission.Denied(refusal)
	}
	stamps := validStamps(key, event, marksOf(event).stamps)
	if slices.ContainsFunc(stamps, func(ack v1alpha1.Acknowledgement) bool { return ack.Username == user }) {
		return admission.Denied(fmt.Sprintf("%s has acknowledged this incident already; %d different accounts must", user, required))
	}
	signed, err := stamp.Sign(key, v1alpha1.Acknowledgement{
		Username: user, EventUID: string(event.UID), ManifestSHA256: manifestSHA256(event), At: metav1.NewMicroTime(s.clock.Now()),
	})
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return patch(append(stamps, signed), required)
}

func (s *Stamper) admit(ctx context.Context, event *v1alpha1.SecurityEvent, user string) (required int, refusal string, err error) {
	if refusal := refuseEvent(event); refusal != "" {
		return 0, refusal, nil
	}
	refusal, err = s.authority.refuse(ctx, user)
	if err != nil || refusal != "" {
		return 0, refusal, err
	}
	return s.authority.required(ctx, event)
}

// patch sets the stamps. It withholds the acknowledgement until the last required one is there, so that whoever
// watches the annotation alone does not take the first for the last.
func patch(stamps []v1alpha1.Acknowledgement, required int) admission.Response {
	raw, err := json.Marshal(stamps)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, fmt.Errorf("marshal acknowledgements: %w", err))
	}
	operations := []jsonpatch.Operation{jsonpatch.NewOperation("add", pointer(v1alpha1.AnnotationAcknowledgements), string(raw))}
	missing := required - len(stamps)
	if missing <= 0 {
		return admission.Patched("", operations...)
	}
	operations = append(operations, jsonpatch.NewOperation("remove", pointer(v1alpha1.AnnotationAcknowledged), nil))
	return admission.Patched("", operations...).WithWarnings(fmt.Sprintf(
		"acknowledgement %d of %d is recorded; the incident is released when %d more authorised account(s) acknowledge it",
		len(stamps), required, missing))
}

// pointer is the JSON pointer to an annotation. The object has annotations already when it is patched.
func pointer(annotation string) string {
	return "/metadata/annotations/" + strings.ReplaceAll(annotation, "/", "~1")
}

// events decodes the old and the new event; the old one of a create is nil.
func events(req admission.Request) (before, after *v1alpha1.SecurityEvent, err error) {
	after = new(v1alpha1.SecurityEvent)
	if err := json.Unmarshal(req.Object.Raw, after); err != nil {
		return nil, nil, fmt.Errorf("parse event: %w", err)
	}
	if len(req.OldObject.Raw) == 0 {
		return nil, after, nil
	}
	before = new(v1alpha1.SecurityEvent)
	if err := json.Unmarshal(req.OldObject.Raw, before); err != nil {
		return nil, nil, fmt.Errorf("parse old event: %w", err)
	}
	return before, after, nil
}

func answer(refusal string) admission.Response {
	if refusal != "" {
		return admission.Denied(refusal)
	}
	return admission.Allowed("")
}
