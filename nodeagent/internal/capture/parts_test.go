package capture_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/capture"
)

func unzstd(t *testing.T, data []byte) []byte {
	t.Helper()
	reader, err := zstd.NewReader(bytes.NewReader(data))
	must(t, err)
	defer reader.Close()
	plain, err := io.ReadAll(reader)
	must(t, err)
	return plain
}

func artifact(t *testing.T, result capture.Result, name string) v1alpha1.Artifact {
	t.Helper()
	at := slices.IndexFunc(result.Artifacts, func(a v1alpha1.Artifact) bool { return a.Name == name })
	if at < 0 {
		t.Fatalf("no artifact %s among %v", name, names(result))
	}
	return result.Artifacts[at]
}

func TestIndexAndTimelineLieBesideTheArchiveAndGiveItsMerkleRoot(t *testing.T) {
	f := newFixture(t, "id")
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	root := artifact(t, result, "c/rootfs.tar.zst")
	index := unzstd(t, f.read(t, *root.Index))
	reader := evidence.NewIndexReader(bytes.NewReader(index))
	var lines int64
	for {
		_, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		lines++
	}
	if reader.Root() != root.MerkleRoot || lines != root.IndexLines || lines != 2 {
		t.Errorf("index of %d lines with the root %s, reported %d and %s", lines, reader.Root(), root.IndexLines, root.MerkleRoot)
	}
	if timeline := string(unzstd(t, f.read(t, *root.Timeline))); strings.Count(timeline, "\n") != 2 || !strings.Contains(timeline, "|/planted|") {
		t.Errorf("timeline %q", timeline)
	}
	for _, object := range root.Companions() {
		if !strings.HasPrefix(object.Key, "forensics/0123456789abcdef/artifacts/c/rootfs.") {
			t.Errorf("companion at %s", object.Key)
		}
	}
}

func TestPartsGoByVolatility(t *testing.T) {
	f := newFixture(t, "id")
	stream := func(name string) capture.Part {
		return capture.Part{Name: name, Kind: v1alpha1.ArtifactVolatileState, MediaType: "m", Write: func(_ context.Context, _ time.Duration, out, _ io.Writer) (capture.Summary, error) {
			_, err := io.WriteString(out, "by "+name)
			return capture.Summary{Records: 1}, err
		}}
	}
	tree := func(name string) capture.Part {
		return capture.Part{Name: name, Kind: v1alpha1.ArtifactVolume, Open: func(context.Context) (capture.Tree, error) {
			return capture.Tree{Root: f.roots["id"], Close: func() error { return nil }}, nil
		}}
	}
	f.look = capture.Look{
		Processes: []capture.Part{stream("volatile.ndjson.zst")}, Memory: []capture.Part{tree("memory/shm")},
		Files: []capture.Part{tree("logs"), stream("pod.ndjson.zst")},
		Gaps:  []evidence.Gap{{Reason: "MemoryNotCaptured", Message: "not asked for", Count: 3}},
	}
	o := order(capture.Container{ID: "id", Name: "c"})
	o.Flows = func() ([]evidence.Flow, error) { return someFlows(), nil }
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	want := []string{
		"flows.ndjson.zst", "volatile.ndjson.zst", "memory/shm.tar.zst", "c/changes.tar.zst", "logs.tar.zst", "pod.ndjson.zst", "c/rootfs.tar.zst",
	}
	if diff := cmp.Diff(want, names(result)); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
	if got := string(unzstd(t, f.read(t, artifact(t, result, "volatile.ndjson.zst").Segments...))); got != "by volatile.ndjson.zst" {
		t.Errorf("stream %q", got)
	}
	if len(result.Gaps) != 1 || result.Gaps[0].Count != 3 || result.GapsObject == nil {
		t.Errorf("gaps %+v in %v", result.Gaps, result.GapsObject)
	}
}

func TestAPartThatIsLostIsAGap(t *testing.T) {
	f := newFixture(t, "id")
	f.look.Processes = []capture.Part{{Name: "volatile.ndjson.zst", Write: func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
		return capture.Summary{}, capture.Lost{Reason: "ProcessesGone", Cause: errors.New("no process is left")}
	}}}
	f.uppers["id"] = ""
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	reasons := []string{}
	for _, gap := range result.Gaps {
		reasons = append(reasons, gap.Reason)
	}
	if diff := cmp.Diff([]string{"ProcessesGone", evidence.GapUpperLayerNotSeparate}, reasons); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	if lines := string(f.read(t, *result.GapsObject)); !strings.Contains(lines, "no process is left") {
		t.Errorf("gap lines %s", lines)
	}
}

func TestAnUpperLayerThatChangesWhileItIsReadIsReadTwiceAndNamed(t *testing.T) {
	for _, changes := range []bool{false, true} {
		t.Run(fmt.Sprintf("changes=%t", changes), func(t *testing.T) {
			f := newFixture(t, "id")
			asked := 0
			f.frozen = func(string) bool {
				if asked++; changes && asked == 2 {
					must(t, os.WriteFile(filepath.Join(f.uppers["id"], "later"), []byte("by the suspect"), 0o600))
				}
				return asked == 1
			}
			result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
			must(t, err)
			named := slices.ContainsFunc(result.Gaps, func(g v1alpha1.GapCount) bool { return g.Reason == capture.GapChangedBetweenReads })
			if named != changes {
				t.Errorf("gaps %+v", result.Gaps)
			}
		})
	}
}

// big gives a container a file that makes many segments of 1 MiB.
func (f *fixture) big(t *testing.T, id string) {
	t.Helper()
	data := make([]byte, 5<<20)
	_, err := rand.Read(data)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(f.roots[id], "random"), data, 0o600))
}

// undisturbed captures a container of several segments, and returns what did it and the root filesystem that came of it.
func undisturbed(t *testing.T) (*fixture, *capture.Capturer, v1alpha1.Artifact) {
	t.Helper()
	f := newFixture(t, "id")
	f.uppers["id"] = ""
	f.big(t, "id")
	capturer := f.capturer()
	capturer.FirstSegment = 1 << 20
	result, err := capturer.Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	want := result.Artifacts[0]
	if len(want.Segments) < 4 {
		t.Fatalf("%d segments", len(want.Segments))
	}
	return f, capturer, want
}

func TestAfterACrashOneSegmentIsRepeatedAndTheResultIsTheSame(t *testing.T) {
	f, _, want := undisturbed(t)
	for crash := 1; crash <= len(want.Segments); crash++ {
		f := &fixture{roots: f.roots, uppers: f.uppers, store: newFixture(t).store, views: map[string]int{}, frozen: f.frozen}
		f.putter = f.store
		capturer := f.capturer()
		capturer.FirstSegment = 1 << 20
		o := order(capture.Container{ID: "id", Name: "c"})
		died := errors.New("agent died")
		o.Stored = func(r capture.Result) error {
			if r.Storing != nil && len(r.Storing.Segments) == crash {
				// Stored, and not recorded.
				return died
			}
			o.Previous = r
			return nil
		}
		if _, err := capturer.Capture(t.Context(), o, nil); !errors.Is(err, died) {
			t.Fatalf("error %v", err)
		}
		o.Stored = nil
		result, err := capturer.Capture(t.Context(), o, nil)
		must(t, err)
		got := result.Artifacts[0]
		if got.SHA256 != want.SHA256 || got.MerkleRoot != want.MerkleRoot || got.Size != want.Size {
			t.Errorf("crash at %d: another artifact than undisturbed", crash)
		}
		if evidence.Digest(f.read(t, got.Segments...)) != want.SHA256 {
			t.Errorf("crash at %d: the segments are not the artifact", crash)
		}
		puts := 0
		for _, object := range f.store.Objects() {
			if strings.Contains(object.Key, "rootfs.tar.zst/") && !strings.HasSuffix(object.Key, ".claim") {
				puts++
			}
		}
		if puts != len(want.Segments)+1 {
			t.Errorf("crash at %d: %d segments put, want one more than %d", crash, puts, len(want.Segments))
		}
	}
}

func TestATreeThatIsAnotherOneAfterACrashIsStoredAnew(t *testing.T) {
	f := newFixture(t, "id")
	f.uppers["id"] = ""
	f.big(t, "id")
	capturer := f.capturer()
	capturer.FirstSegment = 1 << 20
	o := order(capture.Container{ID: "id", Name: "c"})
	died := errors.New("agent died")
	o.Stored = func(r capture.Result) error {
		if r.Storing != nil && len(r.Storing.Segments) == 3 {
			return died
		}
		o.Previous = r
		return nil
	}
	if _, err := capturer.Capture(t.Context(), o, nil); !errors.Is(err, died) {
		t.Fatalf("error %v", err)
	}
	must(t, os.WriteFile(filepath.Join(f.roots["id"], "aaa"), []byte("another"), 0o600))
	o.Stored = nil
	result, err := capturer.Capture(t.Context(), o, nil)
	must(t, err)
	if evidence.Digest(f.read(t, result.Artifacts[0].Segments...)) != result.Artifacts[0].SHA256 {
		t.Error("the segments are not the artifact")
	}
	if result.Gaps[0].Reason != evidence.GapAttemptAbandoned || result.Gaps[0].Count < 3 {
		t.Errorf("gaps %+v, want the recorded segments among the abandoned", result.Gaps)
	}
}

func TestAgeSealsEverythingThatLeavesTheNode(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	f := newFixture(t, "id", "id-gone")
	delete(f.roots, "id-gone")
	delete(f.uppers, "id-gone")
	o := order(capture.Container{ID: "id", Name: "c"}, capture.Container{ID: "id-gone", Name: "gone"})
	o.Action.Destination.Encryption, o.Action.Destination.AgeRecipients = v1alpha1.EncryptionAge, []string{identity.Recipient().String()}
	o.Flows = func() ([]evidence.Flow, error) { return someFlows(), nil }
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	for _, object := range f.store.Objects() {
		if strings.HasSuffix(object.Key, ".claim") {
			continue
		}
		body, err := f.store.Open(t.Context(), object.Key, object.VersionID)
		must(t, err)
		plain, err := age.Decrypt(body, identity)
		if err != nil {
			t.Errorf("%s is not sealed: %v", object.Key, err)
			continue
		}
		_, err = io.Copy(io.Discard, plain)
		must(t, err)
	}
	root := artifact(t, result, "c/rootfs.tar.zst")
	segment := root.Segments[0]
	if segment.Plain == nil || segment.Plain.SHA256 != root.SHA256 || segment.Plain.Size != root.Size || segment.SHA256 == root.SHA256 {
		t.Errorf("segment %+v of %s", segment, root.SHA256)
	}
}

func TestBadRecipientsAreRefusedBeforeAnythingIsStored(t *testing.T) {
	f := newFixture(t, "id")
	o := order(capture.Container{ID: "id", Name: "c"})
	o.Action.Destination.Encryption, o.Action.Destination.AgeRecipients = v1alpha1.EncryptionAge, []string{"age1nonsense"}
	if _, err := f.capturer().Capture(t.Context(), o, nil); err == nil || len(f.store.Objects()) > 0 {
		t.Errorf("error %v, %d objects", err, len(f.store.Objects()))
	}
}

func TestTooManyArtifactsAreNamedAndMemoryGivesWayFirst(t *testing.T) {
	f := newFixture(t, "id")
	for i := range 600 {
		f.look.Processes = append(f.look.Processes, capture.Part{
			Name: fmt.Sprintf("c/memory-%d.core.zst", i), Kind: v1alpha1.ArtifactProcessMemory, MediaType: "m",
			Write: func(context.Context, time.Duration, io.Writer, io.Writer) (capture.Summary, error) {
				return capture.Summary{}, nil
			},
		})
	}
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	if len(result.Artifacts) != v1alpha1.MaxArtifacts || result.Gaps[0].Reason != capture.GapTooManyArtifacts || result.Gaps[0].Count != 346 {
		t.Errorf("%d artifacts, gaps %+v", len(result.Artifacts), result.Gaps)
	}
	artifact(t, result, "c/rootfs.tar.zst")
}
