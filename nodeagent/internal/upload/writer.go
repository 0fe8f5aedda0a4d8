package upload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math"
	"slices"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

const (
	// FirstSegment is the size of the first segments.
	FirstSegment = 1 << 30
	// maxSegments is what an artifact's status can name.
	maxSegments = 128
	// doubling: after so many segments the size doubles, so that 128 of them hold 4,080 times the first, 4 TiB. The
	// last one takes whatever comes.
	doubling = 16
)

// errEnded is what a writer says that was aborted or finished.
var errEnded = errors.New("the upload has ended")

// Options of one stream.
type Options struct {
	// Folder of the objects, without trailing slash. It belongs to this one stream for ever.
	Folder string
	Lock   worm.Lock
	// First is the size after which the first segments end; 0 is FirstSegment, and math.MaxInt64 makes one segment.
	First int64
	// Resume are the segments that are recorded of the stream, from the first.
	Resume []v1alpha1.StoredObject
	// Stored is called after each segment is locked and before the next one begins. The caller persists it: what is not
	// persisted is stored again after a crash. May be nil.
	Stored func(v1alpha1.StoredObject) error
	// Seal makes an encrypted file of its own of each segment. May be nil.
	Seal Seal
	// Claims are shared by the writers that follow one another in a folder, those of one Bucket. May be nil.
	Claims *Claims
	Bucket string
}

// Writer stores a stream as segments, each locked when it is complete. Either Finish or Abort ends it.
type Writer struct {
	ctx      context.Context
	store    worm.Putter
	options  Options
	numbers  numbers
	replay   *replay
	current  *sending
	aborted  string
	segments []v1alpha1.StoredObject
	sent     bool
	sum      hash.Hash
	size     int64
	err      error
}

// Result is a stored stream.
type Result struct {
	Segments []v1alpha1.StoredObject
	// Size and SHA256 of the stream, before any sealing.
	Size   int64
	SHA256 string
	// Abandoned are keys in the folder that earlier tries, or a stranger, took and that are no segment's. Each may hold a
	// locked object.
	Abandoned []string
}

// NewWriter stores into a folder. It does not connect; ctx bounds the whole upload.
func NewWriter(ctx context.Context, store worm.Putter, options Options) *Writer {
	if options.First == 0 {
		options.First = FirstSegment
	}
	if options.Claims == nil {
		options.Claims = new(Claims)
	}
	w := &Writer{
		ctx: ctx, store: store, options: options, segments: slices.Clone(options.Resume), sum: sha256.New(),
		numbers: numbers{
			store: store, folder: options.Folder, lock: options.Lock, claims: options.Claims, bucket: options.Bucket,
			kept: map[int]bool{},
		},
	}
	for i := range w.segments {
		w.numbers.keep(w.segments[i].Key)
	}
	w.replay, w.err = newReplay(options.Resume)
	return w
}

// Write blocks until the store has taken the bytes. After ErrDiverged see there; after any other error,
// of which those of worm tell whether to wait or to call for a person, give the segments that were Stored as Resume to
// another writer. This one repeats the error.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	var n int
	n, w.err = w.write(p)
	w.sum.Write(p[:n])
	w.size += int64(n)
	return n, w.err
}

func (w *Writer) write(p []byte) (int, error) {
	recorded, err := w.replay.take(p)
	if err != nil || recorded == len(p) {
		return recorded, err
	}
	if w.current == nil {
		if err := w.startSegment(); err != nil {
			return recorded, err
		}
	}
	n, err := w.current.Write(p[recorded:])
	if err == nil && w.current.size >= w.segmentSize() {
		err = w.finishSegment()
	}
	return recorded + n, err
}

// Finish completes the last segment. An empty stream is one empty segment.
func (w *Writer) Finish() (Result, error) {
	if w.err == nil {
		w.err = w.finish()
	}
	if w.err != nil {
		w.Abort(w.err)
		return Result{}, w.err
	}
	w.err = errEnded
	return Result{
		Segments: w.segments, Size: w.size, SHA256: hex.EncodeToString(w.sum.Sum(nil)), Abandoned: w.numbers.abandoned(),
	}, nil
}

// Abandoned are the keys as in Result that are known by now: all of them, once the last segment was begun.
func (w *Writer) Abandoned() []string {
	return slices.DeleteFunc(w.numbers.abandoned(), func(key string) bool { return w.current != nil && key == w.current.object.key })
}

// Taken are the keys in the folder that are known to be taken by now and may hold a locked object: those of segments, of other
// tries, and of this one but for a segment that was aborted, of which the store never had the end.
func (w *Writer) Taken() []string {
	return slices.DeleteFunc(w.numbers.taken(), func(key string) bool { return key == w.aborted })
}

// Look finds the keys in the folder that earlier tries, or a stranger, took: Taken then has them all. It is for a writer that
// is given nothing to write, and stores nothing but a claim.
func (w *Writer) Look() error {
	err := w.numbers.look(w.ctx, len(w.segments))
	if errors.Is(err, ErrUsedUp) {
		return nil
	}
	return err
}

func (w *Writer) finish() error {
	if err := w.replay.end(); err != nil {
		return err
	}
	if len(w.segments) == 0 && w.current == nil {
		if err := w.startSegment(); err != nil {
			return err
		}
	}
	if w.current != nil {
		return w.finishSegment()
	}
	if !w.sent {
		// Everything was recorded. There may be numbers above the recorded ones that another try took.
		return w.numbers.look(w.ctx, len(w.segments))
	}
	return nil
}

// Abort gives up the segment that is being stored; complete ones stay locked.
func (w *Writer) Abort(cause error) {
	if w.err == nil {
		w.err = errors.Join(errEnded, cause)
	}
	if w.current != nil {
		w.current.object.abort(cause)
		if !errors.Is(w.err, worm.ErrExists) {
			w.aborted = w.current.object.key
			w.numbers.free(len(w.segments))
		}
		w.current = nil
	}
}

func (w *Writer) startSegment() error {
	key, err := w.numbers.claim(w.ctx, len(w.segments))
	if err != nil {
		return err
	}
	w.sent = true
	w.current, err = w.options.startSegment(w.ctx, w.store, key)
	return err
}

func (w *Writer) finishSegment() error {
	current := w.current
	w.current = nil
	segment, err := current.finish(len(w.segments))
	if err != nil {
		if refused(err) {
			w.numbers.free(len(w.segments))
		}
		return err
	}
	w.segments = append(w.segments, segment)
	w.numbers.keep(segment.Key)
	if w.options.Stored == nil {
		return nil
	}
	if err := w.options.Stored(segment); err != nil {
		return fmt.Errorf("record segment %s: %w", segment.Key, err)
	}
	return nil
}

// segmentSize is after how many bytes the current segment ends.
func (w *Writer) segmentSize() int64 {
	index := len(w.segments)
	shift := index / doubling
	if index == maxSegments-1 || w.options.First > math.MaxInt64>>shift {
		return math.MaxInt64
	}
	return w.options.First << shift
}
