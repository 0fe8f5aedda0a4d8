package evidence

import (
	"encoding/json"
	"time"
)

// Types of statements and predicates.
const (
	StatementType              = "https://in-toto.io/Statement/v1"
	PredicateTypeSecurityEvent = "https://ugallu.io/attestation/security-event/v1"
	PredicateTypeEventResponse = "https://ugallu.io/attestation/event-response/v1"
	PayloadType                = "application/vnd.in-toto+json"
)

// Statement is an in-toto Statement v1. The bytes that are signed are its canonical JSON.
type Statement struct {
	Type          string    `json:"_type"`
	Subject       []Subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     any       `json:"predicate"`
}

// Subject is a named digest.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// SHA256Subject is a subject with one sha256 digest.
func SHA256Subject(name, sha256 string) Subject {
	return Subject{Name: name, Digest: map[string]string{"sha256": sha256}}
}

// SecurityEventPredicate is what a bundle says about an event; its subject is the event's spec in canonical JSON.
type SecurityEventPredicate struct {
	Event     Reference       `json:"event"`
	CreatedAt time.Time       `json:"createdAt"`
	Spec      json.RawMessage `json:"spec"`
	// Previous is the sha256 of the payload of the statement before this one: on a Completed or Failed event that of the
	// last response of the capture, or of the trigger where there was none. Empty on any other event, such as a trigger.
	Previous string   `json:"previous,omitempty"`
	Attestor Attestor `json:"attestor"`
}

// EventResponsePredicate is what a bundle says about a finished response; its subjects are the canonical
// {spec,outcome} and every artifact.
type EventResponsePredicate struct {
	Response    Reference       `json:"response"`
	IncidentUID string          `json:"incidentUid"`
	Step        string          `json:"step"`
	Spec        json.RawMessage `json:"spec"`
	// Outcome is the response's status as the executor closed it.
	Outcome   json.RawMessage `json:"outcome"`
	Artifacts []Artifact      `json:"artifacts"`
	// Attachments are the stored objects that belong to no artifact: the lists of gaps and of dropped flows.
	Attachments []Segment `json:"attachments,omitempty"`
	// ReadBack is the verdict of the workload that read the stored objects; absent when nothing was stored.
	ReadBack *ReadBack `json:"readBack,omitempty"`
	// Previous is the sha256 of the payload of the statement before this one in the incident; empty on the first.
	Previous string   `json:"previous,omitempty"`
	Attestor Attestor `json:"attestor"`
}

// ReadBack says whether the store returned what the executor asserts.
type ReadBack struct {
	By     string `json:"by"`
	Agrees bool   `json:"agrees"`
	// Message names what disagrees.
	Message string `json:"message"`
}

// Attestor is who signed.
type Attestor struct {
	Account string    `json:"account"`
	At      time.Time `json:"at"`
}
