package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Labels and annotations of the project.
const (
	// LabelFrozen on a pod names the oldest unreleased incident that holds it.
	LabelFrozen = "ugallu.io/frozen"
	// LabelIncidentUID on responses, bundles and forensic events is the uid of their incident.
	LabelIncidentUID = "ugallu.io/incident-uid"
	// LabelParentResponse is the name of the response before this one.
	LabelParentResponse = "ugallu.io/parent-er"
	// LabelStep is the step that a response records.
	LabelStep = "ugallu.io/step"
	// LabelOpen is "true" on an incident until it is released; it cannot be deleted before.
	LabelOpen = "ugallu.io/open"
	// LabelPodUID on an incident, on its orders and on the network policy is the uid of the contained pod.
	LabelPodUID = "ugallu.io/pod-uid"
	// AnnotationAcknowledged with exactly the value "true" asks for the release.
	AnnotationAcknowledged = "ugallu.io/incident-acknowledged"
	// AnnotationAcknowledgements is the webhook's stamp: a JSON list of Acknowledgement.
	AnnotationAcknowledgements = "ugallu.io/incident-acknowledgements"
	// AnnotationReleaseAttempts on an incident is how many attempts at podunfreeze there may be in all, where the first ten failed.
	AnnotationReleaseAttempts = "ugallu.io/release-attempts"
)

// Namespaces and the name of the singletons.
const (
	NamespaceSystem     = "ugallu-system"
	NamespacePrivileged = "ugallu-system-privileged"
	SingletonName       = "default"
)

// Step is one of the four steps of an incident, in the order they run.
type Step string

// The steps.
const (
	StepFreeze   Step = "podfreeze"
	StepSnapshot Step = "filesystem-snapshot"
	StepUpload   Step = "evidence-upload"
	StepUnfreeze Step = "podunfreeze"
)

// Step that orders of a type belong to; none for a type that there is not.
func (a ActionType) Step() Step {
	switch a {
	case ActionPodFreeze:
		return StepFreeze
	case ActionFilesystemSnapshot:
		return StepSnapshot
	case ActionEvidenceUpload:
		return StepUpload
	case ActionPodUnfreeze:
		return StepUnfreeze
	}
	return ""
}

// Types of the events that the controller itself emits, all of class Forensic.
const (
	EventCaptureCompleted = "IncidentCaptureCompleted"
	EventCaptureFailed    = "IncidentCaptureFailed"
)

// IncidentName derives an incident's name from its trigger, so that one event opens one incident, ever:
// the first 16 hex digits of sha256(event uid).
func IncidentName(triggerUID string) string {
	sum := sha256.Sum256([]byte(triggerUID))
	return hex.EncodeToString(sum[:])[:16]
}

// ResponseName is er-<incident>-<step>, with -r<n> appended from the second attempt on.
func ResponseName(incident string, step Step, attempt int32) string {
	if attempt > 1 {
		return fmt.Sprintf("er-%s-%s-r%d", incident, step, attempt)
	}
	return fmt.Sprintf("er-%s-%s", incident, step)
}

// OutcomeEventName derives the name of an incident's Completed or Failed event, so that there is one of each at most.
func OutcomeEventName(incident, eventType string) string {
	if eventType == EventCaptureFailed {
		return "se-" + incident + "-failed"
	}
	return "se-" + incident + "-completed"
}

// BundleName derives the name of the attestation bundle of an object from the object's uid.
func BundleName(uid string) string {
	sum := sha256.Sum256([]byte(uid))
	return "ab-" + hex.EncodeToString(sum[:])[:16]
}

// EvidencePrefix is the key prefix of everything that an incident stores.
func EvidencePrefix(incident string) string { return "forensics/" + incident }

// ArtifactsPrefix is the only part of the bucket that a node agent may put to.
func ArtifactsPrefix(incident string) string { return EvidencePrefix(incident) + "/artifacts" }
