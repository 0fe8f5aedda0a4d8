package repeat

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
)

const (
	// Tries at one question: what is asked is read once, so that a hiccup of the API server would stay on record.
	Tries = 3
	// pause before the second try, twice as long before the third.
	pause = 100 * time.Millisecond
)

// While tries again, as long as ctx lasts and goOn says so, unless the error is an answer. The error is that of the last
// try, and where ctx has ended also of the one before it.
func While(ctx context.Context, goOn func() bool, once func() error) error {
	var last error
	for try := 1; ; try++ {
		err := once()
		if err != nil && last != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w, after: %w", err, last)
		}
		if err == nil || try == Tries || isAnswer(err) || !goOn() {
			return err
		}
		last = err
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try) * pause):
		}
	}
}

// isAnswer says that the same question would be answered by the same error. Who asks is not known to an API server that
// cannot look the account up at the moment.
func isAnswer(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return meta.IsNoMatchError(err)
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError &&
		code != http.StatusUnauthorized && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests
}
