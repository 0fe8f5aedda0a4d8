package acknowledge

import (
	"encoding/json"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/stamp"
)

const acknowledged = "true"

// change is what a request does to the two annotations.
type change struct {
	before, after marks
	// void: the acknowledgement that stands can release nothing, for its stamps do not check any more.
	void bool
}

// takesOff says whether the request removes an acknowledgement that is void, so that it can be made anew.
func (c change) takesOff() bool { return c.void && c.after.acknowledged == nil && !c.touchesStamps() }

// marks are the two annotations of one state of an event; nil is absent.
type marks struct {
	acknowledged *string
	stamps       *string
}

func marksOf(event *v1alpha1.SecurityEvent) marks {
	var m marks
	if event == nil {
		return m
	}
	if value, there := event.Annotations[v1alpha1.AnnotationAcknowledged]; there {
		m.acknowledged = &value
	}
	if value, there := event.Annotations[v1alpha1.AnnotationAcknowledgements]; there {
		m.stamps = &value
	}
	return m
}

func (c change) touchesAcknowledged() bool {
	return !equal(c.before.acknowledged, c.after.acknowledged)
}

func (c change) touchesStamps() bool { return !equal(c.before.stamps, c.after.stamps) }

func equal(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// validStamps returns the acknowledgements that this key made for this event and manifest. What does not check counts
// for nothing, here as in the controller: after a change of the key, accounts acknowledge anew.
func validStamps(key []byte, event *v1alpha1.SecurityEvent, stamps *string) []v1alpha1.Acknowledgement {
	var valid []v1alpha1.Acknowledgement
	for _, ack := range parseStamps(stamps) {
		if belongs(ack, event) && stamp.Valid(key, ack) {
			valid = append(valid, ack)
		}
	}
	return valid
}

// void says whether an acknowledged event carries a stamp that does not check, or none: after a change of the key.
func void(key []byte, event *v1alpha1.SecurityEvent) bool {
	m := marksOf(event)
	return m.acknowledged != nil && len(validStamps(key, event, m.stamps)) < max(1, len(parseStamps(m.stamps)))
}

// parseStamps returns none for what is no list of acknowledgements.
func parseStamps(stamps *string) []v1alpha1.Acknowledgement {
	var all []v1alpha1.Acknowledgement
	if stamps == nil || json.Unmarshal([]byte(*stamps), &all) != nil {
		return nil
	}
	return all
}

func belongs(ack v1alpha1.Acknowledgement, event *v1alpha1.SecurityEvent) bool {
	return ack.EventUID == string(event.UID) && ack.ManifestSHA256 == manifestSHA256(event)
}

// manifestSHA256 is empty when the capture failed before a manifest was written.
func manifestSHA256(event *v1alpha1.SecurityEvent) string {
	if event.Spec.Evidence == nil {
		return ""
	}
	return event.Spec.Evidence.SHA256
}
