package worm

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrExists is returned by Put when the key is taken: nothing was stored and nothing was replaced.
var ErrExists = errors.New("key exists")

// ErrNotFound is returned by Stat and Open when the store has no such key or version.
var ErrNotFound = errors.New("object not found")

// ErrNotLocked is returned by Put when the store kept the object without the lock that was asked for.
var ErrNotLocked = errors.New("object is not locked")

// Lock is how long, and how firmly, the store refuses to delete a version.
type Lock struct {
	// Mode is COMPLIANCE or GOVERNANCE.
	Mode string
	// RetainUntil is kept to the second, in UTC.
	RetainUntil time.Time
}

// Object is one stored version.
type Object struct {
	Key       string
	VersionID string
	Size      int64
	// SHA256 is lower-case hex over the bytes, computed by the caller's side of the connection.
	// Stat leaves it empty: a store's word on a digest is not an observation.
	SHA256 string
	Lock   Lock
}

// Putter stores objects. A node agent has nothing more.
type Putter interface {
	// Put stores body under key, locked, only if the key is free (ErrExists otherwise). It streams: memory use does
	// not grow with the body. On error nothing readable is left under the key, except that a lost connection can
	// leave a complete object whose answer was never heard; a second Put then returns ErrExists.
	Put(ctx context.Context, key string, body io.Reader, lock Lock) (Object, error)
}

// Reader reads back.
type Reader interface {
	// Stat returns what the store says of one version, or of the newest when versionID is empty.
	Stat(ctx context.Context, key, versionID string) (Object, error)
	// Open streams one version, or the newest when versionID is empty. The caller closes it.
	Open(ctx context.Context, key, versionID string) (io.ReadCloser, error)
}

// Store puts and reads.
type Store interface {
	Putter
	Reader
}
