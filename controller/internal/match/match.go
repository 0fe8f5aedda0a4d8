package match

import (
	"slices"
	"time"

	"ugallu.io/forensics/api/v1alpha1"
)

// Reason is why an event opens nothing. Its values are also the label of the metric that counts misses.
type Reason string

// The reasons, in the order they are checked: the first that applies is the verdict.
const (
	Matched            Reason = ""
	ClassMismatch      Reason = "class_mismatch"
	SeverityBelowMin   Reason = "severity_below_min"
	TypeNotWhitelisted Reason = "type_not_whitelisted"
	NonPodSubject      Reason = "non_pod_subject"
	NamespaceFiltered  Reason = "namespace_filtered"
	EventTooOld        Reason = "event_too_old"
	PodNotFound        Reason = "pod_not_found"
	PodUIDMismatch     Reason = "pod_uid_mismatch"
	ProtectedPod       Reason = "protected_pod"
	NotAttested        Reason = "not_attested"
)

// Pod is what the decision needs to know of the live pod that has the subject's name.
type Pod struct {
	Found     bool
	UID       string
	CreatedAt time.Time
	// Protected pods are static, mirrored, or run in a namespace that is never frozen.
	Protected bool
}

// Subject is everything that a decision depends on.
type Subject struct {
	Event *v1alpha1.SecurityEvent
	Pod   Pod
	// Attested is whether the event's bundle is sealed and verified, not merely claimed to be.
	Attested bool
	Now      time.Time
}

// Match gives one verdict: Matched, or the first reason against. not_attested comes last, since the attestor signs
// first what matches in every other respect.
func Match(config v1alpha1.ForensicsConfigSpec, subject Subject) Reason {
	if reason := matchEvent(config, subject.Event, subject.Now); reason != Matched {
		return reason
	}
	if reason := matchPod(subject); reason != Matched {
		return reason
	}
	required := config.Trigger.RequireAttested == nil || *config.Trigger.RequireAttested
	if required && !subject.Attested {
		return NotAttested
	}
	return Matched
}

func matchEvent(config v1alpha1.ForensicsConfigSpec, event *v1alpha1.SecurityEvent, now time.Time) Reason {
	trigger := config.Trigger
	switch {
	case event.Spec.Class == v1alpha1.ClassForensic, !slices.Contains(trigger.Classes, event.Spec.Class):
		return ClassMismatch
	case !severeEnough(trigger.MinSeverities, event.Spec.Severity):
		return SeverityBelowMin
	case !slices.Contains(config.WhitelistedTypes, event.Spec.Type) && !slices.Contains(trigger.WhitelistedTypes, event.Spec.Type):
		return TypeNotWhitelisted
	case event.Spec.Subject.Kind != "Pod" || event.Spec.Subject.Namespace == "":
		return NonPodSubject
	case len(trigger.NamespaceAllowlist) > 0 && !slices.Contains(trigger.NamespaceAllowlist, event.Spec.Subject.Namespace):
		return NamespaceFiltered
	case trigger.MaxEventAge != nil && now.Sub(Occurred(event)) > trigger.MaxEventAge.Duration:
		return EventTooOld
	}
	return Matched
}

// severeEnough compares with the lowest severity listed: who asks for high has not asked to miss critical.
func severeEnough(listed []v1alpha1.Severity, severity v1alpha1.Severity) bool {
	order := []v1alpha1.Severity{
		v1alpha1.SeverityInfo, v1alpha1.SeverityLow, v1alpha1.SeverityMedium, v1alpha1.SeverityHigh, v1alpha1.SeverityCritical,
	}
	return slices.ContainsFunc(listed, func(least v1alpha1.Severity) bool {
		return slices.Index(order, severity) >= slices.Index(order, least)
	})
}

func matchPod(subject Subject) Reason {
	declared := subject.Event.Spec.Subject.UID
	switch {
	case !subject.Pod.Found:
		return PodNotFound
	case declared != "" && declared != subject.Pod.UID:
		return PodUIDMismatch
	// An event that names no uid can only be about a pod that existed before it.
	case declared == "" && subject.Pod.CreatedAt.After(Occurred(subject.Event)):
		return PodUIDMismatch
	case subject.Pod.Protected:
		return ProtectedPod
	}
	return Matched
}

// Occurred is when what the event reports was seen: as its source says, but never after the event was created.
func Occurred(event *v1alpha1.SecurityEvent) time.Time {
	created := event.CreationTimestamp.Time
	if detected := event.Spec.DetectedAt; detected != nil && detected.Time.Before(created) {
		return detected.Time
	}
	return created
}
