package order

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

func pastDeadline(r *v1alpha1.EventResponse) {
	past := metav1.NewTime(time.Now().Add(-time.Second))
	r.Spec.Deadline = &past
}

func TestASnapshotPastItsDeadlineCountsWhatWasNotCaptured(t *testing.T) {
	missing := []v1alpha1.GapCount{{Reason: "ArtifactNotStored", Message: "web/rootfs.tar.zst: store is away", Count: 2}}
	tests := map[string]struct {
		spoil func(*world)
		gaps  []v1alpha1.GapCount
		why   string
	}{
		"named": {func(*world) {}, missing, "the deadline"},
		"holds hang": {func(w *world) {
			w.hold = func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}
		}, missing, "the deadline"},
		"cannot be told": {func(w *world) { w.capture = func(Capture) error { return errors.New("no such bucket") } }, nil, "no such bucket"},
		"thaw fails": {func(w *world) {
			w.incident(incidentName, incidentUID, v1alpha1.FreezeDuringCapture)
			w.failing = map[string]error{"thaw id-web": errors.New("frozen for ever")}
		}, missing, "the deadline"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.captured, w.captureWithin = Captured{Gaps: missing}, lastNames
			if name == "cannot be told" {
				w.captured = Captured{}
			}
			tt.spoil(w)
			record, err := w.carryOut(w.order(v1alpha1.StepSnapshot, snapshot(), pastDeadline))
			if err != nil {
				t.Fatal(err)
			}
			if record.Status.CompletedAt == nil || record.Status.Conditions[0].Reason != v1alpha1.ReasonDeadlineExceeded {
				t.Errorf("status %+v", record.Status)
			}
			if diff := cmp.Diff(tt.gaps, record.Status.Gaps); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			w.sayWhy(record, tt.why)
		})
	}
}

func TestAContainerThatCannotBeHeldKeepsTheOthersFromNothing(t *testing.T) {
	w := newWorld(t)
	w.hold = func(context.Context) error { return errors.New("snapshotter refuses") }
	w.captured = Captured{Artifacts: []v1alpha1.Artifact{
		{Name: "web/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem}, {Name: "side/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem},
	}}
	record, err := w.carryOut(w.order(v1alpha1.StepSnapshot, snapshot()))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, append(slices.Repeat([]string{"hold id-web", "hold id-side"}, holdTries), "capture")...)
}

func TestKeysThatWereTakenOfTheFlowsAtTheReleaseAreCounted(t *testing.T) {
	for under, want := range map[string]int64{"/0": 0, "/3": 3, "": 0} {
		t.Run(under, func(t *testing.T) {
			w := newWorld(t)
			w.storedUnder = under
			w.order(v1alpha1.StepSnapshot, snapshot(), closed(v1alpha1.ResponseSucceeded))
			w.flows = Flows{Counts: v1alpha1.FlowCounts{Listed: 1}, List: []evidence.Flow{{Protocol: 6}}}
			record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
			if err != nil {
				t.Fatal(err)
			}
			var counted int64
			for _, gap := range record.Status.Gaps {
				if gap.Reason == gapTaken {
					counted += gap.Count
				}
			}
			if counted != want || record.Status.Containment.FlowsObject == nil {
				t.Errorf("gaps %+v of %+v", record.Status.Gaps, record.Status.Containment.FlowsObject)
			}
		})
	}
}
