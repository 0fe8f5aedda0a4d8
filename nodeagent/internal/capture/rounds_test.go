package capture_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/capture"
)

var errMedium = errors.New("input/output error")

// broken is a volume that fails some times.
func (f *fixture) broken(times int, tried *int) capture.Part {
	return capture.Part{Name: "volumes/data", Kind: v1alpha1.ArtifactVolume, Open: func(context.Context) (capture.Tree, error) {
		if *tried++; *tried <= times {
			return capture.Tree{}, errMedium
		}
		return capture.Tree{Root: f.roots["id"], Close: func() error { return nil }}, nil
	}}
}

func TestAPartThatFailsEveryTimeIsAGapAndTheOthersComplete(t *testing.T) {
	f := newFixture(t, "id")
	tried := 0
	f.look.Files = []capture.Part{f.broken(1000, &tried), {
		Name: "podfiles.ndjson.zst", Kind: v1alpha1.ArtifactPodDescription, MediaType: "m",
		Write: func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
			return capture.Summary{}, nil
		},
	}}
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	if diff := cmp.Diff([]string{"c/changes.tar.zst", "c/rootfs.tar.zst", "podfiles.ndjson.zst"}, names(result)); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
	named := gap(result, evidence.GapArtifactNotStored)
	if tried != 8 || named.Count != 1 || named.Message != "volumes/data.tar.zst: store volumes/data.tar.zst: input/output error" {
		t.Errorf("tried %d times, gaps %+v", tried, result.Gaps)
	}
}

func TestAPartThatFailsForAWhileIsStored(t *testing.T) {
	f := newFixture(t, "id")
	tried := 0
	f.look.Files = []capture.Part{f.broken(3, &tried)}
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	artifact(t, result, "volumes/data.tar.zst")
	if len(result.Gaps) > 0 {
		t.Errorf("gaps %+v", result.Gaps)
	}
}

// TestAStoreIsWaitedForHoweverOftenItFails has a part that fails beside it: the caller is told of the store at once.
func TestAStoreIsWaitedForHoweverOftenItFails(t *testing.T) {
	for _, cause := range []error{worm.ErrUnavailable, worm.ErrFull, worm.ErrDenied, errors.New("certificate is not trusted")} {
		t.Run(cause.Error(), func(t *testing.T) {
			f := newFixture(t, "id")
			tried := 0
			f.look.Files = []capture.Part{f.broken(1000, &tried)}
			o := order(capture.Container{ID: "id", Name: "c"})
			f.putter = failing{f.store, "/c/rootfs", cause}
			for range 20 {
				result, err := f.capturer().Capture(t.Context(), o, nil)
				if !errors.Is(err, cause) || len(result.Gaps) > 0 {
					t.Fatalf("error %v, gaps %+v", err, result.Gaps)
				}
				o.Previous = result
			}
			if tried != 20 {
				t.Errorf("the other part was tried %d times in 20 calls", tried)
			}
			f.putter = f.store
			result, err := f.capturer().Capture(t.Context(), o, nil)
			must(t, err)
			artifact(t, result, "c/rootfs.tar.zst")
		})
	}
}

// disk has room for some puts.
type disk struct {
	worm.Putter
	room *int
}

func (d disk) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	if *d.room--; *d.room < 0 {
		return worm.Object{}, worm.ErrFull
	}
	return d.Putter.Put(ctx, key, body, lock)
}

func TestACaptureGoesOnWhereItWasWhenAFullDiskIsFreed(t *testing.T) {
	f, capturer, want := undisturbed(t)
	f.store = worm.NewMemory()
	// A claim and a segment each.
	room := 6
	f.putter = disk{f.store, &room}
	o := order(capture.Container{ID: "id", Name: "c"})
	o.Stored = func(r capture.Result) error {
		o.Previous = r
		return nil
	}
	for range 3 {
		if _, err := capturer.Capture(t.Context(), o, nil); !worm.NeedsOperator(err) {
			t.Fatalf("error %v", err)
		}
	}
	if o.Previous.Storing == nil || len(o.Previous.Storing.Segments) != 3 {
		t.Fatalf("storing %+v", o.Previous.Storing)
	}
	first := o.Previous.Storing.Segments[0]
	room = 1000
	result, err := capturer.Capture(t.Context(), o, nil)
	must(t, err)
	got := artifact(t, result, "c/rootfs.tar.zst")
	if got.SHA256 != want.SHA256 || got.MerkleRoot != want.MerkleRoot || got.Segments[0] != first {
		t.Errorf("%+v is not what it would have been undisturbed: %+v", got, want)
	}
}

func TestWhatCouldNotBeLookedForInTheEndIsNamed(t *testing.T) {
	f := newFixture(t, "id")
	capturer, looks := f.capturer(), 0
	capturer.Look = func(context.Context, capture.Order) (capture.Look, error) {
		looks++
		return capture.Look{}, errMedium
	}
	result, err := capturer.Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	artifact(t, result, "c/rootfs.tar.zst")
	// At the begin of each round, and in the first one before what lasts.
	if got := gap(result, evidence.GapArtifactNotStored); got.Count != 1 || looks != 9 || !strings.Contains(got.Message, errMedium.Error()) {
		t.Errorf("looked %d times, gaps %+v", looks, result.Gaps)
	}
}

func TestNothingIsFrozenThroughoutBesideAProcessThatLeftItsCgroup(t *testing.T) {
	tests := map[string]struct {
		strays func() bool
		want   bool
	}{
		"none runs": {func() bool { return false }, true},
		"one runs":  {func() bool { return true }, false},
		"not known": {nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "id")
			capturer := f.capturer()
			capturer.Look = func(context.Context, capture.Order) (capture.Look, error) {
				return capture.Look{Strays: tt.strays}, nil
			}
			result, err := capturer.Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
			must(t, err)
			for _, artifact := range result.Artifacts {
				if artifact.FrozenThroughout != tt.want {
					t.Errorf("%s: frozen throughout = %t", artifact.Name, artifact.FrozenThroughout)
				}
			}
		})
	}
}

// TestAThawInTheMiddleIsSeen thaws for one segment alone.
func TestAThawInTheMiddleIsSeen(t *testing.T) {
	f := newFixture(t, "id")
	f.uppers["id"] = ""
	f.big(t, "id")
	var segments atomic.Int64
	f.frozen = func(string) bool { return segments.Load() != 3 }
	o := order(capture.Container{ID: "id", Name: "c"})
	f.putter = counting{f.store, &segments}
	capturer := f.capturer()
	capturer.FirstSegment = 1 << 20
	result, err := capturer.Capture(t.Context(), o, nil)
	must(t, err)
	if root := artifact(t, result, "c/rootfs.tar.zst"); len(root.Segments) < 4 || root.FrozenThroughout {
		t.Errorf("%d segments, frozen throughout = %t", len(root.Segments), root.FrozenThroughout)
	}
}

// counting counts the segments of root filesystems.
type counting struct {
	worm.Putter
	segments *atomic.Int64
}

func (c counting) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	stored, err := c.Putter.Put(ctx, key, body, lock)
	if strings.Contains(key, "rootfs.tar.zst/") && !strings.HasSuffix(key, ".claim") {
		c.segments.Add(1)
	}
	return stored, err
}

func TestKeysThatStrangersTookOfGapsAreCountedAndNamed(t *testing.T) {
	f := newFixture(t, "id", "id-gone")
	delete(f.roots, "id-gone")
	f.uppers["id-gone"] = ""
	f.socket(t, filepath.Join(f.roots["id"], "s"))
	o := order(capture.Container{ID: "id", Name: "c"}, capture.Container{ID: "id-gone", Name: "gone"})
	lock := worm.Lock{Mode: "COMPLIANCE", RetainUntil: time.Now().Add(time.Hour)}
	var taken []string
	for _, folder := range []string{"c/rootfs.gaps.jsonl", "missing.gaps.jsonl"} {
		key := o.Action.Destination.Prefix + "/artifacts/" + folder + "/0"
		_, err := f.store.Put(t.Context(), key+".claim", strings.NewReader("a stranger's"), lock)
		must(t, err)
		taken = append(taken, key)
	}
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	want := map[string]int64{evidence.GapSocketNotArchived: 1, evidence.GapAttemptAbandoned: 2, evidence.GapContainerNotCaptured: 1, evidence.GapUpperLayerNotSeparate: 1}
	counts := map[string]int64{}
	for _, gap := range result.Gaps {
		counts[gap.Reason] = gap.Count
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	var named []string
	for _, line := range f.gapLines(t, result) {
		if line.Reason == evidence.GapAttemptAbandoned {
			named = append(named, line.Path)
			// There is a claim alone.
			if !strings.Contains(line.Message, "which may hold an object") {
				t.Errorf("%s: %s", line.Path, line.Message)
			}
		}
	}
	slices.Sort(named)
	if diff := cmp.Diff(taken, named); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
}

// shut is a store that takes claims, and refuses the rest of one artifact at its end.
type shut struct {
	worm.Putter
	word string
}

func (s shut) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	if !strings.Contains(key, s.word) || strings.HasSuffix(key, ".claim") {
		return s.Putter.Put(ctx, key, body, lock)
	}
	_, _ = io.Copy(io.Discard, body)
	return worm.Object{}, worm.ErrFull
}

// TestAStoreThatIsFullForDaysUsesUpNoNumbers is tried more often than an artifact has numbers.
func TestAStoreThatIsFullForDaysUsesUpNoNumbers(t *testing.T) {
	f := newFixture(t, "id")
	f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", written)}
	o, capturer := order(capture.Container{ID: "id", Name: "c"}), f.capturer()
	f.putter = shut{f.store, "/volatile"}
	for range 1100 {
		result, err := capturer.Capture(t.Context(), o, nil)
		if !errors.Is(err, worm.ErrFull) || len(result.Gaps) > 0 {
			t.Fatalf("error %v, gaps %+v", err, result.Gaps)
		}
		o.Previous = result
	}
	f.putter = f.store
	result, err := capturer.Capture(t.Context(), o, nil)
	must(t, err)
	if got := string(unzstd(t, f.read(t, artifact(t, result, "volatile.ndjson.zst").Segments...))); got != "written" {
		t.Errorf("stream %q", got)
	}
	claims := 0
	for _, object := range f.store.Objects() {
		if strings.Contains(object.Key, "/volatile") && strings.HasSuffix(object.Key, ".claim") {
			claims++
		}
	}
	if claims != 1 || len(result.Gaps) > 0 {
		t.Errorf("%d claims, gaps %+v", claims, result.Gaps)
	}
}

// last is a store that refuses the rest of one artifact when the order's time is up.
type last struct {
	shut
	end context.CancelFunc
}

func (s last) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	stored, err := s.shut.Put(ctx, key, body, lock)
	if err != nil {
		s.end()
	}
	return stored, err
}

// TestWhatWasClaimedForAnOrderIsForgottenWithIt claims a second number where a call ended with its context.
func TestWhatWasClaimedForAnOrderIsForgottenWithIt(t *testing.T) {
	tests := map[string]func(ctx context.Context, c *capture.Capturer) error{
		"capture": func(ctx context.Context, c *capture.Capturer) error {
			_, err := c.Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), nil)
			return err
		},
		"flows": func(ctx context.Context, c *capture.Capturer) error {
			_, err := c.StoreFlows(ctx, order().Action.Destination, "volatile.ndjson.zst", nil)
			return err
		},
	}
	for name, call := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "id")
			f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", written)}
			capturer := f.capturer()
			f.putter = shut{f.store, "/volatile"}
			for range 2 {
				if err := call(t.Context(), capturer); !errors.Is(err, worm.ErrFull) {
					t.Fatalf("error %v", err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f.putter = last{shut{f.store, "/volatile"}, cancel}
			if err := call(ctx, capturer); !errors.Is(err, worm.ErrFull) {
				t.Fatalf("error %v", err)
			}
			f.putter = f.store
			must(t, call(t.Context(), capturer))
			var stored []string
			for _, object := range f.store.Objects() {
				if strings.Contains(object.Key, "/volatile.ndjson.zst/") {
					stored = append(stored, object.Key[strings.LastIndex(object.Key, "/")+1:])
				}
			}
			slices.Sort(stored)
			if diff := cmp.Diff([]string{"0.claim", "1", "1.claim"}, stored); diff != "" {
				t.Errorf("stored (-want +got):\n%s", diff)
			}
		})
	}
}
