package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/stamp"
)

func TestAPIServerAdmitsOnlyAuthorisedAcknowledgements(t *testing.T) {
	c := startCluster(t)
	t.Run("refuses all without a configuration", func(t *testing.T) {
		event := c.outcome(t, "unconfigured", 1)
		refusesEvent(t, c.acknowledge(t, responder, event, `"true"`), "no ForensicsConfig")
	})
	config := &v1alpha1.ForensicsConfig{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SingletonName}}
	if err := c.as(t, admin).Create(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Run("refuses", func(t *testing.T) { refusesAcknowledgements(t, c) })
	t.Run("refuses at creation", func(t *testing.T) { refusesAtCreation(t, c) })
	t.Run("stamps, once and for all", func(t *testing.T) { stamps(t, c) })
	t.Run("wants two when the incident does", func(t *testing.T) { stampsTwo(t, c) })
	t.Run("is not asked about detections", func(t *testing.T) {
		c.calls.take()
		if err := c.as(t, stranger).Create(t.Context(), detection("quiet")); err != nil {
			t.Fatal(err)
		}
		if asked := len(c.calls.take()); asked > 0 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("refuses everyone under an empty list", func(t *testing.T) { refusesUnderEmptyList(t, c) })
}

func refusesEvent(t *testing.T, err error, want ...string) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Fatalf("not refused by us: %v", err)
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func (c cluster) acknowledge(t *testing.T, user string, event *v1alpha1.SecurityEvent, value string) error {
	t.Helper()
	patch := []byte(`{"metadata":{"annotations":{"` + v1alpha1.AnnotationAcknowledged + `":` + value + `}}}`)
	return c.as(t, user).Patch(t.Context(), event, client.RawPatch(types.MergePatchType, patch))
}

func refusesAcknowledgements(t *testing.T, c cluster) {
	event := c.outcome(t, "refused", 1)
	seen := detection("seen")
	if err := c.as(t, stranger).Create(t.Context(), seen); err != nil {
		t.Fatal(err)
	}
	refusesEvent(t, c.acknowledge(t, stranger, event, `"true"`), stranger, "ugallu-system:ugallu-responder")
	refusesEvent(t, c.acknowledge(t, admin, event, `"true"`), "ugallu-system:ugallu-responder")
	refusesEvent(t, c.acknowledge(t, controller, event, `"true"`), "ugallu-system:ugallu-responder")
	for _, value := range []string{`"TRUE"`, `"True"`, `" true"`, `"1"`, `"yes"`, `""`} {
		refusesEvent(t, c.acknowledge(t, responder, event, value), `exactly "true"`)
	}
	refusesEvent(t, c.acknowledge(t, responder, seen, `"true"`), "HoneypotTriggered")
	byHand := []byte(`{"metadata":{"annotations":{"` + v1alpha1.AnnotationAcknowledgements + `":"[]"}}}`)
	refusesEvent(t, c.as(t, responder).Patch(t.Context(), event, client.RawPatch(types.MergePatchType, byHand)), "only the admission webhook")
}

func refusesAtCreation(t *testing.T, c cluster) {
	for value, want := range map[string]string{"true": "when it is created", "TRUE": `exactly "true"`} {
		event := detection("created-" + strings.ToLower(value))
		event.Annotations = map[string]string{v1alpha1.AnnotationAcknowledged: value}
		refusesEvent(t, c.as(t, responder).Create(t.Context(), event), want)
	}
	forged := forensic("forged", &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{UID: "x"}}, "trigger")
	refusesEvent(t, c.as(t, admin).Create(t.Context(), forged), "spec.class")
}

func stamps(t *testing.T, c cluster) {
	event := c.outcome(t, "stamped", 1)
	if err := c.acknowledge(t, responder, event, `"true"`); err != nil {
		t.Fatal(err)
	}
	got := c.stored(t, event)
	if len(got) != 1 || !stamp.Valid(key(), got[0]) || got[0].Username != responder ||
		got[0].EventUID != string(event.UID) || got[0].ManifestSHA256 != event.Spec.Evidence.SHA256 || time.Since(got[0].At.Time) > time.Minute {
		t.Fatalf("stamps %+v", got)
	}
	refusesEvent(t, c.acknowledge(t, responder, event, `null`), "final")
	refusesEvent(t, c.acknowledge(t, responder, event, `"false"`), "final")
	remove := []byte(`{"metadata":{"annotations":{"` + v1alpha1.AnnotationAcknowledgements + `":null}}}`)
	refusesEvent(t, c.as(t, controller).Patch(t.Context(), event, client.RawPatch(types.MergePatchType, remove)), "only the admission webhook")
	label := []byte(`{"metadata":{"labels":{"a":"b"}}}`)
	if err := c.as(t, stranger).Patch(t.Context(), event, client.RawPatch(types.MergePatchType, label)); err != nil {
		t.Errorf("a label on an acknowledged event: %v", err)
	}
}

func stampsTwo(t *testing.T, c cluster) {
	c.authorize(t, []any{"ugallu-system:ugallu-responder", "soc:lead"})
	event := c.outcome(t, "two", 2)
	if err := c.acknowledge(t, responder, event, `"true"`); err != nil {
		t.Fatal(err)
	}
	if _, there := event.Annotations[v1alpha1.AnnotationAcknowledged]; there || len(c.stored(t, event)) != 1 {
		t.Fatalf("after the first: %v", event.Annotations)
	}
	refusesEvent(t, c.acknowledge(t, responder, event, `"true"`), "already")
	if err := c.acknowledge(t, lead, event, `"true"`); err != nil {
		t.Fatal(err)
	}
	got := c.stored(t, event)
	if event.Annotations[v1alpha1.AnnotationAcknowledged] != "true" || len(got) != 2 || !stamp.Valid(key(), got[0]) || !stamp.Valid(key(), got[1]) {
		t.Fatalf("after the second: %v", event.Annotations)
	}
}

func refusesUnderEmptyList(t *testing.T, c cluster) {
	c.authorize(t, []any{})
	refusesEvent(t, c.acknowledge(t, responder, c.outcome(t, "nobody", 1), `"true"`), "nobody")
}

func (c cluster) authorize(t *testing.T, accounts []any) {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"spec": map[string]any{"cleanup": map[string]any{"acknowledgeAuthorizedSAs": accounts}}})
	if err != nil {
		t.Fatal(err)
	}
	config := &v1alpha1.ForensicsConfig{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SingletonName}}
	if err := c.as(t, admin).Patch(t.Context(), config, client.RawPatch(types.MergePatchType, raw)); err != nil {
		t.Fatal(err)
	}
}

// stored reads the event again and returns its stamps.
func (c cluster) stored(t *testing.T, event *v1alpha1.SecurityEvent) []v1alpha1.Acknowledgement {
	t.Helper()
	if err := c.as(t, admin).Get(t.Context(), client.ObjectKeyFromObject(event), event); err != nil {
		t.Fatal(err)
	}
	var all []v1alpha1.Acknowledgement
	if err := json.Unmarshal([]byte(event.Annotations[v1alpha1.AnnotationAcknowledgements]), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// outcome opens an incident that wants so many acknowledgements, and creates its Completed event.
func (c cluster) outcome(t *testing.T, name string, required int32) *v1alpha1.SecurityEvent {
	t.Helper()
	trigger := "trigger-" + name
	opened := &v1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.IncidentName(trigger)},
		Spec: v1alpha1.IncidentSpec{
			Trigger:    v1alpha1.Trigger{Ref: v1alpha1.Ref{Name: "t", UID: trigger}, Type: "HoneypotTriggered", Severity: v1alpha1.SeverityHigh, SpecSHA256: strings.Repeat("ab", 32)},
			Pod:        v1alpha1.PodRef{Namespace: "default", Name: "victim", UID: "pod", NodeName: "worker"},
			SubjectUID: v1alpha1.SubjectResolved,
			Freeze:     v1alpha1.PodFreezeAction{Processes: v1alpha1.FreezeUntilReleased, Memory: v1alpha1.MemoryNone},
			Snapshot: v1alpha1.FilesystemSnapshotAction{
				Destination: v1alpha1.Destination{Bucket: "evidence", Prefix: "forensics/x", LockMode: v1alpha1.LockCompliance, RetainUntil: metav1.Now()},
				Compression: v1alpha1.CompressionZstd, MaxBytes: resource.MustParse("1Gi"), MaxEntries: 1, MaxDuration: metav1.Duration{Duration: time.Minute},
			},
			OnFailure: v1alpha1.OnFailureHold, Disposition: v1alpha1.DispositionResume, RequiredAcknowledgements: required,
		},
	}
	if err := c.as(t, controller).Create(t.Context(), opened); err != nil {
		t.Fatal(err)
	}
	event := forensic(name, opened, trigger)
	if err := c.as(t, controller).Create(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	return event
}

func detection(name string) *v1alpha1.SecurityEvent {
	return &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassDetection, Type: "HoneypotTriggered", Severity: v1alpha1.SeverityHigh,
			Source:  v1alpha1.EventSource{Operator: "test"},
			Subject: v1alpha1.EventSubject{Kind: "Pod", Namespace: "default", Name: "victim"},
		},
	}
}

func forensic(name string, opened *v1alpha1.Incident, trigger string) *v1alpha1.SecurityEvent {
	event := detection("se-" + name)
	event.Spec.Class, event.Spec.Type = v1alpha1.ClassForensic, v1alpha1.EventCaptureCompleted
	event.Spec.Incident = &v1alpha1.IncidentRef{UID: string(opened.UID)}
	event.Spec.Trigger = &v1alpha1.Ref{Name: "t", UID: trigger}
	event.Spec.Evidence = &v1alpha1.EvidenceRef{
		URL: "s3://evidence/forensics/x/manifest.json", SHA256: strings.Repeat("cd", 32), VersionID: "1", Size: 1, MediaType: "application/json",
	}
	return event
}
