package match_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/match"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func config() v1alpha1.ForensicsConfigSpec {
	yes := true
	return v1alpha1.ForensicsConfigSpec{Trigger: v1alpha1.TriggerConfig{
		Classes:          []v1alpha1.EventClass{v1alpha1.ClassDetection, v1alpha1.ClassAnomaly},
		MinSeverities:    []v1alpha1.Severity{v1alpha1.SeverityHigh, v1alpha1.SeverityCritical},
		RequireAttested:  &yes,
		WhitelistedTypes: []string{"HoneypotTriggered"},
		MaxEventAge:      &metav1.Duration{Duration: time.Hour},
	}}
}

func subject() match.Subject {
	event := &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now.Add(-time.Minute))},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassDetection, Severity: v1alpha1.SeverityCritical, Type: "HoneypotTriggered",
			Subject: v1alpha1.EventSubject{Kind: "Pod", Namespace: "sandbox", Name: "victim"},
		},
	}
	pod := match.Pod{Found: true, UID: "pod-1", CreatedAt: now.Add(-time.Hour)}
	return match.Subject{Event: event, Pod: pod, Attested: true, Now: now}
}

func TestMatchGivesOneReason(t *testing.T) {
	tests := map[string]struct {
		change func(c *v1alpha1.ForensicsConfigSpec, s *match.Subject)
		want   match.Reason
	}{
		"everything fits":   {func(*v1alpha1.ForensicsConfigSpec, *match.Subject) {}, match.Matched},
		"declared uid fits": {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) { s.Event.Spec.Subject.UID = "pod-1" }, match.Matched},
		"type listed under spec": {func(c *v1alpha1.ForensicsConfigSpec, _ *match.Subject) {
			c.WhitelistedTypes, c.Trigger.WhitelistedTypes = c.Trigger.WhitelistedTypes, nil
		}, match.Matched},
		"other class": {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) { s.Event.Spec.Class = v1alpha1.ClassAudit }, match.ClassMismatch},
		"our own class, even when configured": {func(c *v1alpha1.ForensicsConfigSpec, s *match.Subject) {
			c.Trigger.Classes = append(c.Trigger.Classes, v1alpha1.ClassForensic)
			s.Event.Spec.Class = v1alpha1.ClassForensic
		}, match.ClassMismatch},
		"low severity": {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) {
			s.Event.Spec.Severity = v1alpha1.SeverityMedium
		}, match.SeverityBelowMin},
		"more severe than the one listed": {func(c *v1alpha1.ForensicsConfigSpec, _ *match.Subject) {
			c.Trigger.MinSeverities = []v1alpha1.Severity{v1alpha1.SeverityHigh}
		}, match.Matched},
		"type not listed":            {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) { s.Event.Spec.Type = "Other" }, match.TypeNotWhitelisted},
		"type in other case":         {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) { s.Event.Spec.Type = "honeypottriggered" }, match.TypeNotWhitelisted},
		"empty list matches nothing": {func(c *v1alpha1.ForensicsConfigSpec, _ *match.Subject) { c.Trigger.WhitelistedTypes = nil }, match.TypeNotWhitelisted},
		"not a pod":                  {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) { s.Event.Spec.Subject.Kind = "Node" }, match.NonPodSubject},
		"no namespace":               {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) { s.Event.Spec.Subject.Namespace = "" }, match.NonPodSubject},
		"namespace not allowed": {func(c *v1alpha1.ForensicsConfigSpec, _ *match.Subject) {
			c.Trigger.NamespaceAllowlist = []string{"prod"}
		}, match.NamespaceFiltered},
		"too old": {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) {
			s.Event.CreationTimestamp = metav1.NewTime(now.Add(-2 * time.Hour))
		}, match.EventTooOld},
		"pod gone":    {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) { s.Pod = match.Pod{} }, match.PodNotFound},
		"another uid": {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) { s.Event.Spec.Subject.UID = "pod-0" }, match.PodUIDMismatch},
		"pod younger than an event without uid": {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) {
			s.Pod.CreatedAt = now
		}, match.PodUIDMismatch},
		"protected":    {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) { s.Pod.Protected = true }, match.ProtectedPod},
		"not attested": {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) { s.Attested = false }, match.NotAttested},
		"unset means required": {func(c *v1alpha1.ForensicsConfigSpec, s *match.Subject) {
			c.Trigger.RequireAttested = nil
			s.Attested = false
		}, match.NotAttested},
		"attestation not required": {func(c *v1alpha1.ForensicsConfigSpec, s *match.Subject) {
			no := false
			c.Trigger.RequireAttested = &no
			s.Attested = false
		}, match.Matched},
		"first reason wins": {func(_ *v1alpha1.ForensicsConfigSpec, s *match.Subject) {
			s.Event.Spec.Severity = v1alpha1.SeverityLow
			s.Pod = match.Pod{}
			s.Attested = false
		}, match.SeverityBelowMin},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, s := config(), subject()
			test.change(&c, &s)
			if got := match.Match(c, s); got != test.want {
				t.Fatalf("got %q, want %q", got, test.want)
			}
		})
	}
}
