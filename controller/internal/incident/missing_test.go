package incident_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// dying is a node agent that contains, stores what a capture is given to and is gone then.
func (w *world) dying(store func(*v1alpha1.EventResponse)) func(*v1alpha1.EventResponse) {
	return func(response *v1alpha1.EventResponse) {
		if response.Spec.Action.Type != v1alpha1.ActionFilesystemSnapshot {
			succeed(response)
			return
		}
		store(response)
		if err := w.base.Status().Update(w.t.Context(), response); err != nil {
			w.t.Fatal(err)
		}
	}
}

// pastCapture sets the clock to when a capture is closed in place of its agent.
func (w *world) pastCapture(event *v1alpha1.SecurityEvent) *v1alpha1.EventResponse {
	w.t.Helper()
	// However late that is, the incident is not released for it.
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.AutoUnfreezeAfter = &metav1.Duration{} })
	capturing := w.drive(event, v1alpha1.IncidentCapturing)
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.AutoUnfreezeAfter = nil })
	w.steady(event, v1alpha1.IncidentCapturing)
	response := &v1alpha1.EventResponse{}
	w.get(v1alpha1.ResponseName(capturing.Name, v1alpha1.StepSnapshot, 1), response)
	w.clock.SetTime(response.Spec.Deadline.Add(15 * time.Second))
	return response
}

// captureNotEnded has an agent store one of two root filesystems, and a part of the other one.
func captureNotEnded(t *testing.T, w *world) {
	w.agent = w.dying(func(response *v1alpha1.EventResponse) {
		stored := artifact(response)
		storing := stored.Segments[0]
		storing.Key = strings.Replace(storing.Key, "/web/", "/side/", 1)
		response.Status.Artifacts = []v1alpha1.Artifact{stored}
		response.Status.Storing = &v1alpha1.Storing{Artifact: "side/rootfs.tar.zst", Segments: []v1alpha1.StoredObject{storing}}
		response.Status.Gaps = []v1alpha1.GapCount{{Reason: "Unreadable", Message: "/proc/kcore", Count: 1}}
	})
	_, event := w.victim("half-captured")
	response := w.pastCapture(event)
	held := w.drive(event, v1alpha1.IncidentHeld)
	if got := conditions(held); got["Captured"] != "True/Partial" {
		t.Errorf("conditions are %v", got)
	}
	want := []evidence.Gap{
		{Reason: "Unreadable", Message: "/proc/kcore", Count: 1},
		{Reason: "CaptureNotEnded", Message: "what of the pod is neither stored nor counted is not known", Count: 1},
		{Reason: "ArtifactNotCompleted", Message: "side/rootfs.tar.zst: 1 segments are stored, and no more is recorded", Count: 1},
		{Reason: "ArtifactNotStored", Message: "no whole root filesystem is stored of: side", Count: 1},
	}
	w.get(response.Name, response)
	if diff := cmp.Diff(want, evidenceGaps(response)); diff != "" {
		t.Errorf("gaps of the response (-want +got):\n%s", diff)
	}
	manifest := w.manifestOf(held)
	if diff := cmp.Diff(want, manifest.Gaps[:min(len(want), len(manifest.Gaps))]); diff != "" {
		t.Errorf("gaps of the manifest (-want +got):\n%s", diff)
	}
}

// nothingCaptured has an agent that is gone before it stored anything, so that there is no manifest, and that had used up
// most of the room for gaps.
func nothingCaptured(t *testing.T, w *world) {
	long := strings.Repeat("x", v1alpha1.MaxGapMessage)
	w.agent = w.dying(func(response *v1alpha1.EventResponse) {
		response.Status.Gaps = []v1alpha1.GapCount{{Reason: evidence.GapArtifactNotStored, Message: long, Count: 2}}
		for len(response.Status.Gaps) < v1alpha1.MaxGaps {
			reason := "Reason" + strings.Repeat("x", len(response.Status.Gaps)%50) + strings.Repeat("y", len(response.Status.Gaps)/50)
			response.Status.Gaps = append(response.Status.Gaps, v1alpha1.GapCount{Reason: reason, Message: "as reported", Count: 1})
		}
	})
	_, event := w.victim("not-captured")
	response := w.pastCapture(event)
	failed := w.drive(event, v1alpha1.IncidentFailed)
	w.get(response.Name, response)
	if response.Status.Phase != v1alpha1.ResponseFailed || response.Status.CompletedAt == nil || len(response.Status.Gaps) != v1alpha1.MaxGaps {
		t.Fatalf("phase %s with %d gaps", response.Status.Phase, len(response.Status.Gaps))
	}
	const names = "no whole root filesystem is stored of: web, side"
	want := evidence.Gap{Reason: "ArtifactNotStored", Message: (names + "; " + long)[:v1alpha1.MaxGapMessage], Count: 4}
	if diff := cmp.Diff(want, evidenceGaps(response)[0]); diff != "" {
		t.Errorf("gap (-want +got):\n%s", diff)
	}
	for _, message := range []string{names, "what of the pod is neither stored nor counted is not known"} {
		if _, said := reasonOf(failed, v1alpha1.ConditionFailed); !strings.Contains(said, message) {
			t.Errorf("incident says %q", said)
		}
	}
}

func evidenceGaps(response *v1alpha1.EventResponse) []evidence.Gap {
	var gaps []evidence.Gap
	for _, gap := range response.Status.Gaps {
		gaps = append(gaps, evidence.Gap{Reason: gap.Reason, Message: gap.Message, Count: gap.Count})
	}
	return gaps
}
