package worm

import (
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

// abortTimeout bounds the clean-up after a failed upload, which runs although the caller's context has ended.
const abortTimeout = 10 * time.Second

// Put stores body under key, locked, if the key is free. The condition is decided when the last byte has been sent.
// Parts are kept until the store has taken them, two at most, so that a request can be repeated though a body cannot.
func (s *S3) Put(ctx context.Context, key string, body io.Reader, lock Lock) (Object, error) {
	lock, err := lock.normalize(time.Now())
	if err != nil {
		return Object{}, fmt.Errorf("put %s: %w", key, err)
	}
	whole := sha256.New()
	stream := &countingReader{source: io.TeeReader(body, whole)}
	first, err := s.buffers.readFirst(stream)
	last := errors.Is(err, io.EOF)
	if err != nil && !last {
		return Object{}, fmt.Errorf("put %s: read body: %w", key, err)
	}
	var info minio.UploadInfo
	if last {
		info, err = s.putWhole(ctx, key, first, lock)
		s.buffers.giveBack(first)
	} else {
		info, err = s.putParts(ctx, &upload{key: key, part: first, rest: stream, lock: lock})
	}
	if err != nil {
		return Object{}, fmt.Errorf("put %s: %w", key, err)
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

func (s *S3) putWhole(ctx context.Context, key string, data []byte, lock Lock) (info minio.UploadInfo, err error) {
	sum := sha256.Sum256(data)
	options := s.options(lock)
	options.UserMetadata = map[string]string{minio.ChecksumSHA256.Key(): base64.StdEncoding.EncodeToString(sum[:])}
	options.SetMatchETagExcept("*")
	err = s.try(ctx, silence, func(ctx context.Context, body *body) (err error) {
		info, err = s.core.PutObject(ctx, s.bucket, key, body.of(data), int64(len(data)), "", hex.EncodeToString(sum[:]), options)
		return err
	})
	return info, err
}

func (s *S3) options(lock Lock) minio.PutObjectOptions {
	return minio.PutObjectOptions{
		Mode: minio.RetentionMode(lock.Mode), RetainUntilDate: lock.RetainUntil, ServerSideEncryption: s.encryption,
	}
}

// upload is a multipart upload in progress.
type upload struct {
	key  string
	id   string
	part []byte // the part to send next
	rest io.Reader
	lock Lock
	sums checksums
	done []minio.CompletePart
}

func (s *S3) putParts(ctx context.Context, u *upload) (minio.UploadInfo, error) {
	if err := s.startUpload(ctx, u); err != nil {
		return minio.UploadInfo{}, fmt.Errorf("start upload: %w", err)
	}
	if err := s.sendParts(ctx, u); err != nil {
		return minio.UploadInfo{}, s.abort(ctx, u, err)
	}
	condition := minio.PutObjectOptions{UserMetadata: u.sums.whole()}
	condition.SetMatchETagExcept("*")
	var info minio.UploadInfo
	tries := 0
	err := s.try(ctx, silenceOfComplete, func(ctx context.Context, _ *body) (err error) {
		tries++
		info, err = s.core.CompleteMultipartUpload(ctx, s.bucket, u.key, u.id, u.done, condition)
		return err
	})
	if err != nil {
		return minio.UploadInfo{}, s.abort(ctx, u, fmt.Errorf("complete upload: %w", err))
	}
	if info.VersionID == "" && tries > 1 {
		// The first answer was lost. versitygw says yes once more, but not to which version.
		return minio.UploadInfo{}, fmt.Errorf("complete upload: %w", errForgotten)
	}
	return info, u.sums.check(info)
}

// startUpload asks for a checksum of the whole, and for one of each part alone where the store has none of the whole.
func (s *S3) startUpload(ctx context.Context, u *upload) (err error) {
	if !s.noCRC64.Load() {
		u.sums = newCRC64()
		if err = s.newUpload(ctx, u); !refusesChecksum(err) {
			return err
		}
	}
	u.sums = partSums{}
	if second := s.newUpload(ctx, u); second != nil {
		return second
	}
	s.noCRC64.Store(true)
	return nil
}

func (s *S3) newUpload(ctx context.Context, u *upload) error {
	options := s.options(u.lock)
	options.UserMetadata = u.sums.announce()
	return s.try(ctx, silence, func(ctx context.Context, _ *body) (err error) {
		u.id, err = s.core.NewMultipartUpload(ctx, s.bucket, u.key, options)
		return err
	})
}

// sendParts sends one part while the next one is read, if the upload is long and no other one does so: of the streams
// that are sent at the same time most are short, and each second buffer costs memory.
func (s *S3) sendParts(ctx context.Context, u *upload) error {
	var spare []byte
	ahead := false
	defer func() {
		if ahead {
			s.ahead.Unlock()
		}
		s.buffers.giveBack(spare)
		s.buffers.giveBack(u.part)
	}()
	for number := 1; len(u.part) > 0; number++ {
		if number > maxParts {
			return fmt.Errorf("body is longer than %d parts hold", maxParts)
		}
		size := partSize(number + 1)
		var next *filling
		if ahead = ahead || (number >= firstParts && s.ahead.TryLock()); ahead {
			next = s.buffers.fillNext(u.rest, spare, size)
		}
		sent := s.sendPart(ctx, u, number)
		if next == nil && sent == nil {
			next, u.part = s.buffers.fillNext(u.rest, u.part, size), nil
		}
		var err error
		if next != nil {
			spare = u.part
			u.part, err = next.wait()
		}
		if sent != nil {
			return fmt.Errorf("send part %d: %w", number, sent)
		}
		if err != nil {
			return fmt.Errorf("read body: %w", err)
		}
	}
	return nil
}

func (s *S3) sendPart(ctx context.Context, u *upload, number int) error {
	sum := sha256.Sum256(u.part)
	header, done := u.sums.part(u.part, sum)
	var sent minio.ObjectPart
	err := s.try(ctx, silence, func(ctx context.Context, body *body) (err error) {
		sent, err = s.core.PutObjectPart(ctx, s.bucket, u.key, u.id, number, body.of(u.part), int64(len(u.part)),
			minio.PutObjectPartOptions{Sha256Hex: hex.EncodeToString(sum[:]), CustomHeader: header})
		return err
	})
	if err != nil {
		return err
	}
	done.PartNumber, done.ETag = number, sent.ETag
	u.done = append(u.done, done)
	return nil
}

// abort gives back what the store holds of an unfinished upload, and returns why it is unfinished.
func (s *S3) abort(ctx context.Context, u *upload, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	err := s.try(ctx, silence, func(ctx context.Context, _ *body) error {
		return s.core.AbortMultipartUpload(ctx, s.bucket, u.key, u.id)
	})
	var answer minio.ErrorResponse
	if err == nil || (errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound) {
		return cause
	}
	// Wrapped is the cause alone: it says what to do.
	return fmt.Errorf("%w; abort upload: %s", cause, err.Error())
}
