package acknowledge

import (
	"fmt"

	"ugallu.io/forensics/api/v1alpha1"
)

const serviceAccountPrefix = "system:serviceaccount:"

// refuseChange names the first rule on the two annotations that a request breaks, whoever sends it. Empty is none;
// then either nothing changed, or the request adds the acknowledgement.
func refuseChange(c change) string {
	switch {
	case c.touchesStamps():
		return fmt.Sprintf("metadata.annotations[%s]: only the admission webhook writes this annotation; to acknowledge, set %s=true",
			v1alpha1.AnnotationAcknowledgements, v1alpha1.AnnotationAcknowledged)
	case !c.touchesAcknowledged():
		return ""
	case c.takesOff():
		return ""
	case c.before.acknowledged != nil:
		return fmt.Sprintf("metadata.annotations[%s]: an acknowledgement is final, it can be neither changed nor removed",
			v1alpha1.AnnotationAcknowledged)
	default:
		return refuseValue(*c.after.acknowledged)
	}
}

func refuseValue(value string) string {
	if value == acknowledged {
		return ""
	}
	return fmt.Sprintf("metadata.annotations[%s]: %q does not acknowledge anything: the value must be exactly %q",
		v1alpha1.AnnotationAcknowledged, value, acknowledged)
}

// refuseCreate keeps both annotations off new events: an acknowledgement is of one event's uid, and a new one has none.
func refuseCreate(m marks) string {
	if m.stamps != nil {
		return refuseChange(change{after: m})
	}
	if m.acknowledged == nil {
		return ""
	}
	if refusal := refuseValue(*m.acknowledged); refusal != "" {
		return refusal
	}
	return fmt.Sprintf("metadata.annotations[%s]: an event cannot be acknowledged when it is created; annotate the %s event "+
		"of the incident afterwards", v1alpha1.AnnotationAcknowledged, v1alpha1.EventCaptureCompleted)
}

// refuseEvent admits acknowledgements only on the event that ends a capture.
func refuseEvent(event *v1alpha1.SecurityEvent) string {
	outcome := event.Spec.Type == v1alpha1.EventCaptureCompleted || event.Spec.Type == v1alpha1.EventCaptureFailed
	if outcome && event.Spec.Class == v1alpha1.ClassForensic && event.Spec.Incident != nil {
		return ""
	}
	return fmt.Sprintf("metadata.annotations[%s]: a %s event of class %s cannot be acknowledged; annotate the %s or %s event of the incident",
		v1alpha1.AnnotationAcknowledged, event.Spec.Type, event.Spec.Class, v1alpha1.EventCaptureCompleted, v1alpha1.EventCaptureFailed)
}
