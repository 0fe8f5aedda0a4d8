package worm

import (
	"context"
	"io"
	"time"
)

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
	// Put stores body under key, locked, only if the key is free (ErrExists otherwise). It streams, and reads the body
	// once. On error nothing readable is left under the key, except that a lost connection can leave a complete object
	// whose answer was never heard: the repeated request, or a second Put, then returns ErrExists. The other errors are
	// ErrUnavailable, those of NeedsOperator, ErrAltered, and what the body or the context returned.
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
