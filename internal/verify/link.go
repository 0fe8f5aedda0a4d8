package verify

import (
	"encoding/json"
	"slices"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/attest"
)

// link is one proven statement with what it says. Exactly one of event, response and incident is set.
type link struct {
	name     string
	listed   evidence.CustodyStatement
	proof    attest.Verified
	digest   string
	subjects []evidence.Subject
	// asked is whether the bundle that it was read from is by somebody whom the caller named.
	asked bool

	event    *event
	response *response
	incident *evidence.IncidentPredicate
}

// event is what a statement says about a security event.
type event struct {
	evidence.SecurityEventPredicate
	spec eventSpec
}

// eventSpec is the part of an event that other statements are compared with.
type eventSpec struct {
	Class    string              `json:"class"`
	Type     string              `json:"type"`
	Subject  eventSubject        `json:"subject"`
	Incident *incidentRef        `json:"incident"`
	Trigger  *evidence.Reference `json:"trigger"`
	Evidence *announced          `json:"evidence"`
}

type eventSubject struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

type incidentRef struct {
	UID string `json:"uid"`
}

// announced is the manifest as an event announces it.
type announced struct {
	URL       string `json:"url"`
	SHA256    string `json:"sha256"`
	VersionID string `json:"versionId"`
	Size      int64  `json:"size"`
}

// response is what a statement says about a finished response.
type response struct {
	evidence.EventResponsePredicate
	spec    orderSpec
	outcome outcome
}

// orderSpec is the part of an order that other statements are compared with.
type orderSpec struct {
	IncidentUID      string              `json:"incidentUID"`
	IncidentName     string              `json:"incidentName"`
	SecurityEventRef evidence.Reference  `json:"securityEventRef"`
	ParentRef        *evidence.Reference `json:"parentRef"`
	Attempt          int                 `json:"attempt"`
	NodeName         string              `json:"nodeName"`
	PodRef           podRef              `json:"podRef"`
	Action           action              `json:"action"`
}

// action is what was ordered.
type action struct {
	Type string `json:"type"`
}

type podRef struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	NodeName  string `json:"nodeName"`
}

// outcome is the part of a record of an act that facts are taken from. Containment keeps its bytes, for the manifest
// repeats them.
type outcome struct {
	Phase       string          `json:"phase"`
	StartedAt   *time.Time      `json:"startedAt"`
	CompletedAt *time.Time      `json:"completedAt"`
	Containment json.RawMessage `json:"containment"`
	contained   containment
}

type containment struct {
	ContainedAt *time.Time  `json:"containedAt"`
	Containers  []container `json:"containers"`
}

type container struct {
	ContainerID string     `json:"containerID"`
	Name        string     `json:"name"`
	FrozenAt    *time.Time `json:"frozenAt"`
	ThawedAt    *time.Time `json:"thawedAt"`
}

// Steps of an incident and types of the events that end its capture, as statements spell them.
const (
	stepFreeze    = "podfreeze"
	stepSnapshot  = "filesystem-snapshot"
	stepUpload    = "evidence-upload"
	stepUnfreeze  = "podunfreeze"
	typeCompleted = "IncidentCaptureCompleted"
	typeFailed    = "IncidentCaptureFailed"
	classForensic = "Forensic"
	// Kinds of the artifacts that the upload alone stores: the controller's own words.
	kindManifest     = "Manifest"
	kindClusterState = "ClusterState"
)

// steps by the action that is ordered for each.
var steps = map[string]string{
	"PodFreeze": stepFreeze, "FilesystemSnapshot": stepSnapshot, "EvidenceUpload": stepUpload, "PodUnfreeze": stepUnfreeze,
}

// statement is an in-toto statement whose predicate is still to be read.
type statement struct {
	Type          string             `json:"_type"`
	Subject       []evidence.Subject `json:"subject"`
	PredicateType string             `json:"predicateType"`
	Predicate     json.RawMessage    `json:"predicate"`
}

// parse reads the signed bytes of a statement and checks that they say what they say consistently.
func (l *link) parse() error {
	if err := canonical(l.proof.Payload); err != nil {
		return err
	}
	var s statement
	if err := json.Unmarshal(l.proof.Payload, &s); err != nil {
		return refuse("is no statement: %v", err)
	}
	if s.Type != evidence.StatementType {
		return refuse("has type %q", s.Type)
	}
	l.subjects = s.Subject
	switch s.PredicateType {
	case evidence.PredicateTypeSecurityEvent:
		return l.parseEvent(s.Predicate)
	case evidence.PredicateTypeEventResponse:
		return l.parseResponse(s.Predicate)
	case evidence.PredicateTypeIncident:
		l.incident = &evidence.IncidentPredicate{}
		return decode(s.Predicate, l.incident)
	default:
		return refuse("has predicate type %q", s.PredicateType)
	}
}

func (l *link) parseEvent(predicate json.RawMessage) error {
	l.event = &event{}
	if err := decode(predicate, &l.event.SecurityEventPredicate); err != nil {
		return err
	}
	if err := decode(l.event.Spec, &l.event.spec); err != nil {
		return err
	}
	want := evidence.SHA256Subject(l.event.Event.Name, evidence.Digest(l.event.Spec))
	if !sameSubjects(l.subjects, []evidence.Subject{want}) {
		return refuse("its subject is not the spec of event %s that it holds", l.event.Event.Name)
	}
	return nil
}

func (l *link) parseResponse(predicate json.RawMessage) error {
	l.response = &response{}
	r := l.response
	if err := decode(predicate, &r.EventResponsePredicate); err != nil {
		return err
	}
	if err := decode(r.Spec, &r.spec); err != nil {
		return err
	}
	if err := decode(r.Outcome, &r.outcome); err != nil {
		return err
	}
	// The step is a copy of a label; what was ordered never changes.
	if step := steps[r.spec.Action.Type]; step == "" || step != r.Step {
		return refuse("it calls %s the step %q, ordered was %q", r.Response.Name, r.Step, r.spec.Action.Type)
	}
	if len(r.outcome.Containment) > 0 {
		if err := decode(r.outcome.Containment, &r.outcome.contained); err != nil {
			return err
		}
	}
	closed, err := evidence.Canonical(map[string]json.RawMessage{"spec": r.Spec, "outcome": r.Outcome})
	if err != nil {
		return refuse("spec and outcome are no JSON: %v", err)
	}
	want := []evidence.Subject{evidence.SHA256Subject(r.Response.Name, evidence.Digest(closed))}
	for i := range r.Artifacts {
		if kind := r.Artifacts[i].Kind; r.Step != stepUpload && (kind == kindManifest || kind == kindClusterState) {
			return refuse("%s calls its artifact %s a %s: only a %s stores one", r.Response.Name, r.Artifacts[i].Name, kind, stepUpload)
		}
		want = append(want, evidence.SHA256Subject(r.Artifacts[i].Name, r.Artifacts[i].Asserted.SHA256))
	}
	if !sameSubjects(l.subjects, want) {
		return refuse("its subjects are not the spec, the outcome and the artifacts of response %s that it holds", r.Response.Name)
	}
	return nil
}

// step of a response; empty on others.
func (l *link) step() string {
	if l.response == nil {
		return ""
	}
	return l.response.Step
}

// about is the kind and the object that the statement is about.
func (l *link) about() (evidence.StatementKind, evidence.Reference) {
	switch {
	case l.event != nil:
		return evidence.StatementSecurityEvent, l.event.Event
	case l.response != nil:
		return evidence.StatementEventResponse, l.response.Response
	default:
		return evidence.StatementIncident, l.incident.Incident
	}
}

func decode(data json.RawMessage, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return refuse("does not have its shape: %v", err)
	}
	return nil
}

func sameSubjects(a, b []evidence.Subject) bool {
	return slices.EqualFunc(a, b, func(a, b evidence.Subject) bool {
		return a.Name == b.Name && len(a.Digest) == 1 && a.Digest["sha256"] == b.Digest["sha256"]
	})
}
