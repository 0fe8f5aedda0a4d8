package order

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

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
	untold := []v1alpha1.GapCount{
		{Reason: evidence.GapCaptureNotEnded, Message: "what of the pod is neither stored nor counted is not known", Count: 1},
		{Reason: evidence.GapArtifactNotStored, Message: "no whole root filesystem is stored of: side", Count: 1},
	}
	tests := map[string]struct {
		spoil func(*world)
		gaps  []v1alpha1.GapCount
		why   string
	}{
		"named":          {func(*world) {}, missing, "the deadline"},
		"cannot be told": {func(w *world) { w.capture = func(Capture) error { return errors.New("no such bucket") } }, untold, "no such bucket"},
		"thaw fails": {func(w *world) {
			w.incident(incidentName, incidentUID, v1alpha1.FreezeDuringCapture)
			w.failing = map[string]error{"thaw id-web": errors.New("frozen for ever")}
		}, missing, "the deadline"},
		"clock is set back": {func(w *world) {
			w.incident(incidentName, incidentUID, v1alpha1.FreezeDuringCapture)
			w.failing = map[string]error{"thaw id-web": errors.New("frozen for ever")}
			w.agent.node.Clock, w.agent.node.APIServerNow = later{-24 * time.Hour}, time.Now
		}, missing, "the deadline"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.captured, w.captureWithin = Captured{Gaps: missing}, lastNames
			if name == "cannot be told" {
				w.captured = Captured{Artifacts: roots("web")}
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
			if slices.Contains(w.done, "hold id-web") {
				t.Errorf("a late order waits for holds: %v", w.done)
			}
		})
	}
}

// roots are the root filesystems of containers, as a capture stores them.
func roots(containers ...string) (artifacts []v1alpha1.Artifact) {
	for _, name := range containers {
		artifacts = append(artifacts, v1alpha1.Artifact{Name: name + "/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem, Container: name})
	}
	return artifacts
}

// TestACaptureWaitsForAContainerThatCannotBeHeldWhenTheRestIsStored has holds fail as they do while the runtime is started
// again: the order is not closed without the container.
func TestACaptureWaitsForAContainerThatCannotBeHeldWhenTheRestIsStored(t *testing.T) {
	w := newWorld(t)
	refuses := errors.New("snapshotter refuses")
	w.hold = func(_ context.Context, container string) error {
		if container == "id-side" {
			return refuses
		}
		return nil
	}
	w.captured = Captured{Artifacts: roots("web"), Gaps: []v1alpha1.GapCount{{Reason: evidence.GapContainerNotCaptured, Message: "side/rootfs.tar.zst: not held", Count: 2}}}
	hour := metav1.NewTime(time.Now().Add(time.Hour))
	order := w.order(v1alpha1.StepSnapshot, snapshot(), func(r *v1alpha1.EventResponse) { r.Spec.Deadline = &hour })
	holds := slices.Repeat([]string{"hold id-web", "hold id-side"}, holdTries)
	for _, done := range [][]string{append(holds[:len(holds):len(holds)], "capture"), holds} {
		w.done = nil
		record, err := w.carryOut(order)
		if !errors.Is(err, refuses) || record.Status.CompletedAt != nil || len(record.Status.Gaps) > 0 {
			t.Fatalf("error %v, status %+v", err, record.Status)
		}
		w.sayWhy(record, refuses.Error())
		if diff := cmp.Diff(holdsSorted(done), holdsSorted(w.done)); diff != "" {
			t.Errorf("effects (-want +got):\n%s", diff)
		}
	}
	w.done, w.hold, w.captured = nil, nil, Captured{Artifacts: roots("web", "side")}
	record, err := w.carryOut(order)
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, "hold id-web", "hold id-side", "capture")
}

func TestAContainerThatCouldNotBeHeldToTheEndIsAGapThatSaysWhy(t *testing.T) {
	for _, reason := range []string{evidence.GapContainerNotCaptured, evidence.GapArtifactNotStored} {
		w := newWorld(t)
		w.hold = func(context.Context, string) error { return errors.New("snapshotter refuses") }
		w.captured = Captured{Artifacts: roots("web"), Gaps: []v1alpha1.GapCount{{Reason: reason, Message: strings.Repeat("ß", v1alpha1.MaxGapMessage), Count: 2}}}
		hour := metav1.NewTime(time.Now().Add(time.Hour))
		order := w.order(v1alpha1.StepSnapshot, snapshot(), func(r *v1alpha1.EventResponse) { r.Spec.Deadline = &hour })
		if _, err := w.carryOut(order); err == nil {
			t.Fatal("the order is closed")
		}
		w.agent.sights.seen[order.Name].ends = time.Now()
		record, err := w.carryOut(order)
		if err != nil {
			t.Fatal(err)
		}
		if got := record.Status.Conditions[0].Reason; got != v1alpha1.ReasonDeadlineExceeded {
			t.Errorf("reason %s", got)
		}
		gaps := record.Status.Gaps
		if len(gaps) != 1 || gaps[0].Count != 2 || !strings.HasPrefix(gaps[0].Message, "hold container web: snapshotter refuses") ||
			len(gaps[0].Message) > v1alpha1.MaxGapMessage || !utf8.ValidString(gaps[0].Message) {
			t.Errorf("gaps %+v", gaps)
		}
	}
}

func TestAContainerThatIsStoredIsNotWaitedForToBeHeldAnew(t *testing.T) {
	w := newWorld(t)
	w.hold = func(context.Context, string) error { return errors.New("snapshotter refuses") }
	w.captured = Captured{Artifacts: roots("web", "side")}
	record, err := w.carryOut(w.order(v1alpha1.StepSnapshot, snapshot()))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, append(slices.Repeat([]string{"hold id-web", "hold id-side"}, holdTries), "capture")...)
}

func TestAHoldThatHangsLeavesTheCaptureItsTime(t *testing.T) {
	w := newWorld(t)
	const given = 5 * time.Second
	w.hold = func(ctx context.Context, container string) error {
		w.within(ctx, given/holdShare)
		if container != "id-web" {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	w.captured = Captured{Artifacts: roots("web", "side")}
	deadline := wholeSeconds(time.Now().Add(given))
	record, err := w.carryOut(w.order(v1alpha1.StepSnapshot, snapshot(), func(r *v1alpha1.EventResponse) { r.Spec.Deadline = &deadline }))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, "hold id-web", "hold id-side", "capture")
}

func TestAPastDeadlineWithNothingMissingIsASuccess(t *testing.T) {
	w := newWorld(t)
	w.captured = Captured{Artifacts: roots("web", "side")}
	record, err := w.carryOut(w.order(v1alpha1.StepSnapshot, snapshot(), pastDeadline))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, "capture")
	if got := record.Status.Conditions[0].Reason; got != v1alpha1.ReasonSucceeded {
		t.Errorf("reason %s", got)
	}
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
				if gap.Reason == evidence.GapAttemptAbandoned {
					counted += gap.Count
				}
			}
			if counted != want || record.Status.Containment.FlowsObject == nil {
				t.Errorf("gaps %+v of %+v", record.Status.Gaps, record.Status.Containment.FlowsObject)
			}
		})
	}
}
