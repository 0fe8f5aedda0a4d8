package order

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
)

// TestWhatWasStoredWhileTheAPIServerWasAwayIsOnRecord has it go away after the first write, to the end of the start. By the
// next one the processes are gone, and the volatile state could not be read again.
func TestWhatWasStoredWhileTheAPIServerWasAwayIsOnRecord(t *testing.T) {
	away := errors.New("the API server is away")
	tests := map[string][]error{
		"to the end of the start":    {nil, away, away},
		"to the next start as well":  {nil, away, away, away, away},
		"to the end of the artifact": {nil, away},
	}
	for name, writes := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			order := w.order(v1alpha1.StepSnapshot, snapshot())
			state := v1alpha1.Artifact{Name: "volatile.ndjson.zst", Kind: v1alpha1.ArtifactVolatileState, Size: 1}
			w.deafTo(writes...)
			w.capture = func(wanted Capture) error {
				if wanted.Again {
					t.Error("an earlier start is told of at the first one")
				}
				w.captured = Captured{Artifacts: []v1alpha1.Artifact{state}, Gaps: []v1alpha1.GapCount{{Reason: "Limit", Count: 1}}}
				return wanted.Stored(w.captured)
			}
			if _, err := w.carryOut(order); !errors.Is(err, away) {
				t.Fatalf("error %v", err)
			}
			var previous Captured
			w.capture = func(wanted Capture) error {
				if !wanted.Again {
					t.Error("the earlier start is not told of")
				}
				previous, w.captured = wanted.Previous, wanted.Previous
				for _, name := range []string{"web", "side"} {
					w.captured.Artifacts = append(w.captured.Artifacts, v1alpha1.Artifact{
						Name: name + "/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem, Container: name, Size: 1,
					})
				}
				return wanted.Stored(w.captured)
			}
			record, err := w.carryOut(order)
			for tries := 0; errors.Is(err, away) && tries < 3; tries++ {
				record, err = w.carryOut(order)
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Captured{Artifacts: []v1alpha1.Artifact{state}, Gaps: []v1alpha1.GapCount{{Reason: "Limit", Count: 1}}}, previous); diff != "" {
				t.Errorf("previous (-want +got):\n%s", diff)
			}
			if len(record.Status.Artifacts) != 3 || !stored(record.Status.Artifacts, state.Name) {
				t.Errorf("artifacts %+v", record.Status.Artifacts)
			}
			if len(w.agent.sights.seen) != 0 {
				t.Errorf("remembered of a closed order: %+v", w.agent.sights.seen)
			}
		})
	}
}

func TestWhatIsOnRecordIsNotReplacedByLess(t *testing.T) {
	w := newWorld(t)
	stored := []v1alpha1.Artifact{{Name: "volatile.ndjson.zst"}, {Name: "process-files.tar.zst"}}
	order := w.order(v1alpha1.StepSnapshot, snapshot(), func(r *v1alpha1.EventResponse) { r.Status.Artifacts = stored })
	seen, _ := w.agent.sights.of(order, w.agent.node.now())
	seen.unwritten = &Captured{Artifacts: stored[:1]}
	w.capture = func(wanted Capture) error {
		if diff := cmp.Diff(stored, wanted.Previous.Artifacts); diff != "" {
			t.Errorf("previous (-want +got):\n%s", diff)
		}
		return nil
	}
	if _, err := w.carryOut(order); err != nil {
		t.Fatal(err)
	}
}

// TestWhatAnEarlierStartBeganStaysOnRecord has a cache that did not know of it yet.
func TestWhatAnEarlierStartBeganStaysOnRecord(t *testing.T) {
	response := new(v1alpha1.EventResponse)
	response.Status.Artifacts = []v1alpha1.Artifact{{Name: "volatile.ndjson.zst"}, {Name: "c/memory-7-70.core.zst"}}
	response.Status.Begun = []string{"c/changes.tar.zst"}
	fresh := new(v1alpha1.EventResponse)
	fresh.Status.Artifacts = response.Status.Artifacts[:1]
	fresh.Status.Begun = []string{"c/memory-7-70.core.zst", "c/memory-8-80.core.zst", "c/changes.tar.zst"}
	r := &record{response: response}
	r.adopt(fresh)
	if diff := cmp.Diff([]string{"c/changes.tar.zst", "c/memory-8-80.core.zst"}, r.response.Status.Begun); diff != "" {
		t.Errorf("begun (-want +got):\n%s", diff)
	}
}

// TestEvidenceDoesNotWaitForTheRecordThatItIsBegun has an API server that does not answer that write, and answers the next.
func TestEvidenceDoesNotWaitForTheRecordThatItIsBegun(t *testing.T) {
	w := newWorld(t)
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	writes, silent := 0, errors.New("no answer")
	w.onWrite(func(ctx context.Context) error {
		if writes++; writes != 2 {
			return nil
		}
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("the write may take for ever")
		}
		return silent
	})
	w.capture = func(wanted Capture) error {
		w.captured = Captured{Begun: []string{"volatile.ndjson.zst"}}
		wanted.Begun(w.captured)
		return wanted.Stored(w.captured)
	}
	record, err := w.carryOut(order)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w.captured.Begun, record.Status.Begun); diff != "" || writes < 3 {
		t.Errorf("%d writes, begun (-want +got):\n%s", writes, diff)
	}
}

// TestAnOutageCostsOneWriteHoweverMuchIsBegun has an API server that does not answer the first write of what is begun.
func TestAnOutageCostsOneWriteHoweverMuchIsBegun(t *testing.T) {
	w := newWorld(t)
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	writes, answers := 0, true
	w.onWrite(func(context.Context) error {
		if writes++; answers {
			return nil
		}
		return errors.New("no answer")
	})
	w.capture = func(wanted Capture) error {
		begin := func(name string) (cost int) {
			before := writes
			w.captured = Captured{Begun: []string{name}}
			wanted.Begun(w.captured)
			return writes - before
		}
		answers = false
		costs := []int{begin("c/memory-1-1.core.zst")}
		answers = true
		costs = append(costs, begin("c/memory-2-2.core.zst"), begin("c/memory-3-3.core.zst"))
		if err := wanted.Stored(w.captured); err != nil {
			return err
		}
		costs = append(costs, begin("c/memory-4-4.core.zst"))
		if diff := cmp.Diff([]int{1, 0, 0, 1}, costs); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
		return wanted.Stored(w.captured)
	}
	record, err := w.carryOut(order)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w.captured.Begun, record.Status.Begun); diff != "" {
		t.Errorf("begun (-want +got):\n%s", diff)
	}
}

// TestProgressFindsOutThatAnOutageIsOver has the API server not answer what is begun, answer progress, and not answer progress.
func TestProgressFindsOutThatAnOutageIsOver(t *testing.T) {
	w := newWorld(t)
	now := testclock.NewFakeClock(time.Now())
	w.agent.node.Clock = now
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	writes, answers := 0, true
	w.onWrite(func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); writes > 0 && !bounded {
			t.Error("a write that evidence waits for may take for ever")
		}
		if writes++; answers {
			return nil
		}
		return errors.New("no answer")
	})
	w.capture = func(wanted Capture) error {
		steps := []struct {
			name    string
			answers bool
			// begin is a part that is begun; nothing, where progress is reported.
			begin string
			costs int
			want  []string
		}{
			{"an outage", false, "1", 1, nil},
			{"is waited for once", true, "2", 0, nil},
			{"and is over, with what was begun", true, "", 1, []string{"1", "2"}},
			{"so that the next is written at once", true, "3", 1, []string{"1", "2", "3"}},
			{"another outage", false, "", 1, []string{"1", "2", "3"}},
			{"is not waited for again", true, "4", 0, []string{"1", "2", "3"}},
		}
		for _, step := range steps {
			before := writes
			answers = step.answers
			if step.begin == "" {
				now.Step(progressEvery)
				w.progress(v1alpha1.Progress{CurrentArtifact: "c/rootfs.tar.zst"})
			} else {
				w.captured.Begun = append(slices.Clone(w.captured.Begun), step.begin)
				wanted.Begun(w.captured)
			}
			if diff := cmp.Diff(step.want, w.read(order).Begun); diff != "" || writes-before != step.costs {
				t.Errorf("%s: %d writes, begun (-want +got):\n%s", step.name, writes-before, diff)
			}
		}
		answers = true
		return errClosed // without another write
	}
	_, _ = w.carryOut(order)
	if writes < 5 {
		t.Errorf("%d writes", writes)
	}
}

// unheard has writes reach the API server whose answers are lost, while it says so.
func (w *world) unheard(lost *bool) {
	w.t.Helper()
	base, ok := w.client.(client.WithWatch)
	if !ok {
		w.t.Fatalf("client %T", w.client)
	}
	w.agent.node.Client = interceptor.NewClient(base, interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, name string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			err := c.SubResource(name).Patch(ctx, object, patch, options...)
			if err == nil && *lost {
				return context.DeadlineExceeded
			}
			return err
		},
	})
}

func (w *world) read(order *v1alpha1.EventResponse) v1alpha1.EventResponseStatus {
	w.t.Helper()
	var record v1alpha1.EventResponse
	if err := w.client.Get(w.t.Context(), client.ObjectKeyFromObject(order), &record); err != nil {
		w.t.Fatal(err)
	}
	return record.Status
}

func TestOneStartIsCountedOnceWhoseWritesWereNotAnswered(t *testing.T) {
	w := newWorld(t)
	now := testclock.NewFakeClock(time.Now())
	w.agent.node.Clock = now
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	lost := true
	w.unheard(&lost)
	if _, err := w.carryOut(order); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if got := w.read(order).Attempts; got != 1 {
		t.Errorf("%d starts after one that ended with its first write", got)
	}
	lost = false
	w.capture = func(wanted Capture) error {
		lost = true
		w.captured = Captured{Begun: []string{"c/memory-1-1.core.zst"}}
		wanted.Begun(w.captured)
		for range 3 {
			now.Step(progressPause)
			w.progress(v1alpha1.Progress{CurrentArtifact: "c/rootfs.tar.zst"})
		}
		w.captured = Captured{Begun: []string{"c/memory-2-2.core.zst"}}
		lost = false
		if err := wanted.Stored(w.captured); err != nil {
			return err
		}
		if got := w.read(order); !slices.Equal(got.Begun, w.captured.Begun) || got.Attempts != 2 {
			t.Errorf("%d starts, begun %v", got.Attempts, got.Begun)
		}
		return nil
	}
	record, err := w.carryOut(order)
	if err != nil || record.Status.CompletedAt == nil || record.Status.Attempts != 2 {
		t.Errorf("%+v, %v", record.Status, err)
	}
}

// TestAnEndIsNotMixedWithWhatTheSameStartWroteBefore has a cache that knows nothing of it yet.
func TestAnEndIsNotMixedWithWhatTheSameStartWroteBefore(t *testing.T) {
	w := newWorld(t)
	r := newRecord(w.agent.node, w.order(v1alpha1.StepSnapshot, snapshot()))
	if err := r.write(t.Context(), "capturing"); err != nil {
		t.Fatal(err)
	}
	end := r.closed(result{v1alpha1.ReasonFailed, "nothing was stored"})
	stale := r.stored.DeepCopy()
	r.status().Begun = []string{"c/memory-1-1.core.zst"}
	r.status().Storing = &v1alpha1.Storing{Artifact: "c/memory-1-1.core.zst", Segments: []v1alpha1.StoredObject{{Key: "k"}}}
	if err := r.write(t.Context(), "capturing"); err != nil {
		t.Fatal(err)
	}
	if err := newRecord(w.agent.node, stale).close(t.Context(), end.Status); err != nil {
		t.Fatal(err)
	}
	if got := w.read(r.response); len(got.Begun) != 0 || got.Storing != nil || got.Attempts != 1 || got.CompletedAt == nil {
		t.Errorf("closed as %+v", got)
	}
}

// TestAnEndThatWasNotWrittenOverwritesNothingUnread has a start that knew nothing of what an earlier process stored, and whose
// writes all failed. By the time that its end is written the cache has caught up.
func TestAnEndThatWasNotWrittenOverwritesNothingUnread(t *testing.T) {
	w := newWorld(t)
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	stale := newRecord(w.agent.node, order)
	earlier := newRecord(w.agent.node, order)
	earlier.status().Artifacts = []v1alpha1.Artifact{{Name: "volatile.ndjson.zst", Kind: v1alpha1.ArtifactVolatileState, Size: 1}}
	if err := earlier.write(t.Context(), "1 artifact is stored"); err != nil {
		t.Fatal(err)
	}
	w.agent.node.Known.note(stale.closed(result{v1alpha1.ReasonFailed, "nothing was stored"}))
	record, err := w.carryOut(order)
	if err != nil {
		t.Fatal(err)
	}
	if got := record.Status; got.CompletedAt == nil || !stored(got.Artifacts, "volatile.ndjson.zst") || got.Attempts != 2 {
		t.Errorf("closed as %+v", got)
	}
}

// TestProgressDoesNotWaitForAnotherWrite has one that does not end before progress was reported.
func TestProgressDoesNotWaitForAnotherWrite(t *testing.T) {
	w := newWorld(t)
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	writes := 0
	w.onWrite(func(context.Context) error {
		if writes++; writes != 2 {
			return nil
		}
		reported := make(chan struct{})
		go func() {
			defer close(reported)
			w.progress(v1alpha1.Progress{CurrentArtifact: "c/rootfs.tar.zst"})
		}()
		select {
		case <-reported:
		case <-time.After(10 * time.Second):
			t.Error("a reader waits for the record of what was stored")
		}
		return nil
	})
	w.capture = func(wanted Capture) error { return wanted.Stored(w.captured) }
	if _, err := w.carryOut(order); err != nil || writes < 3 {
		t.Error(writes, err)
	}
}

// TestReadersWaitForProgressButNowAndThen has each write of it take four seconds.
func TestReadersWaitForProgressButNowAndThen(t *testing.T) {
	w := newWorld(t)
	now := testclock.NewFakeClock(time.Now())
	w.agent.node.Clock = now
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	writes, answers := 0, true
	w.onWrite(func(ctx context.Context) error {
		if writes++; writes == 1 || w.captured.Artifacts != nil {
			return nil
		}
		at, bounded := ctx.Deadline()
		if left := time.Until(at); !bounded || left <= begunWithin || left > progressWithin {
			t.Errorf("may take %v", left)
		}
		now.Step(4 * time.Second)
		if answers {
			return nil
		}
		return errors.New("no answer")
	})
	w.capture = func(Capture) error {
		for i, step := range []struct {
			after   time.Duration
			answers bool
			costs   int
		}{
			{0, true, 1},
			{progressEvery - 1, true, 0},
			{1, false, 1},
			{2*progressEvery - 1, false, 0},
			{1, false, 1},
			{4*progressEvery - 1, false, 0},
			{1, false, 1},
			{progressPause, false, 1},
			{progressPause - 1, false, 0},
			{1, true, 1},
			{progressEvery, true, 1},
		} {
			before := writes
			answers = step.answers
			now.Step(step.after)
			w.progress(v1alpha1.Progress{CurrentArtifact: "c/rootfs.tar.zst"})
			if writes-before != step.costs {
				t.Errorf("report %d: %d writes", i, writes-before)
			}
		}
		w.captured.Artifacts = roots("web", "side")
		return nil
	}
	if _, err := w.carryOut(order); err != nil {
		t.Fatal(err)
	}
}

// TestWhatIsBegunDuringAnOutageIsKnownToTheNextStart has the API server away from the first part to the end of the start.
func TestWhatIsBegunDuringAnOutageIsKnownToTheNextStart(t *testing.T) {
	w := newWorld(t)
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	away := errors.New("the API server is away")
	w.deafTo(nil, away, away)
	begun := []string{"c/memory-1-1.core.zst", "c/memory-2-2.core.zst"}
	w.capture = func(wanted Capture) error {
		wanted.Begun(Captured{Begun: begun[:1]})
		wanted.Begun(Captured{Begun: begun})
		return away
	}
	if _, err := w.carryOut(order); !errors.Is(err, away) {
		t.Fatalf("error %v", err)
	}
	w.capture = func(wanted Capture) error {
		if diff := cmp.Diff(begun, wanted.Previous.Begun); diff != "" {
			t.Errorf("begun (-want +got):\n%s", diff)
		}
		return nil
	}
	if _, err := w.carryOut(order); err != nil {
		t.Fatal(err)
	}
}
