package capture_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
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
	t.Parallel()
	f := newFixture(t, "id")
	f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", func(_ context.Context, within time.Duration, out, _ io.Writer) (capture.Summary, error) {
		if within > 6*time.Second {
			t.Errorf("the stream may take %v of 8 s", within)
		}
		time.Sleep(within)
		_, err := io.WriteString(out, "as far as it got")
		return capture.Summary{Truncated: true}, err
	})}
	ctx := soon(t)
	result, err := f.capturer().Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, errors.Join(err, ctx.Err()))
	if diff := cmp.Diff([]string{"volatile.ndjson.zst"}, names(result)); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
	if volatile := result.Artifacts[0]; !volatile.Truncated || string(unzstd(t, f.read(t, volatile.Segments...))) != "as far as it got" {
		t.Errorf("the stream %+v was not ended in good order", volatile)
	}
	named := gap(result, capture.GapNotStored)
	if named.Count != 2 || !strings.Contains(named.Message, "c/changes.tar.zst") || !strings.Contains(named.Message, "c/rootfs.tar.zst") {
		t.Errorf("gaps %+v", result.Gaps)
	}
	if lines := string(f.read(t, *result.GapsObject)); strings.Count(lines, capture.GapNotStored) != 2 {
		t.Errorf("gap lines %s", lines)
	}
}

func TestAStreamThatDoesNotEndIsGivenUpAndNamed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "id")
	f.look.Processes = []capture.Part{stream("volatile.ndjson.zst", func(ctx context.Context, _ time.Duration, _, _ io.Writer) (capture.Summary, error) {
		<-ctx.Done()
		return capture.Summary{}, ctx.Err()
	})}
	ctx := soon(t)
	result, err := f.capturer().Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, errors.Join(err, ctx.Err()))
	if got := gap(result, capture.GapNotStored); got.Count != 3 || result.GapsObject == nil {
		t.Errorf("gaps %+v in %v", result.Gaps, result.GapsObject)
	}
}

// TestWhatCannotBeNamedInTheStoreIsCounted has no store when the time is up, and one that cannot even be opened.
func TestWhatCannotBeNamedInTheStoreIsCounted(t *testing.T) {
	for name, open := range map[string]error{"away": nil, "not configured": errors.New("no WORMConfig")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
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
			if got := gap(result, capture.GapNotStored); got.Count != 3 || result.GapsObject != nil {
				t.Errorf("gaps %+v in %v", result.Gaps, result.GapsObject)
			}
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
	t.Parallel()
	f := newFixture(t, "id")
	f.uppers["id"] = ""
	f.big(t, "id")
	capturer := f.capturer()
	capturer.FirstSegment = 1 << 20
	ctx := soon(t)
	f.putter = stuck{f.store, "rootfs.tar.zst/3"}
	result, err := capturer.Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, errors.Join(err, ctx.Err()))
	if gap(result, capture.GapNotCompleted).Count != 1 || gap(result, capture.GapNotStored).Count != 0 || len(result.Storing.Segments) != 3 {
		t.Errorf("gaps %+v, storing %+v", result.Gaps, result.Storing)
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
