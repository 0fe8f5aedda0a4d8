package worm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"
)

var (
	// ErrExists is returned by Put when the key is taken: nothing was stored and nothing was replaced.
	ErrExists = errors.New("key exists")
	// ErrNotFound is returned by Stat and Open when the store has no such key or version.
	ErrNotFound = errors.New("object not found")
	// ErrNotLocked is returned by Put when the bucket has no Object Lock, or the store kept no lock.
	ErrNotLocked = errors.New("object is not locked")
	// ErrAltered is returned by Put when the store says that it keeps other bytes than were sent.
	ErrAltered = errors.New("store keeps other bytes than were sent")
	// ErrFull means that the store has no room. It ends when somebody makes room.
	ErrFull = errors.New("store is full")
	// ErrDenied means that the store refuses the credential. It ends when somebody changes the credential or its policy.
	ErrDenied = errors.New("store denies access")
	// ErrNoBucket means that the store has no bucket of the configured name.
	ErrNoBucket = errors.New("store has no such bucket")
	// ErrUnavailable means that the store did not answer, or answered that it cannot now, for as long as Config.Patience
	// allows: 5xx, 429, timeouts, lost connections. It may pass by itself.
	ErrUnavailable = errors.New("store is unavailable")
)

var (
	// errSilent ends a request that makes no progress.
	errSilent = errors.New("no progress")
	// errForgotten: the store completed or gave up the upload before; asking again does not help, another Put may.
	errForgotten = fmt.Errorf("%w: it does not know the upload any more", ErrUnavailable)
)

// NeedsOperator says that a person must act on the store or its configuration before another try can succeed.
func NeedsOperator(err error) bool {
	for _, target := range []error{ErrFull, ErrDenied, ErrNoBucket, ErrNotLocked} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// classify names what an answer, or the lack of one, means. Of a caller's own context nothing is said.
func classify(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return classifyTransport(err)
	}
	if meaning := meaningOf(answer); meaning != nil {
		return fmt.Errorf("%w (%s, status %d): %w", meaning, answer.Code, answer.StatusCode, err)
	}
	return err
}

func meaningOf(answer minio.ErrorResponse) error {
	switch {
	case answer.StatusCode == http.StatusPreconditionFailed:
		return ErrExists
	case isFull(answer):
		return ErrFull
	case answer.Code == "NoSuchBucket":
		return ErrNoBucket
	case isNotLocked(answer):
		return ErrNotLocked
	case isDenied(answer):
		return ErrDenied
	case answer.Code == "NoSuchUpload":
		return errForgotten
	case isUnavailable(answer):
		return ErrUnavailable
	}
	return nil
}

// classifyTransport tells a server that cannot be trusted, which no waiting changes, from one that cannot be reached.
func classifyTransport(err error) error {
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) || errors.Is(err, http.ErrSchemeMismatch) {
		return err
	}
	// The inner error may be the cancellation of the request alone, which the caller must not take for its own.
	return fmt.Errorf("%w: %s", ErrUnavailable, err.Error())
}

// isFull: MinIO and versitygw say 507. Quotas have codes of their own under 400 and 403.
func isFull(answer minio.ErrorResponse) bool {
	return answer.StatusCode == http.StatusInsufficientStorage || strings.HasSuffix(answer.Code, "QuotaExceeded")
}

// isNotLocked: servers agree on the code and write the name of the missing configuration with spaces or without.
func isNotLocked(answer minio.ErrorResponse) bool {
	message := strings.ToLower(strings.ReplaceAll(answer.Message, " ", ""))
	return answer.Code == "InvalidRequest" && strings.Contains(message, "missingobjectlockconfiguration")
}

func isDenied(answer minio.ErrorResponse) bool {
	if answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden {
		return true
	}
	return answer.Code == "ExpiredToken" || answer.Code == "InvalidToken"
}

func isUnavailable(answer minio.ErrorResponse) bool {
	switch answer.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented:
		return false
	}
	return answer.StatusCode >= http.StatusInternalServerError || answer.Code == "RequestTimeout"
}
