package capture_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/archive"
	"ugallu.io/forensics/nodeagent/internal/capture"
)

// soon is a context whose last quarter a capture keeps for its end.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// gap is the count of a reason, and its message.
func gap(result capture.Result, reason string) v1alpha1.GapCount {
	at := slices.IndexFunc(result.Gaps, func(g v1alpha1.GapCount) bool { return g.Reason == reason })
	if at < 0 {
		return v1alpha1.GapCount{}
	}
	return result.Gaps[at]
}

func stream(name string, write func(ctx context.Context, within time.Duration, out, gaps io.Writer) (capture.Summary, error)) capture.Part {
	return capture.Part{Name: name, Kind: v1alpha1.ArtifactVolatileState, MediaType: "m", Write: write}
}

func TestAStreamEndsBeforeItsOrderDoesAndWhatIsLeftIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "id")
		var may time.Duration
		f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", func(_ context.Context, within time.Duration, out, _ io.Writer) (capture.Summary, error) {
			may = within
			time.Sleep(within)
			_, err := io.WriteString(out, "as far as it got")
			return capture.Summary{Truncated: true}, err
		})}
		ctx := soon(t)
		result, err := f.capturer().Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), nil)
		must(t, errors.Join(err, ctx.Err()))
		if may != 6*time.Second {
			t.Errorf("the stream may take %v of 8 s", may)
		}
		if diff := cmp.Diff([]string{"volatile.ndjson.zst"}, names(result)); diff != "" {
			t.Errorf("artifacts (-want +got):\n%s", diff)
		}
		if volatile := result.Artifacts[0]; !volatile.Truncated || string(unzstd(t, f.read(t, volatile.Segments...))) != "as far as it got" {
			t.Errorf("the stream %+v was not ended in good order", volatile)
		}
		named := gap(result, evidence.GapArtifactNotStored)
		if named.Count != 2 || !strings.Contains(named.Message, "c/changes.tar.zst") || !strings.Contains(named.Message, "c/rootfs.tar.zst") {
			t.Errorf("gaps %+v", result.Gaps)
		}
		if lines := string(f.read(t, *result.GapsObject)); strings.Count(lines, evidence.GapArtifactNotStored) != 2 {
			t.Errorf("gap lines %s", lines)
		}
	})
}

func TestAStreamThatDoesNotEndIsGivenUpAndNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "id")
		f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", func(ctx context.Context, _ time.Duration, _, _ io.Writer) (capture.Summary, error) {
			<-ctx.Done()
			return capture.Summary{}, ctx.Err()
		})}
		ctx := soon(t)
		result, err := f.capturer().Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), nil)
		must(t, errors.Join(err, ctx.Err()))
		if got := gap(result, evidence.GapArtifactNotStored); got.Count != 3 || result.GapsObject == nil {
			t.Errorf("gaps %+v in %v", result.Gaps, result.GapsObject)
		}
	})
}

// TestWhatCannotBeNamedInTheStoreIsCounted has no store when the time is up, and one that cannot even be opened.
func TestWhatCannotBeNamedInTheStoreIsCounted(t *testing.T) {
	for name, open := range map[string]error{"away": nil, "not configured": errors.New("no WORMConfig")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, "id")
				f.putter = failing{f.store, "", worm.ErrUnavailable}
				capturer := f.capturer()
				capturer.Open = func(ctx context.Context, _ v1alpha1.Destination, _ int64) (worm.Putter, error) {
					if open != nil {
						<-ctx.Done()
					}
					return f.putter, open
				}
				f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", func(_ context.Context, within time.Duration, out, _ io.Writer) (capture.Summary, error) {
					time.Sleep(within)
					_, err := io.WriteString(out, "nowhere to go")
					return capture.Summary{}, err
				})}
				ctx := soon(t)
				result, err := capturer.Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), nil)
				must(t, errors.Join(err, ctx.Err()))
				if got := gap(result, evidence.GapArtifactNotStored); got.Count != 3 || result.GapsObject != nil {
					t.Errorf("gaps %+v in %v", result.Gaps, result.GapsObject)
				}
			})
		})
	}
}

func TestACancelledCaptureNamesNothing(t *testing.T) {
	f := newFixture(t, "id")
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", func(ctx context.Context, _ time.Duration, _, _ io.Writer) (capture.Summary, error) {
		cancel()
		return capture.Summary{}, ctx.Err()
	})}
	result, err := f.capturer().Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), nil)
	if !errors.Is(err, context.Canceled) || len(result.Gaps) > 0 || len(f.store.Objects()) > 0 {
		t.Errorf("error %v, gaps %+v, %d objects", err, result.Gaps, len(f.store.Objects()))
	}
}

func TestASegmentedArchiveThatIsNotCompletedInTimeIsOneGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "id")
		f.uppers["id"] = ""
		f.big(t, "id")
		capturer := f.capturer()
		capturer.FirstSegment = 1 << 20
		ctx := soon(t)
		f.putter = stuck{f.store, "rootfs.tar.zst/3"}
		result, err := capturer.Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), nil)
		must(t, errors.Join(err, ctx.Err()))
		if gap(result, evidence.GapArtifactNotCompleted).Count != 1 || gap(result, evidence.GapArtifactNotStored).Count != 0 || len(result.Storing.Segments) != 3 {
			t.Errorf("gaps %+v, storing %+v", result.Gaps, result.Storing)
		}
	})
}

func TestAnArchiveEndsTruncatedBeforeItsOrderDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "id")
		ctx := soon(t)
		deadline, _ := ctx.Deadline()
		slow := func(v1alpha1.Progress) { time.Sleep(time.Until(deadline.Add(-2*time.Second + time.Nanosecond))) }
		result, err := f.capturer().Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), slow)
		must(t, errors.Join(err, ctx.Err()))
		if !result.Artifacts[0].Truncated || gap(result, archive.GapMaxDuration).Count != 1 || gap(result, evidence.GapArtifactNotStored).Count != 1 {
			t.Errorf("truncated %t, gaps %+v", result.Artifacts[0].Truncated, result.Gaps)
		}
	})
}

// TestAnArchiveThatIsCutShortWithinWhatIsRecordedStaysOnRecord reads it so slowly that a limit on time ends it there.
func TestAnArchiveThatIsCutShortWithinWhatIsRecordedStaysOnRecord(t *testing.T) {
	tests := map[string]struct {
		within, limit, pause time.Duration
	}{
		"the order's time is up":    {8 * time.Second, time.Minute, 6500 * time.Millisecond},
		"the archive's time is up":  {time.Hour, time.Minute, 2 * time.Minute},
		"an order without deadline": {0, time.Minute, 2 * time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, "id")
				f.uppers["id"] = ""
				f.big(t, "id")
				capturer, o := f.capturer(), f.interrupted(t, 4)
				capturer.FirstSegment = 1 << 20
				o.Action.MaxDuration.Duration = tt.limit
				before := f.objects()
				ctx := t.Context()
				if tt.within > 0 {
					limited, cancel := context.WithTimeout(ctx, tt.within)
					defer cancel()
					ctx = limited
				}
				slept := false
				slow := func(p v1alpha1.Progress) {
					if p.BytesRead > 2<<20 && !slept {
						slept = true
						time.Sleep(tt.pause)
					}
				}
				result, err := capturer.Capture(ctx, o, slow)
				must(t, errors.Join(err, ctx.Err()))
				if diff := cmp.Diff(o.Previous.Storing, result.Storing); diff != "" {
					t.Errorf("storing (-want +got):\n%s", diff)
				}
				var counts []string
				for _, gap := range result.Gaps {
					counts = append(counts, fmt.Sprint(gap.Reason, gap.Count))
				}
				if diff := cmp.Diff([]string{evidence.GapArtifactNotCompleted + "1", evidence.GapUpperLayerNotSeparate + "1"}, counts); diff != "" {
					t.Errorf("gaps (-want +got):\n%s", diff)
				}
				if !strings.Contains(gap(result, evidence.GapArtifactNotCompleted).Message, "its index or its timeline") {
					t.Errorf("gap %+v", gap(result, evidence.GapArtifactNotCompleted))
				}
				if got := f.objects() - before; got != 1 || len(result.Artifacts) > 0 {
					t.Errorf("%d objects were stored beside the list of gaps, artifacts %v", got-1, names(result))
				}
			})
		})
	}
}

// objects are how many are stored that are no claims.
func (f *fixture) objects() int {
	count := 0
	for _, object := range f.store.Objects() {
		if !strings.HasSuffix(object.Key, ".claim") {
			count++
		}
	}
	return count
}

// interrupted is an order whose root filesystem has so many segments on record.
func (f *fixture) interrupted(t *testing.T, segments int) capture.Order {
	t.Helper()
	capturer, o := f.capturer(), order(capture.Container{ID: "id", Name: "c"})
	capturer.FirstSegment = 1 << 20
	died := errors.New("agent died")
	o.Stored = func(r capture.Result) error {
		if r.Storing == nil || len(r.Storing.Segments) > segments {
			return died
		}
		o.Previous = r
		return nil
	}
	if _, err := capturer.Capture(t.Context(), o, nil); !errors.Is(err, died) || len(o.Previous.Storing.Segments) != segments {
		t.Fatalf("error %v, storing %+v", err, o.Previous.Storing)
	}
	o.Stored = nil
	return o
}

// TestTheMemoryOfManyProcessesLeavesHalfOfTheTime has a process of which the memory does not come to an end, and another one.
func TestTheMemoryOfManyProcessesLeavesHalfOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "id")
		var may []time.Duration
		for _, name := range []string{"c/memory-1.core.zst", "c/memory-2.core.zst"} {
			part := stream(name, func(_ context.Context, within time.Duration, out, _ io.Writer) (capture.Summary, error) {
				may = append(may, within)
				time.Sleep(within)
				_, err := io.WriteString(out, "as far as it got")
				return capture.Summary{Truncated: true}, err
			})
			part.Kind = v1alpha1.ArtifactProcessMemory
			f.look.Processes = append(f.look.Processes, part)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
		defer cancel()
		o := order(capture.Container{ID: "id", Name: "c"})
		o.Action.MaxDuration.Duration = time.Hour
		result, err := f.capturer().Capture(ctx, o, nil)
		must(t, err)
		if diff := cmp.Diff([]string{"c/memory-1.core.zst", "c/changes.tar.zst", "c/rootfs.tar.zst"}, names(result)); diff != "" {
			t.Errorf("artifacts (-want +got):\n%s", diff)
		}
		// A minute of nine is kept for the end.
		if diff := cmp.Diff([]time.Duration{4 * time.Minute}, may); diff != "" {
			t.Errorf("time of each (-want +got):\n%s", diff)
		}
		if got := gap(result, capture.GapMemoryTime); got.Count != 1 || !strings.Contains(got.Message, "memory-2") || len(result.Gaps) != 1 {
			t.Errorf("gaps %+v", result.Gaps)
		}
	})
}

// TestAnUpperLayerThatTimeDoesNotLetCompareIsNamed has time run out before, and after, the first reading ends.
func TestAnUpperLayerThatTimeDoesNotLetCompareIsNamed(t *testing.T) {
	for name, second := range map[string]bool{"in the second reading": true, "in the first reading": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, "id")
				f.frozen = func(string) bool { return false }
				read := 0
				slow := func(v1alpha1.Progress) {
					// Each reading passes by here for the folder and for its one file.
					if read++; read == 1 && !second || read == 3 && second {
						time.Sleep(2 * time.Minute)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				result, err := f.capturer().Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), slow)
				must(t, err)
				want := capture.GapNotReadAgain
				if !second {
					want = archive.GapMaxDuration
				}
				if len(result.Gaps) != 1 || gap(result, want).Count != 1 || strings.Count(string(f.read(t, *result.GapsObject)), want) != 1 {
					t.Errorf("gaps %+v", result.Gaps)
				}
			})
		})
	}
}

// stuck is a store that does not answer for one key.
type stuck struct {
	worm.Putter
	key string
}

func (s stuck) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	if strings.HasSuffix(key, s.key) {
		<-ctx.Done()
		return worm.Object{}, ctx.Err()
	}
	return s.Putter.Put(ctx, key, body, lock)
}
