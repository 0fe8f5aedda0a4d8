package capture_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/archive"
	"ugallu.io/forensics/nodeagent/internal/capture"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// folder is a View of a folder of the test.
type folder struct {
	path   string
	closed *int
}

func (f folder) Root() string { return f.path }

func (f folder) Close() error {
	*f.closed++
	return nil
}

// fixture is a pod of folders and a store in memory.
type fixture struct {
	roots  map[string]string
	uppers map[string]string
	look   capture.Look
	store  *worm.Memory
	putter worm.Putter
	frozen func(id string) bool
	views  map[string]int
	closed int
}

func newFixture(t *testing.T, ids ...string) *fixture {
	t.Helper()
	f := &fixture{roots: map[string]string{}, uppers: map[string]string{}, store: worm.NewMemory(), views: map[string]int{}}
	f.putter, f.frozen = f.store, func(string) bool { return true }
	for _, id := range ids {
		f.roots[id], f.uppers[id] = t.TempDir(), t.TempDir()
		for _, root := range []string{f.roots[id], f.uppers[id]} {
			must(t, os.WriteFile(filepath.Join(root, "planted"), []byte("by "+id), 0o600))
		}
	}
	return f
}

// View implements capture.Containers.
func (f *fixture) View(_ context.Context, _, id string) (capture.View, error) {
	f.views[id]++
	root, ok := f.roots[id]
	if !ok {
		return nil, fmt.Errorf("container %s: %w", id, fs.ErrNotExist)
	}
	return folder{root, &f.closed}, nil
}

// Lower implements capture.Containers.
func (f *fixture) Lower(context.Context, string, string) (capture.View, error) {
	return nil, fs.ErrNotExist
}

// Upper implements capture.Containers.
func (f *fixture) Upper(_ context.Context, _, id string) (string, error) {
	upper, ok := f.uppers[id]
	switch {
	case !ok:
		return "", fmt.Errorf("container %s: %w", id, fs.ErrNotExist)
	case upper == "":
		return "", capture.ErrNoUpper
	}
	return upper, nil
}

func (f *fixture) capturer() *capture.Capturer {
	return &capture.Capturer{
		Containers: f,
		Look: func(context.Context, capture.Order) (capture.Look, error) {
			look := f.look
			look.Strays = func() bool { return false }
			return look, nil
		},
		Open:   func(context.Context, v1alpha1.Destination, int64) (worm.Putter, error) { return f.putter, nil },
		Frozen: func(id string) bool { return f.frozen(id) },
		Pause:  time.Nanosecond,
	}
}

func order(containers ...capture.Container) capture.Order {
	return capture.Order{
		Incident:   "0123456789abcdef",
		Containers: containers,
		Action: &v1alpha1.FilesystemSnapshotAction{
			Destination: v1alpha1.Destination{
				Bucket: "evidence", Prefix: "forensics/0123456789abcdef", LockMode: v1alpha1.LockCompliance,
				RetainUntil: metav1.NewTime(time.Now().Add(time.Hour)),
			},
			Compression: v1alpha1.CompressionZstd,
			MaxBytes:    resource.MustParse("1Gi"),
			MaxEntries:  1000,
			MaxDuration: metav1.Duration{Duration: time.Minute},
		},
	}
}

func (f *fixture) read(t *testing.T, objects ...v1alpha1.StoredObject) []byte {
	t.Helper()
	var all []byte
	for _, object := range objects {
		body, err := f.store.Open(t.Context(), object.Key, object.VersionID)
		must(t, err)
		data, err := io.ReadAll(body)
		must(t, err)
		if evidence.Digest(data) != object.SHA256 {
			t.Errorf("%s is not what was reported", object.Key)
		}
		all = append(all, data...)
	}
	return all
}

func names(result capture.Result) []string {
	var all []string
	for _, artifact := range result.Artifacts {
		all = append(all, artifact.Name)
	}
	return all
}

func TestCaptureStoresEveryContainerInTheOrderOfNames(t *testing.T) {
	f := newFixture(t, "id-web", "id-app")
	var persisted [][]string
	o := order(capture.Container{ID: "id-web", Name: "web"}, capture.Container{ID: "id-app", Name: "app"})
	o.Stored = func(r capture.Result) error {
		persisted = append(persisted, names(r))
		return nil
	}
	var last v1alpha1.Progress
	result, err := f.capturer().Capture(t.Context(), o, func(p v1alpha1.Progress) { last = p })
	must(t, err)
	all := []string{"app/changes.tar.zst", "web/changes.tar.zst", "app/rootfs.tar.zst", "web/rootfs.tar.zst"}
	// Each artifact is persisted with its segment, and once more when it is complete.
	want := [][]string{nil, all[:1], all[:1], all[:2], all[:2], all[:3], all[:3], all}
	if diff := cmp.Diff(want, persisted); diff != "" {
		t.Errorf("persisted (-want +got):\n%s", diff)
	}
	if last.CurrentArtifact != "web/rootfs.tar.zst" || last.Files != 8 {
		t.Errorf("last progress %+v", last)
	}
	if f.closed != 2 || result.GapsObject != nil || len(result.Gaps) != 0 {
		t.Errorf("closed %d views, gaps %v, %v", f.closed, result.Gaps, result.GapsObject)
	}
	web := result.Artifacts[3]
	data := f.read(t, web.Segments...)
	if web.SHA256 != evidence.Digest(data) || web.Size != int64(len(data)) {
		t.Error("artifact is not its segments")
	}
	reader, err := zstd.NewReader(bytes.NewReader(data))
	must(t, err)
	defer reader.Close()
	tarball, err := io.ReadAll(reader)
	must(t, err)
	if !bytes.Contains(tarball, []byte("by id-web")) {
		t.Error("the planted file is not in the archive")
	}
	wantArtifact := v1alpha1.Artifact{
		Name: "web/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem, Container: "web",
		MediaType: evidence.MediaTypeTarZstd, Segments: web.Segments, Size: web.Size, SHA256: web.SHA256,
		MerkleRoot: web.MerkleRoot, Entries: 2, FrozenThroughout: true,
		IndexLines: 2, Index: web.Index, Timeline: web.Timeline,
	}
	if diff := cmp.Diff(wantArtifact, web); diff != "" {
		t.Errorf("artifact (-want +got):\n%s", diff)
	}
}

func TestCaptureDoesNotRepeatWhatIsStored(t *testing.T) {
	f := newFixture(t, "id-a", "id-b")
	o := order(capture.Container{ID: "id-a", Name: "a"}, capture.Container{ID: "id-b", Name: "b"})
	died, dead := errors.New("agent died"), false
	o.Stored = func(r capture.Result) error {
		if dead {
			return died
		}
		o.Previous = r
		if names := names(r); len(names) > 0 && names[len(names)-1] == "a/rootfs.tar.zst" {
			dead = true
			return died
		}
		return nil
	}
	if _, err := f.capturer().Capture(t.Context(), o, nil); !errors.Is(err, died) {
		t.Fatalf("error %v", err)
	}
	o.Stored = nil
	views := f.views["id-a"]
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	if f.views["id-a"] != views {
		t.Error("a stored container was viewed again")
	}
	want := []string{"a/changes.tar.zst", "b/changes.tar.zst", "a/rootfs.tar.zst", "b/rootfs.tar.zst"}
	if diff := cmp.Diff(want, names(result)); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
	if result.Storing != nil {
		t.Errorf("%s is still being stored", result.Storing.Artifact)
	}
}

// socket makes what no archive has a type for.
func (f *fixture) socket(t *testing.T, path string) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	must(t, err)
	t.Cleanup(func() { must(t, listener.Close()) })
}

// gapLines are those along the chain of objects, the newest object first.
func (f *fixture) gapLines(t *testing.T, result capture.Result) []evidence.GapLine {
	t.Helper()
	var all []evidence.GapLine
	for object := result.GapsObject; object != nil; {
		lines := bufio.NewScanner(bytes.NewReader(f.read(t, *object)))
		object = nil
		for lines.Scan() {
			var line struct {
				Previous *v1alpha1.StoredObject
				evidence.GapLine
			}
			must(t, json.Unmarshal(lines.Bytes(), &line))
			if line.Previous != nil {
				object = line.Previous
				continue
			}
			all = append(all, line.GapLine)
		}
	}
	return all
}

func TestCaptureChainsTheGapsOfAllArtifacts(t *testing.T) {
	f := newFixture(t, "id-a", "id-b")
	for id, count := range map[string]int{"id-a": 2, "id-b": 1} {
		for i := range count {
			f.socket(t, filepath.Join(f.roots[id], fmt.Sprintf("s%d", i)))
		}
	}
	o := order(capture.Container{ID: "id-a", Name: "a"}, capture.Container{ID: "id-b", Name: "b"},
		capture.Container{ID: "id-gone", Name: "gone"})
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	counts := map[string]int64{}
	for _, gap := range result.Gaps {
		counts[gap.Reason] = gap.Count
	}
	if diff := cmp.Diff(map[string]int64{evidence.GapSocketNotArchived: 3, evidence.GapContainerNotCaptured: 2}, counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	var paths []string
	for _, line := range f.gapLines(t, result) {
		paths = append(paths, line.Path)
	}
	if diff := cmp.Diff([]string{".", ".", "s0", "s0", "s1"}, paths); diff != "" {
		t.Errorf("paths along the chain (-want +got):\n%s", diff)
	}
}

func TestCaptureSaysWhetherTheContainerStoodStill(t *testing.T) {
	tests := map[string]struct {
		before, after, want bool
	}{
		"throughout":      {true, true, true},
		"thawed midway":   {true, false, false},
		"frozen too late": {false, true, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "id")
			var segments atomic.Int64
			f.putter = counting{f.store, &segments}
			f.frozen = func(string) bool {
				if segments.Load() == 0 {
					return test.before
				}
				return test.after
			}
			f.uppers["id"] = ""
			result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
			must(t, err)
			if got := result.Artifacts[0].FrozenThroughout; got != test.want {
				t.Errorf("frozen throughout = %t", got)
			}
		})
	}
}

func TestCaptureNamesARestartedContainerTwice(t *testing.T) {
	f := newFixture(t, "0123456789abcdef", "fedcba9876543210")
	result, err := f.capturer().Capture(t.Context(), order(
		capture.Container{ID: "fedcba9876543210", Name: "web"}, capture.Container{ID: "0123456789abcdef", Name: "web"}), nil)
	must(t, err)
	want := []string{
		"web-0123456789ab/changes.tar.zst", "web-fedcba987654/changes.tar.zst",
		"web-0123456789ab/rootfs.tar.zst", "web-fedcba987654/rootfs.tar.zst",
	}
	if diff := cmp.Diff(want, names(result)); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
}

func TestCaptureWritesGzipWhenAsked(t *testing.T) {
	f := newFixture(t, "id")
	o := order(capture.Container{ID: "id", Name: "c"})
	o.Action.Compression = v1alpha1.CompressionGzip
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	artifact := result.Artifacts[1]
	data := f.read(t, artifact.Segments...)
	if artifact.Name != "c/rootfs.tar.gz" || artifact.MediaType != evidence.MediaTypeTarGzip || data[0] != 0x1f {
		t.Errorf("artifact %s of type %s starts with %x", artifact.Name, artifact.MediaType, data[:2])
	}
}

func TestCaptureReportsTruncation(t *testing.T) {
	f := newFixture(t, "id")
	o := order(capture.Container{ID: "id", Name: "c"})
	o.Action.MaxEntries = 1
	result, err := f.capturer().Capture(t.Context(), o, nil)
	must(t, err)
	if !result.Artifacts[0].Truncated || len(result.Gaps) != 1 || result.Gaps[0].Reason != archive.GapMaxEntries {
		t.Errorf("truncated %t, gaps %+v", result.Artifacts[0].Truncated, result.Gaps)
	}
}

// failing refuses puts of keys that contain a word.
type failing struct {
	worm.Putter
	word string
	err  error
}

func (s failing) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	if bytes.Contains([]byte(key), []byte(s.word)) {
		return worm.Object{}, s.err
	}
	return s.Putter.Put(ctx, key, body, lock)
}

func TestCaptureGoesOnWithOtherContainersAfterAnError(t *testing.T) {
	f := newFixture(t, "id-a", "id-b")
	f.putter = failing{f.store, "/a/rootfs", errors.New("connection reset")}
	result, err := f.capturer().Capture(t.Context(),
		order(capture.Container{ID: "id-a", Name: "a"}, capture.Container{ID: "id-b", Name: "b"}), nil)
	if err == nil {
		t.Error("the failure is not reported")
	}
	if diff := cmp.Diff([]string{"a/changes.tar.zst", "b/changes.tar.zst", "b/rootfs.tar.zst"}, names(result)); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
	if viewed := f.views["id-a"] + f.views["id-b"]; f.closed != viewed {
		t.Errorf("%d of %d views closed", f.closed, viewed)
	}
}

// takenOnce stores the first segment and then says it was taken, as after a lost answer.
type takenOnce struct {
	worm.Putter
	done *bool
}

func (s takenOnce) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	object, err := s.Putter.Put(ctx, key, body, lock)
	if filepath.Base(filepath.Dir(key)) == "rootfs.tar.zst" && filepath.Base(key) == "0" && !*s.done {
		*s.done = true
		return worm.Object{}, worm.ErrExists
	}
	return object, err
}

func TestCaptureStartsAgainWhenASegmentIsTaken(t *testing.T) {
	f := newFixture(t, "id")
	f.putter = takenOnce{f.store, new(bool)}
	result, err := f.capturer().Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	if got := result.Artifacts[1].Segments[0].Key; filepath.Base(got) != "1" {
		t.Errorf("segment at %s, want the number of the second try", got)
	}
	if len(result.Gaps) != 1 || result.Gaps[0].Reason != evidence.GapAttemptAbandoned {
		t.Errorf("gaps %+v", result.Gaps)
	}
}

func TestCaptureReturnsWhenItIsCancelled(t *testing.T) {
	f := newFixture(t, "id")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.capturer().Capture(ctx, order(capture.Container{ID: "id", Name: "c"}), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
