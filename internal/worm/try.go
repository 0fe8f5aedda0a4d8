package worm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
)

const (
	// minTries of one request, however short the patience: a connection that the server had closed is no outage.
	minTries = 3
	// firstWait before the second try; it doubles up to maxWait. Half of a wait is random.
	firstWait = 200 * time.Millisecond
	maxWait   = 10 * time.Second
	// silence is how long a request may make no progress.
	silence = time.Minute
	// silenceOfComplete: a store may copy all parts before it answers.
	silenceOfComplete = 15 * time.Minute
	// chunk is how much of a body is taken from the bandwidth at once.
	chunk = 32 << 10
)

// try sends one request until it succeeds, is refused, or the patience has ended. send must be repeatable.
func (s *S3) try(ctx context.Context, silent time.Duration, send func(context.Context, *body) error) error {
	return s.repeat(ctx, func() error { return s.once(ctx, silent, send) })
}

func (s *S3) repeat(ctx context.Context, send func() error) error {
	began := time.Now()
	for tries := 1; ; tries++ {
		err := classify(ctx, send())
		if !errors.Is(err, ErrUnavailable) || errors.Is(err, errForgotten) {
			return err
		}
		if tries >= minTries && time.Since(began) >= s.patience {
			return err
		}
		if err := wait(ctx, tries); err != nil {
			return err
		}
	}
}

// once gives up when nothing moved for the time of silent.
func (s *S3) once(ctx context.Context, silent time.Duration, send func(context.Context, *body) error) error {
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(silent, func() { cancel(errSilent) })
	defer timer.Stop()
	err := send(within, &body{ctx: within, bandwidth: s.bandwidth, progress: func() { timer.Reset(silent) }})
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(within), errSilent) {
		return errSilent
	}
	return err
}

func wait(ctx context.Context, tries int) error {
	wait := min(maxWait, firstWait<<min(tries-1, 10))
	wait = wait/2 + rand.N(wait/2) // #nosec G404 -- spreads load, protects nothing
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

// body reads the bytes of one request, no faster than the bandwidth allows.
type body struct {
	ctx       context.Context
	bandwidth *rate.Limiter
	progress  func()
	source    *bytes.Reader
}

func (b *body) of(data []byte) io.Reader {
	b.source = bytes.NewReader(data)
	return b
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err // the transport may read on after the request has ended
	}
	b.progress()
	if b.bandwidth == nil {
		return b.source.Read(p)
	}
	n, err := b.source.Read(p[:min(len(p), chunk, max(1, b.bandwidth.Burst()))])
	if err != nil {
		return n, err
	}
	if err := b.bandwidth.WaitN(b.ctx, n); err != nil {
		return 0, err
	}
	b.progress()
	return n, nil
}
