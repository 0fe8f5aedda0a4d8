package policy

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
	// tries at one question about other policies: they are read once, so that a hiccup of the API server would stay on record.
	tries = 3
	// tryWithin bounds one of them, so that one that gets no answer leaves time for the next.
	tryWithin = time.Second
	// pause before the second try, twice as long before the third.
	pause = 100 * time.Millisecond
)

// repeat asks again unless the answer is one, while ctx lasts. The error is that of the last try.
func repeat(ctx context.Context, question func(context.Context) error) error {
	return retry(ctx, func() error { return once(ctx, question) })
}

// retry is repeat for a try that calls once itself, after a wait that is not to take of the time for the answer.
func retry(ctx context.Context, once func() error) error {
	var last error
	for try := 1; ; try++ {
		err := once()
		if err != nil && last != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w, after: %w", err, last)
		}
		if err == nil || try == tries || isAnswer(err) {
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

func once(ctx context.Context, question func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	return question(ctx)
}

// isAnswer says that the same question would be answered by the same error.
func isAnswer(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return meta.IsNoMatchError(err)
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError &&
		code != http.StatusRequestTimeout && code != http.StatusTooManyRequests
}
