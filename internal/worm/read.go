package worm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/minio/minio-go/v7"
)

// Headers in which every S3 server reports the lock of a version to a HEAD.
const (
	headerLockMode  = "X-Amz-Object-Lock-Mode"
	headerLockUntil = "X-Amz-Object-Lock-Retain-Until-Date"
)

// maxListed bounds what a listing holds in memory: whoever may write to a bucket can make any number of keys.
const maxListed = 100_000

// ErrManyKeys is returned by List, with the first keys, where there are more than it holds.
var ErrManyKeys = fmt.Errorf("there are more than %d keys", maxListed)

// Stat returns what the store says of one version.
func (s *S3) Stat(ctx context.Context, key, versionID string) (Object, error) {
	var info minio.ObjectInfo
	err := s.try(ctx, silence, func(ctx context.Context, _ *body) (err error) {
		info, err = s.core.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{VersionID: versionID, Checksum: true})
		return err
	})
	if err != nil {
		return Object{}, fmt.Errorf("stat %s: %w", key, readError(err))
	}
	object := Object{Key: key, VersionID: info.VersionID, Size: info.Size}
	object.Lock.Mode = info.Headers.Get(headerLockMode)
	if until := info.Headers.Get(headerLockUntil); until != "" {
		object.Lock.RetainUntil, err = time.Parse(time.RFC3339, until)
		if err != nil {
			return Object{}, fmt.Errorf("stat %s: parse retain-until: %w", key, err)
		}
		object.Lock.RetainUntil = object.Lock.RetainUntil.UTC()
	}
	return object, nil
}

// Open streams one version; a read fails when the connection ends before the object does.
func (s *S3) Open(ctx context.Context, key, versionID string) (io.ReadCloser, error) {
	return s.get(ctx, key, minio.GetObjectOptions{VersionID: versionID})
}

// OpenRange streams length bytes of one version from offset on, and no more than that whatever the store sends.
func (s *S3) OpenRange(ctx context.Context, key, versionID string, offset, length int64) (io.ReadCloser, error) {
	options := minio.GetObjectOptions{VersionID: versionID}
	if offset < 0 || length <= 0 || offset > math.MaxInt64-length {
		return nil, fmt.Errorf("open %d bytes of %s at %d: no such range", length, key, offset)
	}
	if err := options.SetRange(offset, offset+length-1); err != nil {
		return nil, fmt.Errorf("open %d bytes of %s at %d: %w", length, key, offset, err)
	}
	part, err := s.get(ctx, key, options)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(part, length), part}, nil
}

func (s *S3) get(ctx context.Context, key string, options minio.GetObjectOptions) (io.ReadCloser, error) {
	var stored io.ReadCloser
	err := s.repeat(ctx, func() (err error) {
		stored, _, _, err = s.core.GetObject(ctx, s.bucket, key, options)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, readError(err))
	}
	return stored, nil
}

// List returns the keys that begin with prefix, in order. Where there are more than maxListed it returns the first of them
// together with ErrManyKeys.
func (s *S3) List(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	err := s.repeat(ctx, func() (err error) {
		keys, err = s.list(ctx, prefix)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	slices.Sort(keys)
	if len(keys) > maxListed {
		return keys[:maxListed], fmt.Errorf("list %s: %w", prefix, ErrManyKeys)
	}
	return keys, nil
}

// list ends after one key too many.
func (s *S3) list(ctx context.Context, prefix string) ([]string, error) {
	ctx, stop := context.WithCancel(ctx) // ends the listing where it is left
	defer stop()
	var keys []string
	for object := range s.core.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if object.Err != nil {
			return nil, object.Err
		}
		if keys = append(keys, object.Key); len(keys) > maxListed {
			break
		}
	}
	return keys, nil
}

// readError names ErrNotFound where the store says so. A delete marker answers 405 to a read of its version.
func readError(err error) error {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) || errors.Is(err, ErrNoBucket) {
		return err
	}
	if answer.Code == minio.NoSuchVersion || answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusMethodNotAllowed {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
