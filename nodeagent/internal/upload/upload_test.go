package upload_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

var lock = worm.Lock{Mode: "COMPLIANCE", RetainUntil: time.Now().Add(time.Hour).UTC().Truncate(time.Second)}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// frames writes data as the archive does: each frame by one Write.
func frames(w io.Writer, data []byte, frame int) error {
	for len(data) > 0 {
		n := min(frame, len(data))
		if _, err := w.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func random(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(data)
	return data
}

func options(first int64) upload.Options {
	return upload.Options{Folder: "forensics/0123456789abcdef/artifacts/web/rootfs.tar.zst", Lock: lock, First: first}
}

// store writes a whole stream.
func store(t *testing.T, to worm.Putter, o upload.Options, data []byte, frame int) upload.Result {
	t.Helper()
	w := upload.NewWriter(t.Context(), to, o)
	must(t, frames(w, data, frame))
	result, err := w.Finish()
	must(t, err)
	return result
}

func open(t *testing.T, store worm.Reader, segment v1alpha1.StoredObject) []byte {
	t.Helper()
	body, err := store.Open(t.Context(), segment.Key, segment.VersionID)
	must(t, err)
	data, err := io.ReadAll(body)
	must(t, err)
	must(t, body.Close())
	return data
}

// fetch concatenates segments as they were reported.
func fetch(t *testing.T, store worm.Reader, segments []v1alpha1.StoredObject) []byte {
	t.Helper()
	var all []byte
	for i, segment := range segments {
		data := open(t, store, segment)
		if int(segment.Index) != i || segment.Size != int64(len(data)) || segment.SHA256 != evidence.Digest(data) {
			t.Errorf("segment %d reports index %d, %d bytes, %s", i, segment.Index, segment.Size, segment.SHA256)
		}
		if !segment.RetainUntil.Time.Equal(lock.RetainUntil) && segment.RetainUntil.IsZero() {
			t.Errorf("segment %d has no retention", i)
		}
		all = append(all, data...)
	}
	return all
}

func TestWriterCutsAStreamBetweenWritesIntoSegmentsThatAddUp(t *testing.T) {
	tests := map[string]struct {
		size, write, segments int
	}{
		"empty":                   {0, 1, 1},
		"one byte":                {1, 1, 1},
		"exactly one segment":     {100, 10, 1},
		"one write more":          {110, 10, 2},
		"never within a write":    {1000, 1000, 1},
		"a write fills more":      {1000, 70, 8},
		"doubles after sixteen":   {16*100 + 16*200 + 10, 10, 33},
		"last one takes the rest": {100 * 5000, 50, 128},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			memory, data := worm.NewMemory(), random(test.size)
			result := store(t, memory, options(100), data, test.write)
			if !bytes.Equal(fetch(t, memory, result.Segments), data) {
				t.Error("segments do not add up to the stream")
			}
			if len(result.Segments) != test.segments {
				t.Errorf("%d segments, want %d", len(result.Segments), test.segments)
			}
			for _, segment := range result.Segments[:len(result.Segments)-1] {
				if segment.Size%int64(test.write) != 0 {
					t.Errorf("segment %d of %d bytes ends within a write", segment.Index, segment.Size)
				}
			}
			if result.Size != int64(test.size) || result.SHA256 != evidence.Digest(data) || len(result.Abandoned) > 0 {
				t.Errorf("reported %d bytes with %s, abandoned %v", result.Size, result.SHA256, result.Abandoned)
			}
		})
	}
}

func TestWriterMakesOneSegmentWhenAsked(t *testing.T) {
	memory := worm.NewMemory()
	if result := store(t, memory, options(math.MaxInt64), random(10_000), 7); len(result.Segments) != 1 {
		t.Errorf("%d segments", len(result.Segments))
	}
}

func TestWriterReportsEachSegmentBeforeItBeginsTheNext(t *testing.T) {
	memory, o := worm.NewMemory(), options(100)
	var reported []v1alpha1.StoredObject
	o.Stored = func(segment v1alpha1.StoredObject) error {
		reported = append(reported, segment)
		if objects := memory.Objects(); objects[len(objects)-1].Key != segment.Key {
			t.Errorf("after segment %d came %s", segment.Index, objects[len(objects)-1].Key)
		}
		return nil
	}
	result := store(t, memory, o, random(950), 10)
	if diff := cmp.Diff(result.Segments, reported); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
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
	w := upload.NewWriter(t.Context(), claimable{broken{err: want}}, options(1<<20))
	if _, err := io.Copy(w, io.LimitReader(zeros{}, 1<<16)); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	if _, err := w.Write([]byte("more")); !errors.Is(err, want) {
		t.Errorf("the next write: error %v, want %v", err, want)
	}
	if _, err := w.Finish(); !errors.Is(err, want) {
		t.Errorf("finish: error %v, want %v", err, want)
	}
}

func TestWriterTakesNothingAfterItsEnd(t *testing.T) {
	w := upload.NewWriter(t.Context(), worm.NewMemory(), options(10))
	w.Abort(errors.New("agent stops"))
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("wrote after Abort")
	}
	w = upload.NewWriter(t.Context(), worm.NewMemory(), options(10))
	_, err := w.Finish()
	must(t, err)
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("wrote after Finish")
	}
}

func TestFinishNoticesThatTheStoreTookOtherBytes(t *testing.T) {
	w := upload.NewWriter(t.Context(), claimable{broken{lie: true}}, options(1<<20))
	_, err := fmt.Fprint(w, "evidence")
	must(t, err)
	if _, err := w.Finish(); !errors.Is(err, upload.ErrMismatch) {
		t.Errorf("error %v, want ErrMismatch", err)
	}
}

// claimable lets claims pass.
type claimable struct{ worm.Putter }

func (c claimable) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	if strings.HasSuffix(key, ".claim") {
		return worm.Object{}, nil
	}
	return c.Putter.Put(ctx, key, body, lock)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestWhatAStrangerTookIsKnownBeforeTheEnd(t *testing.T) {
	memory := worm.NewMemory()
	o := options(math.MaxInt64)
	for _, number := range []string{"0", "1"} {
		_, err := memory.Put(t.Context(), o.Folder+"/"+number+".claim", strings.NewReader("a stranger's"), lock)
		must(t, err)
	}
	w := upload.NewWriter(t.Context(), memory, o)
	if got := w.Abandoned(); len(got) != 0 {
		t.Errorf("before the first byte %v", got)
	}
	_, err := w.Write([]byte("ours"))
	must(t, err)
	want := []string{o.Folder + "/0", o.Folder + "/1"}
	if diff := cmp.Diff(want, w.Abandoned()); diff != "" {
		t.Errorf("under way (-want +got):\n%s", diff)
	}
	result, err := w.Finish()
	must(t, err)
	if diff := cmp.Diff(want, result.Abandoned); diff != "" || result.Segments[0].Key != o.Folder+"/2" {
		t.Errorf("at %s (-want +got):\n%s", result.Segments[0].Key, diff)
	}
}

// refusing takes nothing.
type refusing struct{ err error }

func (r refusing) Put(_ context.Context, _ string, body io.Reader, _ worm.Lock) (worm.Object, error) {
	_, _ = io.Copy(io.Discard, body)
	return worm.Object{}, r.err
}

func TestErrorsOfTheStoreAreToldFromOthers(t *testing.T) {
	w := upload.NewWriter(t.Context(), refusing{worm.ErrFull}, options(0))
	_, err := w.Write([]byte("ours"))
	if stored, ok := errors.AsType[upload.StoreError](err); !ok || !errors.Is(stored, worm.ErrFull) {
		t.Errorf("error %v", err)
	}
	o := options(1)
	unwritten := errors.New("API server away")
	o.Stored = func(v1alpha1.StoredObject) error { return unwritten }
	w = upload.NewWriter(t.Context(), worm.NewMemory(), o)
	_, err = w.Write([]byte("ours"))
	if _, ok := errors.AsType[upload.StoreError](err); ok || !errors.Is(err, unwritten) {
		t.Errorf("error %v", err)
	}
}
