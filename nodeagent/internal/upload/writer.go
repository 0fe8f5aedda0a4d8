package upload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"

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

// Writer stores a stream as segments, each locked when it is complete. Either Finish or Abort ends it.
type Writer struct {
	ctx      context.Context
	store    worm.Putter
	folder   string
	lock     worm.Lock
	first    int64
	current  *Object
	segments []v1alpha1.StoredObject
	sum      hash.Hash
	size     int64
}

// Result is a stored stream.
type Result struct {
	Segments []v1alpha1.StoredObject
	Size     int64
	SHA256   string
}

// NewWriter stores into the folder of an attempt. first is the size of the first segment, FirstSegment but in tests.
// ctx bounds the whole upload.
func NewWriter(ctx context.Context, store worm.Putter, attempt Attempt, lock worm.Lock, first int64) *Writer {
	return &Writer{ctx: ctx, store: store, folder: attempt.Folder, lock: lock, first: first, sum: sha256.New()}
}

// Write blocks until the store has taken the bytes. worm.ErrExists means that the store had a segment under this key:
// claim another attempt and start again, nothing was replaced.
func (w *Writer) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		left := w.segmentSize() - w.currentSize()
		if left == 0 {
			if err := w.finishSegment(); err != nil {
				return written, err
			}
			continue
		}
		if w.current == nil {
			w.startSegment()
		}
		n, err := w.current.Write(p[written:min(len(p), written+int(min(left, int64(len(p)))))])
		w.sum.Write(p[written : written+n])
		written += n
		w.size += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Finish completes the last segment. An empty stream is one empty segment.
func (w *Writer) Finish() (Result, error) {
	if w.current == nil && len(w.segments) == 0 {
		w.startSegment()
	}
	if w.current != nil {
		if err := w.finishSegment(); err != nil {
			return Result{}, err
		}
	}
	return Result{Segments: w.segments, Size: w.size, SHA256: hex.EncodeToString(w.sum.Sum(nil))}, nil
}

// Abort gives up the segment that is being stored; complete ones stay locked.
func (w *Writer) Abort(cause error) {
	if w.current != nil {
		w.current.Abort(cause)
		w.current = nil
	}
}

func (w *Writer) startSegment() {
	key := fmt.Sprintf("%s/%d", w.folder, len(w.segments))
	w.current = Start(w.ctx, w.store, key, w.lock)
}

func (w *Writer) finishSegment() error {
	current := w.current
	w.current = nil
	stored, err := current.Finish()
	if err != nil {
		return err
	}
	stored.Index = int32(len(w.segments)) // #nosec G115 -- at most 128
	w.segments = append(w.segments, stored)
	return nil
}

func (w *Writer) currentSize() int64 {
	if w.current == nil {
		return 0
	}
	return w.current.size
}

// segmentSize is where the current segment ends.
func (w *Writer) segmentSize() int64 {
	index := len(w.segments)
	if index == maxSegments-1 {
		return 1<<63 - 1
	}
	return w.first << (index / doubling)
}
