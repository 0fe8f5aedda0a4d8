package worm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// smallBody is stored by one request out of one small buffer: manifests and bundles.
	smallBody = 64 << 10
	// firstPartSize of a multipart upload; memory use is one part.
	firstPartSize = 16 << 20
	// partsPerSize is after how many parts the size doubles, up to maxPartSize: 1,000 × 496 MiB + 5,000 × 512 MiB
	// is about 2.9 TiB within the 10,000 parts that S3 allows, and the first 16 GiB cost 16 MiB of memory.
	partsPerSize = 1000
	maxPartSize  = 512 << 20
	maxParts     = 10000
	// abortTimeout bounds the clean-up after a failed upload, which runs although the caller's context has ended.
	abortTimeout = 10 * time.Second
)

const headerChecksum = "x-amz-checksum-sha256"

// Put stores body under key, locked, if the key is free. The condition is decided when the last byte has been sent.
func (s *S3) Put(ctx context.Context, key string, body io.Reader, lock Lock) (Object, error) {
	lock, err := lock.normalize(time.Now())
	if err != nil {
		return Object{}, fmt.Errorf("put %s: %w", key, err)
	}
	whole := sha256.New()
	stream := &countingReader{source: io.TeeReader(body, whole)}
	first, err := readFirst(stream)
	last := errors.Is(err, io.EOF)
	if err != nil && !last {
		return Object{}, fmt.Errorf("put %s: read body: %w", key, err)
	}
	var info minio.UploadInfo
	if last {
		info, err = s.putWhole(ctx, key, first, lock)
	} else {
		info, err = s.putParts(ctx, &upload{key: key, part: first, rest: stream, lock: lock})
	}
	if err != nil {
		return Object{}, fmt.Errorf("put %s: %w", key, putError(err))
	}
	if info.VersionID == "" {
		// Object Lock needs versioning: a store that made no version has kept no lock.
		return Object{}, fmt.Errorf("put %s: store returned no version: %w", key, ErrNotLocked)
	}
	return newObject(key, info.VersionID, stream.count, whole, lock), nil
}

func newObject(key, versionID string, size int64, digest hash.Hash, lock Lock) Object {
	return Object{Key: key, VersionID: versionID, Size: size, SHA256: hex.EncodeToString(digest.Sum(nil)), Lock: lock}
}

func (s *S3) putWhole(ctx context.Context, key string, data []byte, lock Lock) (minio.UploadInfo, error) {
	sum := sha256.Sum256(data)
	options := lockOptions(lock)
	options.UserMetadata = map[string]string{headerChecksum: base64.StdEncoding.EncodeToString(sum[:])}
	options.SetMatchETagExcept("*")
	return s.core.PutObject(ctx, s.bucket, key, bytes.NewReader(data), int64(len(data)), "",
		hex.EncodeToString(sum[:]), options)
}

// upload is a multipart upload in progress.
type upload struct {
	key  string
	id   string
	part []byte // the part to send next
	rest io.Reader
	lock Lock
}

func (s *S3) putParts(ctx context.Context, u *upload) (minio.UploadInfo, error) {
	options := lockOptions(u.lock)
	options.UserMetadata = map[string]string{"x-amz-checksum-algorithm": "SHA256"}
	id, err := s.core.NewMultipartUpload(ctx, s.bucket, u.key, options)
	if err != nil {
		return minio.UploadInfo{}, fmt.Errorf("start upload: %w", err)
	}
	u.id = id
	parts, err := s.sendParts(ctx, u)
	if err != nil {
		return minio.UploadInfo{}, s.abort(ctx, u, err)
	}
	var condition minio.PutObjectOptions
	condition.SetMatchETagExcept("*")
	info, err := s.core.CompleteMultipartUpload(ctx, s.bucket, u.key, u.id, parts, condition)
	if err != nil {
		return minio.UploadInfo{}, s.abort(ctx, u, fmt.Errorf("complete upload: %w", err))
	}
	return info, nil
}

func (s *S3) sendParts(ctx context.Context, u *upload) ([]minio.CompletePart, error) {
	var parts []minio.CompletePart
	for number := 1; len(u.part) > 0; number++ {
		if number > maxParts {
			return nil, fmt.Errorf("body is longer than %d parts hold", maxParts)
		}
		part, err := s.sendPart(ctx, u, number)
		if err != nil {
			return nil, fmt.Errorf("send part %d: %w", number, err)
		}
		parts = append(parts, part)
		if u.part, err = nextPart(u.rest, u.part, partSize(number+1)); err != nil {
			return nil, fmt.Errorf("read body: %w", err)
		}
	}
	return parts, nil
}

func (s *S3) sendPart(ctx context.Context, u *upload, number int) (minio.CompletePart, error) {
	sum := sha256.Sum256(u.part)
	checksum := base64.StdEncoding.EncodeToString(sum[:])
	sent, err := s.core.PutObjectPart(ctx, s.bucket, u.key, u.id, number, bytes.NewReader(u.part), int64(len(u.part)),
		minio.PutObjectPartOptions{
			Sha256Hex:    hex.EncodeToString(sum[:]),
			CustomHeader: http.Header{http.CanonicalHeaderKey(headerChecksum): []string{checksum}},
		})
	if err != nil {
		return minio.CompletePart{}, err
	}
	return minio.CompletePart{PartNumber: number, ETag: sent.ETag, ChecksumSHA256: checksum}, nil
}

// abort gives back what the store holds of an unfinished upload, and returns why it is unfinished.
func (s *S3) abort(ctx context.Context, u *upload, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	err := s.core.AbortMultipartUpload(ctx, s.bucket, u.key, u.id)
	if err != nil && minio.ToErrorResponse(err).StatusCode != http.StatusNotFound {
		return errors.Join(cause, fmt.Errorf("abort upload: %w", err))
	}
	return cause
}

func lockOptions(lock Lock) minio.PutObjectOptions {
	return minio.PutObjectOptions{Mode: minio.RetentionMode(lock.Mode), RetainUntilDate: lock.RetainUntil}
}

// putError names ErrExists where the store refused the condition.
func putError(err error) error {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) && answer.StatusCode == http.StatusPreconditionFailed {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

// partSize of the part with this number, from 1.
func partSize(number int) int {
	size := firstPartSize
	for range (number - 1) / partsPerSize {
		if size == maxPartSize {
			break
		}
		size *= 2
	}
	return size
}

// readFirst returns the first part, with io.EOF when the body ended within it.
func readFirst(body io.Reader) ([]byte, error) {
	small := make([]byte, smallBody)
	n, err := fill(small, body)
	if err != nil {
		return small[:n], err
	}
	part := make([]byte, firstPartSize)
	copy(part, small)
	m, err := fill(part[n:], body)
	return part[:n+m], err
}

// nextPart fills the buffer of the part before, or a larger one; it is empty when the body has ended.
func nextPart(body io.Reader, buffer []byte, size int) ([]byte, error) {
	if cap(buffer) < size {
		buffer = make([]byte, size)
	}
	n, err := fill(buffer[:size], body)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buffer[:n], nil
}

// fill reads until the buffer is full. Unlike io.ReadFull it keeps a body's own io.ErrUnexpectedEOF apart from the
// body's end, so that a torn stream is never stored as a whole one.
func fill(buffer []byte, body io.Reader) (int, error) {
	n := 0
	for n < len(buffer) {
		m, err := body.Read(buffer[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

type countingReader struct {
	source io.Reader
	count  int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.source.Read(p)
	r.count += int64(n)
	return n, err
}
