package capture_test

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/capture"
)

func written(_ context.Context, _ time.Duration, out, _ io.Writer) (capture.Summary, error) {
	_, err := io.WriteString(out, "written")
	return capture.Summary{Records: 1}, err
}

// outage is a store that is away for some puts.
type outage struct {
	worm.Putter
	left *int
}

func (o outage) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	if *o.left--; *o.left >= 0 {
		return worm.Object{}, worm.ErrUnavailable
	}
	return o.Putter.Put(ctx, key, body, lock)
}

func TestWhenTheStoreIsBackTheMostVolatileGoesFirst(t *testing.T) {
	f := newFixture(t, "id")
	away := 1
	f.putter = outage{f.store, &away}
	f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", written), stream("second", written)}
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	if diff := cmp.Diff([]string{"second", "volatile.ndjson.zst", "c/changes.tar.zst", "c/rootfs.tar.zst"}, names(result)); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
}

func TestAPartThatTheStoreNeverTakesKeepsNoOtherBack(t *testing.T) {
	f := newFixture(t, "id")
	f.putter = failing{f.store, "volatile", worm.ErrFull}
	tried := 0
	f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", func(ctx context.Context, within time.Duration, out, gaps io.Writer) (capture.Summary, error) {
		tried++
		return written(ctx, within, out, gaps)
	}), stream("second", written)}
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	if diff := cmp.Diff([]string{"second", "c/changes.tar.zst", "c/rootfs.tar.zst"}, names(result)); diff != "" || !errors.Is(err, worm.ErrFull) {
		t.Errorf("error %v, artifacts (-want +got):\n%s", err, diff)
	}
	if tried != 2 {
		t.Errorf("tried %d times in one call", tried)
	}
}

func TestALookThatFailedIsRepeatedBeforeWhatLasts(t *testing.T) {
	f := newFixture(t, "id")
	capturer, looks := f.capturer(), 0
	capturer.Look = func(context.Context, capture.Order) (capture.Look, error) {
		if looks++; looks == 1 {
			return capture.Look{}, errMedium
		}
		return capture.Look{Processes: []capture.Part{stream("volatile.ndjson.zst", written)}}, nil
	}
	result, err := capturer.Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	if diff := cmp.Diff([]string{"c/changes.tar.zst", "volatile.ndjson.zst", "c/rootfs.tar.zst"}, names(result)); diff != "" || looks != 2 {
		t.Errorf("%d looks, artifacts (-want +got):\n%s", looks, diff)
	}
}

// TestASecondLookLosesNothingOfTheFirst has two processes, which have ended by the second look: the memory of one was stored,
// that of the other was not.
func TestASecondLookLosesNothingOfTheFirst(t *testing.T) {
	f := newFixture(t, "id")
	capturer, looks, tried := f.capturer(), 0, 0
	ended := evidence.Gap{Reason: "ProcessEnded", Message: "process 12 is another one by now", Count: 1}
	files := evidence.Gap{Reason: "MemoryNotCaptured", Message: "memory Auto", Count: 3}
	fewer := files
	fewer.Count = 2
	capturer.Look = func(_ context.Context, order capture.Order) (capture.Look, error) {
		if looks++; looks == 1 {
			return capture.Look{
				Processes: []capture.Part{stream("c/memory-1.core.zst", written), stream("c/memory-2.core.zst", func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
					if tried++; tried == 1 {
						return capture.Summary{}, errMedium
					}
					return capture.Summary{}, capture.Lost{Reason: "ProcessEnded", Cause: errors.New("process 2 had ended")}
				})},
				Gaps: []evidence.Gap{ended, files},
			}, errMedium
		}
		look := capture.Look{Gaps: []evidence.Gap{fewer}}
		if len(order.Previous.Artifacts) == 0 {
			look.Gaps = append(look.Gaps, evidence.Gap{Reason: "ProcessesGone", Message: "memory of c", Count: 1})
		}
		return look, nil
	}
	result, err := capturer.Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	artifact(t, result, "c/memory-1.core.zst")
	counts := map[string]int64{}
	for _, gap := range result.Gaps {
		counts[gap.Reason] = gap.Count
	}
	if diff := cmp.Diff(map[string]int64{"ProcessEnded": 2, "MemoryNotCaptured": 3}, counts); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

func description(write func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error)) capture.Part {
	return capture.Part{Name: "podfiles.ndjson.zst", Kind: v1alpha1.ArtifactPodDescription, MediaType: "m", Write: write}
}

// TestADescriptionThatFailsIsOneGap fails in the end for the reason that it failed for in each round, or for another one.
func TestADescriptionThatFailsIsOneGap(t *testing.T) {
	for name, last := range map[string]error{"the same": errMedium, "lost": capture.Lost{Reason: evidence.GapArtifactNotStored, Cause: errMedium}} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "id")
			tried := 0
			f.look.Files = []capture.Part{description(func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
				if tried++; tried > 8 {
					return capture.Summary{}, last
				}
				return capture.Summary{}, errMedium
			})}
			result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
			must(t, err)
			if got := gap(result, evidence.GapArtifactNotStored); got.Count != 1 || tried != 9 {
				t.Errorf("tried %d times, gaps %+v", tried, result.Gaps)
			}
		})
	}
}

func TestAnOutageAtTheDescriptionIsWaitedForBeforeTheDeadline(t *testing.T) {
	f := newFixture(t, "id")
	tried := 0
	f.look.Files = []capture.Part{f.broken(1000, &tried), description(written)}
	f.putter = failing{f.store, "podfiles", worm.ErrUnavailable}
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	if !errors.Is(err, worm.ErrUnavailable) || len(result.Gaps) > 0 {
		t.Errorf("error %v, gaps %+v", err, result.Gaps)
	}
}

// forgetful is a store that says of every fourth segment of a root filesystem that it took other bytes.
type forgetful struct{ worm.Putter }

func (s forgetful) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	stored, err := s.Putter.Put(ctx, key, body, lock)
	_, last, _ := strings.Cut(key, "rootfs.tar.zst/")
	if number, bad := strconv.Atoi(last); err == nil && bad == nil && number%4 == 3 {
		return worm.Object{}, worm.ErrAltered
	}
	return stored, err
}

// TestEveryObjectOfAPartThatIsNotStoredIsNamed has the only place on record taken by another artifact.
func TestEveryObjectOfAPartThatIsNotStoredIsNamed(t *testing.T) {
	f := newFixture(t, "id")
	f.uppers["id"] = ""
	f.big(t, "id")
	f.putter = forgetful{f.store}
	capturer, o := f.capturer(), order(capture.Container{ID: "id", Name: "c"})
	capturer.FirstSegment = 1 << 20
	o.Previous.Storing = &v1alpha1.Storing{Artifact: "volumes/gone.tar.zst", Segments: []v1alpha1.StoredObject{{Key: "k"}}}
	result, err := capturer.Capture(t.Context(), o, nil)
	must(t, err)
	named := map[string]bool{}
	for _, line := range f.gapLines(t, result) {
		if line.Reason == evidence.GapAttemptAbandoned {
			named[line.Path] = true
		}
	}
	segments := 0
	for _, object := range f.store.Objects() {
		if !strings.Contains(object.Key, "rootfs.tar.zst/") || strings.HasSuffix(object.Key, ".claim") {
			continue
		}
		if segments++; !named[object.Key] {
			t.Errorf("%s is named nowhere", object.Key)
		}
	}
	if segments < 4 || gap(result, evidence.GapAttemptAbandoned).Count != int64(len(named)) || gap(result, evidence.GapArtifactNotStored).Count != 1 {
		t.Errorf("%d segments, gaps %+v", segments, result.Gaps)
	}
}

// TestWhatAKilledAgentStoredOfALostPartIsNamed kills it between the put and the record; then the processes are gone.
func TestWhatAKilledAgentStoredOfALostPartIsNamed(t *testing.T) {
	gone := func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
		return capture.Summary{}, capture.Lost{Reason: "ProcessesGone", Cause: errors.New("no process is left")}
	}
	f := newFixture(t, "id")
	f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", func(ctx context.Context, within time.Duration, out, gaps io.Writer) (capture.Summary, error) {
		_, err := io.WriteString(gaps, "{}\n")
		must(t, err)
		return written(ctx, within, out, gaps)
	}), stream("second", gone)}
	o, died := order(capture.Container{ID: "id", Name: "c"}), errors.New("agent died")
	o.Stored = func(capture.Result) error { return died }
	_, err := f.capturer().Capture(t.Context(), o, nil)
	if !errors.Is(err, died) {
		t.Fatalf("error %v", err)
	}
	stored := f.store.Objects()
	f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", gone), stream("second", gone)}
	o.Again, o.Stored = true, nil
	capturer := f.capturer()
	// The store refuses what is needed in the end, so that more is found out than once.
	f.putter = failing{f.store, "missing.gaps", worm.ErrFull}
	for range 3 {
		if _, err := capturer.Capture(t.Context(), o, nil); !errors.Is(err, worm.ErrFull) {
			t.Fatalf("error %v", err)
		}
	}
	f.putter = f.store
	result, err := capturer.Capture(t.Context(), o, nil)
	must(t, err)
	named := map[string]bool{}
	for _, line := range f.gapLines(t, result) {
		if line.Reason == evidence.GapAttemptAbandoned {
			named[strings.TrimPrefix(line.Path, o.Action.Destination.Prefix+"/artifacts/")] = true
		}
	}
	for _, object := range stored {
		name := strings.TrimPrefix(object.Key, o.Action.Destination.Prefix+"/artifacts/")
		if strings.HasPrefix(name, "volatile") && !strings.HasSuffix(name, ".claim") && !named[name] {
			t.Errorf("%s is named nowhere: %v", name, named)
		}
	}
	if !named["volatile.ndjson.zst/0"] || named["volatile.ndjson.zst/1"] || named["second/0"] || gap(result, "ProcessesGone").Count != 2 {
		t.Errorf("named %v, gaps %+v", named, result.Gaps)
	}
	claims := 0
	for _, object := range f.store.Objects() {
		if strings.Contains(object.Key, "/volatile.ndjson.zst/") && strings.HasSuffix(object.Key, ".claim") {
			claims++
		}
	}
	if claims != 2 {
		t.Errorf("%d claims, want that of the killed one and one of the looks", claims)
	}
}

// TestAPartThatIsLostAtTheFirstCallTakesNoKey has no earlier call to name keys of.
func TestAPartThatIsLostAtTheFirstCallTakesNoKey(t *testing.T) {
	f := newFixture(t, "id")
	f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
		return capture.Summary{}, capture.Lost{Reason: "ProcessesGone", Cause: errors.New("no process is left")}
	})}
	_, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	for _, object := range f.store.Objects() {
		if strings.Contains(object.Key, "/volatile") {
			t.Errorf("%s", object.Key)
		}
	}
}

func TestALostPartIsNotDoneWithWhileTheStoreThatMayHoldItIsAway(t *testing.T) {
	f := newFixture(t, "id")
	f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
		return capture.Summary{}, capture.Lost{Reason: "ProcessesGone", Cause: errors.New("no process is left")}
	})}
	o := order(capture.Container{ID: "id", Name: "c"})
	o.Again = true
	f.putter = failing{f.store, "/volatile", worm.ErrUnavailable}
	if result, err := f.capturer().Capture(t.Context(), o, nil); !errors.Is(err, worm.ErrUnavailable) || len(result.Gaps) > 0 {
		t.Errorf("error %v, gaps %+v", err, result.Gaps)
	}
}
