package upload_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

func target() upload.Target {
	return upload.Target{
		Prefix: "forensics/0123456789abcdef",
		Name:   "web/rootfs.tar.zst",
		Lock:   worm.Lock{Mode: "COMPLIANCE", RetainUntil: time.Now().Add(time.Hour).UTC().Truncate(time.Second)},
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func claim(t *testing.T, store worm.Putter) upload.Attempt {
	t.Helper()
	attempt, err := upload.Claim(t.Context(), store, target())
	must(t, err)
	return attempt
}

// fetch concatenates segments as they were reported.
func fetch(t *testing.T, store worm.Reader, segments []v1alpha1.StoredObject) []byte {
	t.Helper()
	var all []byte
	for i, segment := range segments {
		body, err := store.Open(t.Context(), segment.Key, segment.VersionID)
		must(t, err)
		data, err := io.ReadAll(body)
		must(t, err)
		if int(segment.Index) != i || segment.Size != int64(len(data)) || segment.SHA256 != evidence.Digest(data) {
			t.Errorf("segment %d reports index %d, %d bytes, %s", i, segment.Index, segment.Size, segment.SHA256)
		}
		if !segment.RetainUntil.Time.Equal(target().Lock.RetainUntil) && segment.RetainUntil.IsZero() {
			t.Errorf("segment %d has no retention", i)
		}
		all = append(all, data...)
	}
	return all
}

func TestWriterCutsAStreamIntoSegmentsThatAddUp(t *testing.T) {
	tests := map[string]struct {
		size, write, segments int
	}{
		"empty":                   {0, 1, 1},
		"one byte":                {1, 1, 1},
		"exactly one segment":     {100, 7, 1},
		"one byte more":           {101, 1000, 2},
		"small writes":            {1000, 3, 10},
		"doubles after sixteen":   {16*100 + 16*200 + 1, 333, 33},
		"last one takes the rest": {100 * 5000, 4096, 128},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			store := worm.NewMemory()
			data := make([]byte, test.size)
			for i := range data {
				data[i] = byte(rand.Uint32())
			}
			w := upload.NewWriter(t.Context(), store, claim(t, store), target().Lock, 100)
			for rest := data; len(rest) > 0; {
				n, err := w.Write(rest[:min(test.write, len(rest))])
				must(t, err)
				rest = rest[n:]
			}
			result, err := w.Finish()
			must(t, err)
			if !bytes.Equal(fetch(t, store, result.Segments), data) {
				t.Error("segments do not add up to the stream")
			}
			if len(result.Segments) != test.segments {
				t.Errorf("%d segments, want %d", len(result.Segments), test.segments)
			}
			if result.Size != int64(test.size) || result.SHA256 != evidence.Digest(data) {
				t.Errorf("reported %d bytes with %s", result.Size, result.SHA256)
			}
		})
	}
}

func TestClaimNeverGivesAFolderTwice(t *testing.T) {
	store := worm.NewMemory()
	var folders []string
	for range 3 {
		folders = append(folders, claim(t, store).Folder)
	}
	first := "forensics/0123456789abcdef/artifacts/web/rootfs.tar.zst"
	want := []string{first, first + "/a2", first + "/a3"}
	if diff := cmp.Diff(want, folders); diff != "" {
		t.Errorf("folders (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, claim(t, store).Abandoned); diff != "" {
		t.Errorf("abandoned (-want +got):\n%s", diff)
	}
}

func TestWriterAfterACrashReplacesNothing(t *testing.T) {
	store := worm.NewMemory()
	dead := upload.NewWriter(t.Context(), store, claim(t, store), target().Lock, 10)
	_, err := dead.Write([]byte("0123456789-from-the-first-attempt"))
	must(t, err)
	dead.Abort(errors.New("agent died"))
	before := store.Objects()

	w := upload.NewWriter(t.Context(), store, claim(t, store), target().Lock, 10)
	_, err = w.Write([]byte("second attempt"))
	must(t, err)
	result, err := w.Finish()
	must(t, err)
	if got := string(fetch(t, store, result.Segments)); got != "second attempt" {
		t.Errorf("stored %q", got)
	}
	if diff := cmp.Diff(before, store.Objects()[:len(before)]); diff != "" {
		t.Errorf("objects of the first attempt changed:\n%s", diff)
	}
}

func TestWriterReportsATakenSegment(t *testing.T) {
	store := worm.NewMemory()
	attempt := claim(t, store)
	_, err := store.Put(t.Context(), attempt.Folder+"/0", bytes.NewReader(nil), target().Lock)
	must(t, err)
	w := upload.NewWriter(t.Context(), store, attempt, target().Lock, 10)
	_, err = w.Write([]byte("more than one segment"))
	if !errors.Is(err, worm.ErrExists) {
		t.Errorf("error %v, want ErrExists", err)
	}
	w.Abort(err)
}

// broken fails after it read some bytes, or takes other bytes than it says.
type broken struct {
	err error
	lie bool
}

func (b broken) Put(_ context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	n, err := io.CopyN(io.Discard, body, 4)
	if b.err != nil {
		return worm.Object{}, b.err
	}
	if b.lie {
		_, err = io.Copy(io.Discard, body)
		return worm.Object{Key: key, VersionID: "v", Size: n, SHA256: evidence.Digest(nil), Lock: lock}, err
	}
	return worm.Object{}, err
}

func TestWriterReturnsTheErrorOfTheStore(t *testing.T) {
	want := errors.New("connection reset")
	w := upload.NewWriter(t.Context(), broken{err: want}, upload.Attempt{Folder: "f"}, target().Lock, 1<<20)
	if _, err := io.Copy(w, io.LimitReader(zeros{}, 1<<16)); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	w.Abort(want)
}

func TestFinishNoticesThatTheStoreTookOtherBytes(t *testing.T) {
	w := upload.NewWriter(t.Context(), broken{lie: true}, upload.Attempt{Folder: "f"}, target().Lock, 1<<20)
	_, err := fmt.Fprint(w, "evidence")
	must(t, err)
	if _, err := w.Finish(); !errors.Is(err, upload.ErrMismatch) {
		t.Errorf("error %v, want ErrMismatch", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
