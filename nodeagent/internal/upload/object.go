package upload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// ErrMismatch is returned by Writer.Finish when the store took other bytes than were written.
var ErrMismatch = errors.New("the store took other bytes than were sent")

// StoreError is an error of the store, or of the way to it, and not of what was to be stored.
type StoreError struct {
	// What was asked of it.
	What  string
	Cause error
}

func (e StoreError) Error() string { return e.What + ": " + e.Cause.Error() }

// Unwrap returns the cause.
func (e StoreError) Unwrap() error { return e.Cause }

// object is one object that is being stored. Either finish or abort ends it.
type object struct {
	key  string
	pipe *io.PipeWriter
	sum  hash.Hash
	size int64
	done chan outcome
}

type outcome struct {
	stored worm.Object
	err    error
}

// start begins to store an object under key. Nothing of it is kept here: Write blocks until the store has taken the
// bytes.
func start(ctx context.Context, store worm.Putter, key string, lock worm.Lock) *object {
	reader, writer := io.Pipe()
	o := &object{key: key, pipe: writer, sum: sha256.New(), done: make(chan outcome, 1)}
	go func() {
		stored, err := store.Put(ctx, key, reader, lock)
		if err != nil {
			err = StoreError{"put " + key, err}
		}
		// A writer that still waits for the store gets its error; after success there is none.
		reader.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		o.done <- outcome{stored, err}
	}()
	return o
}

// Write gives bytes to the store. It returns the store's error once there is one.
func (o *object) Write(p []byte) (int, error) {
	n, err := o.pipe.Write(p)
	o.sum.Write(p[:n])
	o.size += int64(n)
	return n, err
}

// finish completes the object, waits for its lock and compares what the store's client counted with what was written.
func (o *object) finish() (v1alpha1.StoredObject, error) {
	closed := o.pipe.Close()
	result := <-o.done
	if err := errors.Join(closed, result.err); err != nil {
		return v1alpha1.StoredObject{}, err
	}
	sum := hex.EncodeToString(o.sum.Sum(nil))
	if result.stored.Size != o.size || result.stored.SHA256 != sum {
		return v1alpha1.StoredObject{}, fmt.Errorf("put %s: %w: %d bytes with sha256 %s, sent %d with %s",
			o.key, ErrMismatch, result.stored.Size, result.stored.SHA256, o.size, sum)
	}
	return v1alpha1.StoredObject{
		Key:         o.key,
		VersionID:   result.stored.VersionID,
		SHA256:      sum,
		Size:        o.size,
		RetainUntil: metav1.NewTime(result.stored.Lock.RetainUntil),
	}, nil
}

// abort gives the object up because of cause and waits until the store has let go of it.
func (o *object) abort(cause error) {
	o.pipe.CloseWithError(cause) // #nosec G104 -- documented to return nil always
	<-o.done
}
