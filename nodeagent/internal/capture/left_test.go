package capture_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/capture"
)

// slow is a stream that takes all the time there is.
func slow() capture.Part {
	return stream("a-slow.ndjson.zst", func(_ context.Context, within time.Duration, out, _ io.Writer) (capture.Summary, error) {
		time.Sleep(within)
		_, err := io.WriteString(out, "as far as it got")
		return capture.Summary{Truncated: true}, err
	})
}

// abandonedKeys are those that the gaps objects name.
func (f *fixture) abandonedKeys(t *testing.T, result capture.Result) map[string]int {
	t.Helper()
	named := map[string]int{}
	for _, line := range f.gapLines(t, result) {
		if line.Reason == evidence.GapAttemptAbandoned {
			named[line.Path]++
		}
	}
	return named
}

// killed is an order of which parts are stored and nothing is on record.
func (f *fixture) killed(t *testing.T) (o capture.Order, stored map[string]int) {
	t.Helper()
	o = order(capture.Container{ID: "id", Name: "c"})
	died := errors.New("agent died")
	o.Stored = func(capture.Result) error { return died }
	if _, err := f.capturer().Capture(t.Context(), o, nil); !errors.Is(err, died) {
		t.Fatalf("error %v", err)
	}
	stored = map[string]int{}
	for _, object := range f.store.Objects() {
		if !strings.HasSuffix(object.Key, ".claim") {
			stored[object.Key] = 1
		}
	}
	o.Again, o.Stored = true, nil
	return o, stored
}

// TestWhatAKilledAgentStoredIsNamedWhenTheTimeIsUp has no time left for a second try at anything but the first part.
func TestWhatAKilledAgentStoredIsNamedWhenTheTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "id")
		f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", written)}
		o, stored := f.killed(t)
		f.look.Processes = append([]capture.Part{slow()}, f.look.Processes...)
		result, err := f.capturer().Capture(soon(t), o, nil)
		must(t, err)
		// The stream, an archive with index and timeline, and the first segment of the archive that was to be on record.
		if len(stored) != 5 {
			t.Fatalf("stored %v", stored)
		}
		if diff := cmp.Diff(stored, f.abandonedKeys(t, result)); diff != "" {
			t.Errorf("named (-want +got):\n%s", diff)
		}
		if gap(result, evidence.GapArtifactNotStored).Count != 3 || gap(result, evidence.GapAttemptAbandoned).Count != 5 {
			t.Errorf("gaps %+v", result.Gaps)
		}
	})
}

// TestTheSegmentThatAKilledAgentDidNotRecordIsNamedWhenTheTimeIsUp has four segments of five on record.
func TestTheSegmentThatAKilledAgentDidNotRecordIsNamedWhenTheTimeIsUp(t *testing.T) {
	tests := map[string]func(f *fixture){
		"of a part that is planned":             func(*fixture) {},
		"of a part that is in no plan any more": func(f *fixture) { f.roots, f.uppers = nil, nil },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, "id")
				f.uppers["id"] = ""
				f.big(t, "id")
				o := f.interrupted(t, 4)
				o.Again = true
				f.look.Processes = []capture.Part{slow()}
				if change(f); f.roots == nil {
					o.Containers = nil
				}
				result, err := f.capturer().Capture(soon(t), o, nil)
				must(t, err)
				want := map[string]int{o.Action.Destination.Prefix + "/artifacts/c/rootfs.tar.zst/4": 1}
				if diff := cmp.Diff(want, f.abandonedKeys(t, result)); diff != "" {
					t.Errorf("named (-want +got):\n%s", diff)
				}
				if gap(result, evidence.GapArtifactNotCompleted).Count != 1 || len(result.Storing.Segments) != 4 {
					t.Errorf("gaps %+v, storing %+v", result.Gaps, result.Storing)
				}
			})
		})
	}
}

// TestWhereTheKeysOfAKilledAgentAreNotKnownTheGapSaysSo has no store when the time is up, or one that does not answer for
// one folder.
func TestWhereTheKeysOfAKilledAgentAreNotKnownTheGapSaysSo(t *testing.T) {
	errConfig := errors.New("no WORMConfig")
	tests := map[string]struct {
		putter func(worm.Putter) worm.Putter
		open   error
		named  bool
	}{
		"away":           {func(p worm.Putter) worm.Putter { return failing{p, "", worm.ErrUnavailable} }, nil, false},
		"not configured": {func(p worm.Putter) worm.Putter { return p }, errConfig, false},
		"stuck":          {func(p worm.Putter) worm.Putter { return stuck{p, "volatile.ndjson.zst/0.claim"} }, nil, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, "id")
				f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", written)}
				o, _ := f.killed(t)
				f.putter = tt.putter(f.store)
				capturer := f.capturer()
				capturer.Open = func(ctx context.Context, _ v1alpha1.Destination, _ int64) (worm.Putter, error) {
					if tt.open != nil {
						<-ctx.Done()
					}
					return f.putter, tt.open
				}
				f.look.Processes = append([]capture.Part{slow()}, f.look.Processes...)
				ctx := soon(t)
				result, err := capturer.Capture(ctx, o, nil)
				must(t, errors.Join(err, ctx.Err()))
				message := gap(result, evidence.GapArtifactNotStored).Message
				if !strings.Contains(message, "volatile.ndjson.zst: ") || !strings.Contains(message, "what an earlier call stored of it is not known") {
					t.Errorf("gaps %+v", result.Gaps)
				}
				if named := result.GapsObject != nil; named != tt.named {
					t.Errorf("gaps are named in the store: %t", named)
				}
			})
		})
	}
}

// TestAPartThatFailedIsNotDoneWithWhileTheStoreThatMayHoldItIsAway has time for another call.
func TestAPartThatFailedIsNotDoneWithWhileTheStoreThatMayHoldItIsAway(t *testing.T) {
	f := newFixture(t, "id")
	tried := 0
	f.look.Files = []capture.Part{f.broken(1000, &tried)}
	o := order(capture.Container{ID: "id", Name: "c"})
	o.Again = true
	f.putter = failing{f.store, "/volumes/data.tar.zst/", worm.ErrUnavailable}
	result, err := f.capturer().Capture(t.Context(), o, nil)
	if !errors.Is(err, worm.ErrUnavailable) || len(result.Gaps) > 0 {
		t.Errorf("error %v, gaps %+v", err, result.Gaps)
	}
	f.putter = f.store
	result, err = f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	if message := gap(result, evidence.GapArtifactNotStored).Message; !strings.HasSuffix(message, errMedium.Error()) {
		t.Errorf("gaps %+v", result.Gaps)
	}
}

// TestALostPartKeepsItsReasonWhenTheTimeIsUp has a store that is away until then.
func TestALostPartKeepsItsReasonWhenTheTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "id")
		lost := stream("volatile.ndjson.zst", func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
			return capture.Summary{}, capture.Lost{Reason: "ProcessesGone", Cause: errors.New("no process is left")}
		})
		f.look.Processes = []capture.Part{lost, slow()}
		o := order(capture.Container{ID: "id", Name: "c"})
		o.Again = true
		f.putter = failing{f.store, "/volatile", worm.ErrUnavailable}
		result, err := f.capturer().Capture(soon(t), o, nil)
		must(t, err)
		if got := gap(result, "ProcessesGone"); got.Count != 1 || strings.Count(got.Message, "is not known") != 1 {
			t.Errorf("gaps %+v", result.Gaps)
		}
	})
}

// TestWhatAKilledAgentStoredOfAProcessThatEndedIsNamed has the memory of a process stored when the agent is killed, and
// another that was next. Neither process is there when the agent is back.
func TestWhatAKilledAgentStoredOfAProcessThatEndedIsNamed(t *testing.T) {
	f := newFixture(t, "id")
	volatileState := stream("volatile.ndjson.zst", written)
	first, second := stream("c/memory-7-70.core.zst", written), stream("c/memory-8-80.core.zst", written)
	first.Kind, second.Kind = v1alpha1.ArtifactProcessMemory, v1alpha1.ArtifactProcessMemory
	f.look.Processes = []capture.Part{volatileState, first, second}
	o := order(capture.Container{ID: "id", Name: "c"})
	ctx, kill := context.WithCancel(t.Context())
	var told [][]string
	persist := func(result capture.Result) {
		o.Previous = result
		told = append(told, result.Begun)
	}
	o.Begun = persist
	o.Stored = func(result capture.Result) error {
		if len(result.Artifacts) > 1 {
			kill()
			return context.Canceled
		}
		persist(result)
		return nil
	}
	_, err := f.capturer().Capture(ctx, o, nil)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	// Once before the first part, and with the end of it that the next is begun.
	if diff := cmp.Diff([][]string{{volatileState.Name}, {first.Name}}, told); diff != "" {
		t.Fatalf("begun (-want +got):\n%s", diff)
	}
	f.look.Processes = []capture.Part{volatileState}
	o.Again, o.Begun, o.Stored = true, nil, nil
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	want := map[string]int{o.Action.Destination.Prefix + "/artifacts/" + first.Name + "/0": 1}
	if diff := cmp.Diff(want, f.abandonedKeys(t, result)); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
	if got := gap(result, evidence.GapArtifactNotStored); got.Count != 1 || !strings.HasPrefix(got.Message, first.Name+": ") {
		t.Errorf("gaps %+v", result.Gaps)
	}
}

// TestWhatWasBegunTakesNoRoomFromEvidence has an earlier call that began nearly as many artifacts as a response can name.
func TestWhatWasBegunTakesNoRoomFromEvidence(t *testing.T) {
	f := newFixture(t, "id")
	memory := stream("c/memory-1-1.core.zst", written)
	memory.Kind = v1alpha1.ArtifactProcessMemory
	f.look.Processes = []capture.Part{memory}
	o := order(capture.Container{ID: "id", Name: "c"})
	o.Again = true
	for i := range v1alpha1.MaxArtifacts - 1 {
		o.Previous.Begun = append(o.Previous.Begun, fmt.Sprintf("c/memory-%d-2.core.zst", i+2))
	}
	most := 0
	o.Begun = func(result capture.Result) { most = max(most, len(result.Begun)) }
	o.Stored = func(result capture.Result) error {
		most = max(most, len(result.Begun))
		return nil
	}
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	if most != v1alpha1.MaxArtifacts || len(result.Artifacts) != 3 {
		t.Errorf("%d artifacts are begun at once, and stored are %v", most, names(result))
	}
	if gap(result, evidence.GapArtifactNotStored).Count != v1alpha1.MaxArtifacts-1 {
		t.Errorf("gaps %+v", result.Gaps)
	}
}

// TestAPartThatIsLostBeforeAnythingOfItIsStoredIsNotBegun has processes that ended before their memory was opened, and after.
func TestAPartThatIsLostBeforeAnythingOfItIsStoredIsNotBegun(t *testing.T) {
	f := newFixture(t, "id")
	gone := stream("c/memory-1-1.core.zst", func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
		return capture.Summary{}, capture.Lost{Reason: "ProcessEnded", Cause: errors.New("it ended")}
	})
	f.look.Processes = []capture.Part{gone}
	f.look.Memory = []capture.Part{{
		Name: "memory/shm-1-1", Kind: v1alpha1.ArtifactMemoryFiles,
		Open: func(context.Context) (capture.Tree, error) {
			return capture.Tree{}, capture.Lost{Reason: "MemoryGone", Cause: errors.New("it was unmounted")}
		},
	}}
	o := order(capture.Container{ID: "id", Name: "c"})
	var last, begun []string
	o.Begun = func(result capture.Result) { begun = append(begun, result.Begun...) }
	o.Stored = func(result capture.Result) error {
		last = result.Begun
		return nil
	}
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	// The memory of the process is announced before its first byte is asked for, and what is never opened is not.
	if diff := cmp.Diff([]string{gone.Name, "c/changes.tar.zst"}, begun); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	if len(last) > 0 || len(result.Begun) > 0 || gap(result, "ProcessEnded").Count != 1 || gap(result, "MemoryGone").Count != 1 {
		t.Errorf("begun are %v and %v, gaps %+v", last, result.Begun, result.Gaps)
	}
}
