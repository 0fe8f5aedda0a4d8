package policy

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// tries at one question about other policies: they are read once, so that a hiccup of the API server would stay on record.
	tries = 3
	// pause before the second try, twice as long before the third.
	pause = 100 * time.Millisecond
)

// repeat asks again unless the answer is one, while ctx lasts. The error is that of the last try.
func repeat(ctx context.Context, question func() error) error {
	for try := 1; ; try++ {
		err := question()
		if err == nil || try == tries || isGone(err) || expired(err) || apierrors.IsForbidden(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try) * pause):
		}
	}
}
