package upload_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

const (
	frame = 10
	first = 100
)

// moment is where a process dies.
type moment int

const (
	beforePut moment = iota
	withinPut
	afterPut
	beforeRecord
	afterRecord
	moments
)

// death is a moment of the put, or the record, with this number.
type death struct {
	moment moment
	number int
}

func (d death) String() string {
	return fmt.Sprint([]string{"before put ", "within put ", "after put ", "before record ", "after record "}[d.moment], d.number)
}

var errDead = errors.New("the process is dead")

// mortal is a store, and what one process after the other has persisted, with the deaths that are to come.
type mortal struct {
	*worm.Memory
	deaths        []death
	puts, records int
	recorded      []v1alpha1.StoredObject
	sent          int64
}

func (m *mortal) dies(at moment, number int) bool {
	if len(m.deaths) == 0 || m.deaths[0] != (death{at, number}) {
		return false
	}
	m.deaths = m.deaths[1:]
	return true
}

func (m *mortal) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	number := m.puts
	m.puts++
	if m.dies(beforePut, number) {
		return worm.Object{}, errDead
	}
	if !strings.HasSuffix(key, ".claim") {
		body = io.TeeReader(body, (*counter)(&m.sent))
	}
	if m.dies(withinPut, number) {
		_, _ = io.CopyN(io.Discard, body, first/2)
		return worm.Object{}, errDead
	}
	object, err := m.Memory.Put(ctx, key, body, lock)
	if err == nil && m.dies(afterPut, number) {
		return worm.Object{}, errDead
	}
	return object, err
}

func (m *mortal) record(segment v1alpha1.StoredObject) error {
	number := m.records
	m.records++
	if m.dies(beforeRecord, number) {
		return errDead
	}
	m.recorded = append(m.recorded, segment)
	if m.dies(afterRecord, number) {
		return errDead
	}
	return nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// live is one process: it resumes what is recorded.
func (m *mortal) live(t *testing.T, data []byte, o upload.Options) (upload.Result, error) {
	o.Resume, o.Stored = slices.Clone(m.recorded), m.record
	w := upload.NewWriter(t.Context(), m, o)
	if err := frames(w, data, frame); err != nil {
		w.Abort(err)
		return upload.Result{}, err
	}
	return w.Finish()
}

// shape is what must not depend on the deaths.
func shape(result upload.Result) []string {
	all := []string{fmt.Sprint(result.Size, result.SHA256)}
	for i := range result.Segments {
		all = append(all, fmt.Sprint(result.Segments[i].Index, result.Segments[i].Size, result.Segments[i].SHA256))
	}
	return all
}

// complete checks that every object is a claim, a segment or named as abandoned, and each once.
func complete(t *testing.T, memory *worm.Memory, result upload.Result) {
	t.Helper()
	named := map[string]int{}
	for i := range result.Segments {
		named[result.Segments[i].Key]++
	}
	for _, key := range result.Abandoned {
		named[key]++
	}
	for key, count := range named {
		if count != 1 {
			t.Errorf("%s is named %d times", key, count)
		}
	}
	for _, object := range memory.Objects() {
		if !strings.HasSuffix(object.Key, ".claim") && named[object.Key] == 0 {
			t.Errorf("%s is not named", object.Key)
		}
	}
}

func TestWriterResumesAfterDeathAtAnyTwoMoments(t *testing.T) {
	data := random(455)
	undisturbed := store(t, worm.NewMemory(), options(first), data, frame)
	var deaths []death
	for number := range 2 * len(undisturbed.Segments) {
		for moment := range moments {
			if moment < beforeRecord || number < len(undisturbed.Segments) {
				deaths = append(deaths, death{moment, number})
			}
		}
	}
	for _, one := range deaths {
		for _, other := range deaths {
			m := &mortal{Memory: worm.NewMemory(), deaths: []death{one, other}}
			survives(t, m, data, undisturbed)
			if t.Failed() {
				t.Fatalf("deaths %v, then %v", one, other)
			}
		}
	}
}

func survives(t *testing.T, m *mortal, data []byte, undisturbed upload.Result) {
	lives, planned := 1, len(m.deaths)
	result, err := m.live(t, data, options(first))
	for ; errors.Is(err, errDead); lives++ {
		result, err = m.live(t, data, options(first))
	}
	must(t, err)
	if diff := cmp.Diff(shape(undisturbed), shape(result)); diff != "" {
		t.Errorf("result (-undisturbed +resumed):\n%s", diff)
	}
	if diff := cmp.Diff(result.Segments, m.recorded); diff != "" {
		t.Errorf("recorded (-result +recorded):\n%s", diff)
	}
	if !bytes.Equal(fetch(t, m.Memory, result.Segments), data) {
		t.Error("segments do not add up to the stream")
	}
	complete(t, m.Memory, result)
	if repeated := m.sent - int64(len(data)); repeated > int64(lives-1)*first {
		t.Errorf("%d bytes were repeated in %d lives", repeated, lives)
	}
	if lives-1 != planned-len(m.deaths) {
		t.Errorf("%d lives for %d deaths", lives, planned-len(m.deaths))
	}
}

func TestWriterFindsATreeThatChanged(t *testing.T) {
	data := random(455)
	changed := func(at int) []byte {
		other := slices.Clone(data)
		other[at]++
		return other
	}
	for name, test := range map[string]struct {
		data []byte
		want error
	}{
		"the same":                    {data, nil},
		"other bytes at the start":    {changed(0), upload.ErrDiverged},
		"other bytes in the recorded": {changed(250), upload.ErrDiverged},
		"other bytes after it":        {changed(300), nil},
		"shorter than the recorded":   {data[:295], upload.ErrDiverged},
		"empty":                       {nil, upload.ErrDiverged},
		"ends with the recorded":      {data[:300], nil},
		"longer":                      {append(slices.Clone(data), data...), nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mortal{Memory: worm.NewMemory(), deaths: []death{{afterRecord, 2}}}
			if _, err := m.live(t, data, options(first)); !errors.Is(err, errDead) {
				t.Fatal(err)
			}
			result, err := m.live(t, test.data, options(first))
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if err != nil {
				before := m.Objects()
				m.recorded = nil
				result, err = m.live(t, test.data, options(first))
				must(t, err)
				if diff := cmp.Diff(before, m.Objects()[:len(before)]); diff != "" {
					t.Errorf("objects of the first stream changed:\n%s", diff)
				}
				if len(result.Abandoned) != 3 {
					t.Errorf("abandoned %v, want the three segments of the first stream", result.Abandoned)
				}
			}
			if !bytes.Equal(fetch(t, m.Memory, result.Segments), test.data) {
				t.Error("segments do not add up to the stream")
			}
			complete(t, m.Memory, result)
		})
	}
}

func TestWriterResumesAtTheRecordedBoundariesWhateverTheWritesAndSizes(t *testing.T) {
	data := random(455)
	m := &mortal{Memory: worm.NewMemory(), deaths: []death{{afterRecord, 1}}}
	if _, err := m.live(t, data, options(first)); !errors.Is(err, errDead) {
		t.Fatal(err)
	}
	o := options(7 * first)
	o.Resume = m.recorded
	result := store(t, m, o, data, 33)
	if sizes := fmt.Sprint(result.Segments[0].Size, result.Segments[1].Size, len(result.Segments)); sizes != "100 100 3" {
		t.Errorf("sizes and count %s", sizes)
	}
	if !bytes.Equal(fetch(t, m.Memory, result.Segments), data) || result.SHA256 != store(t, worm.NewMemory(), o2(o), data, frame).SHA256 {
		t.Error("segments do not add up to the stream")
	}
}

// o2 is o for a fresh stream.
func o2(o upload.Options) upload.Options {
	o.Resume = nil
	return o
}

func TestWriterNamesAnotherTryAlthoughEverythingWasRecorded(t *testing.T) {
	data, memory := random(200), worm.NewMemory()
	recorded := store(t, memory, options(first), data, frame)
	o := options(first)
	o.Resume = recorded.Segments
	longer := store(t, memory, o, append(slices.Clone(data), 1), frame) // a try whose last segment nobody recorded
	again := store(t, memory, o, data, frame)
	if diff := cmp.Diff([]string{longer.Segments[2].Key}, again.Abandoned); diff != "" {
		t.Errorf("abandoned (-want +got):\n%s", diff)
	}
	complete(t, memory, again)
}

// TestATryThatDidNotSucceedNamesWhatItLeft aborts one segment, and has the store fail at the end of one.
func TestATryThatDidNotSucceedNamesWhatItLeft(t *testing.T) {
	o, data := options(first), random(3*first)
	m := &mortal{Memory: worm.NewMemory()}
	w := upload.NewWriter(t.Context(), m, o)
	must(t, frames(w, data[:2*first+frame], frame))
	w.Abort(errDead)
	if diff := cmp.Diff([]string{o.Folder + "/0", o.Folder + "/1"}, w.Taken()); diff != "" {
		t.Errorf("taken by an aborted try (-want +got):\n%s", diff)
	}
	// Each segment has a claim before it; that of the fourth number, the first free one, is the first put that is granted.
	m.deaths, m.puts = []death{{afterPut, 4}}, 0
	w = upload.NewWriter(t.Context(), m, o)
	if err := frames(w, data, frame); !errors.Is(err, errDead) {
		t.Fatalf("error %v", err)
	}
	w.Abort(errDead)
	var want []string
	for number := range 4 {
		want = append(want, fmt.Sprint(o.Folder, "/", number))
	}
	if diff := cmp.Diff(want, w.Taken()); diff != "" {
		t.Errorf("taken by a try that got no answer (-want +got):\n%s", diff)
	}
}

func TestWriterGoesRoundAKeyThatAStrangerTook(t *testing.T) {
	data := random(455)
	m := &mortal{Memory: worm.NewMemory()}
	stranger, err := m.Memory.Put(t.Context(), options(first).Folder+"/2", strings.NewReader("not evidence"), lock)
	must(t, err)
	if _, err := m.live(t, data, options(first)); !errors.Is(err, worm.ErrExists) {
		t.Fatalf("error %v, want ErrExists", err)
	}
	result, err := m.live(t, data, options(first))
	must(t, err)
	if diff := cmp.Diff([]string{stranger.Key}, result.Abandoned); diff != "" {
		t.Errorf("abandoned (-want +got):\n%s", diff)
	}
	if !bytes.Equal(fetch(t, m.Memory, result.Segments), data) {
		t.Error("segments do not add up to the stream")
	}
	if repeated := m.sent - int64(len(data)); repeated > first {
		t.Errorf("%d bytes were repeated", repeated)
	}
}

// greedy says of every key that it is taken.
type greedy struct{ worm.Putter }

func (greedy) Put(context.Context, string, io.Reader, worm.Lock) (worm.Object, error) {
	return worm.Object{}, worm.ErrExists
}

func TestWriterGivesUpWhenEveryNumberIsTaken(t *testing.T) {
	w := upload.NewWriter(t.Context(), greedy{}, options(first))
	if _, err := w.Write([]byte("x")); !errors.Is(err, upload.ErrUsedUp) {
		t.Errorf("error %v, want ErrUsedUp", err)
	}
}
