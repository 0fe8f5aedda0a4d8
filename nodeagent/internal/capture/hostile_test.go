package capture_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/capture"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

func TestManyMountsOfMemoryPushNoRootFilesystemOut(t *testing.T) {
	f := newFixture(t, "id")
	for i := range 600 {
		f.look.Memory = append(f.look.Memory, capture.Part{
			Name: fmt.Sprintf("memory/mount-%d", i), Kind: v1alpha1.ArtifactMemoryFiles,
			Open: func(context.Context) (capture.Tree, error) {
				return capture.Tree{Root: f.roots["id"], Close: func() error { return nil }}, nil
			},
		})
	}
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	artifact(t, result, "c/rootfs.tar.zst")
	artifact(t, result, "c/changes.tar.zst")
}

func TestAContainerNamedLikeAFolderOfOursHasItsOwn(t *testing.T) {
	f := newFixture(t, "0123456789abcdef")
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "0123456789abcdef", Name: "volumes"}), nil)
	must(t, err)
	want := []string{"volumes-0123456789ab/changes.tar.zst", "volumes-0123456789ab/rootfs.tar.zst"}
	if diff := cmp.Diff(want, names(result)); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
}

// TestAnotherPartLeavesTheRecordOfWhatIsBeingStored fails an archive after some segments; what comes after it succeeds.
func TestAnotherPartLeavesTheRecordOfWhatIsBeingStored(t *testing.T) {
	f := newFixture(t, "id-a", "id-b")
	f.big(t, "id-a")
	capturer := f.capturer()
	capturer.FirstSegment = 1 << 20
	o := order(capture.Container{ID: "id-a", Name: "a"}, capture.Container{ID: "id-b", Name: "b"})
	away := errors.New("API server away")
	o.Stored = func(r capture.Result) error {
		if r.Storing != nil && r.Storing.Artifact == "a/rootfs.tar.zst" && len(r.Storing.Segments) >= 3 && len(r.Artifacts) == len(o.Previous.Artifacts) {
			return away
		}
		o.Previous = r
		return nil
	}
	if _, err := capturer.Capture(t.Context(), o, nil); !errors.Is(err, away) {
		t.Fatalf("error %v", err)
	}
	artifact(t, o.Previous, "b/rootfs.tar.zst")
	if o.Previous.Storing == nil || o.Previous.Storing.Artifact != "a/rootfs.tar.zst" {
		t.Fatalf("storing %+v", o.Previous.Storing)
	}
	o.Stored = nil
	result, err := capturer.Capture(t.Context(), o, nil)
	must(t, err)
	if result.Storing != nil || artifact(t, result, "a/rootfs.tar.zst").Segments[0] != o.Previous.Storing.Segments[0] {
		t.Errorf("storing %+v; the first segment was stored again", result.Storing)
	}
}

func TestWhatWasBeingStoredAndIsGoneStaysOnRecord(t *testing.T) {
	f := newFixture(t, "id")
	o := order(capture.Container{ID: "id", Name: "c"})
	o.Previous.Storing = &v1alpha1.Storing{Artifact: "volumes/data.tar.zst", Segments: []v1alpha1.StoredObject{{Key: "k"}}}
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	named := slices.ContainsFunc(result.Gaps, func(g v1alpha1.GapCount) bool { return g.Reason == evidence.GapArtifactNotCompleted })
	if !named || result.Storing == nil {
		t.Errorf("gaps %+v, storing %+v", result.Gaps, result.Storing)
	}
}

func TestTheDescriptionWaitsForWhatIsTriedAgain(t *testing.T) {
	f := newFixture(t, "id")
	away := upload.StoreError{What: "put", Cause: worm.ErrUnavailable}
	broken := func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
		return capture.Summary{}, away
	}
	f.look.Files = []capture.Part{
		{Name: "state", Kind: v1alpha1.ArtifactVolatileState, MediaType: "m", Write: broken},
		{Name: "podfiles.ndjson.zst", Kind: v1alpha1.ArtifactPodDescription, MediaType: "m", Write: func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
			return capture.Summary{}, nil
		}},
	}
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	if !errors.Is(err, away) || slices.Contains(names(result), "podfiles.ndjson.zst") {
		t.Errorf("error %v, artifacts %v", err, names(result))
	}
}
