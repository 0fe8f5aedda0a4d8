package capture

import (
	"context"
	"time"
)

// reserve is what is kept of an order's time for its end, a quarter of what is left at most: half of it for the part that
// is being stored, to complete its segment, index and gaps; the rest to name what is missing and to write the record.
const reserve = time.Minute

// window is how the time of one call is divided. The zero value has no end.
type window struct {
	// ends is when streams end and no part is begun any more, stops when those that are still being stored are given up,
	// found by when what earlier calls stored of the missing ones must be found, named by when these must be named.
	ends, stops, found, named time.Time
}

func newWindow(ctx context.Context) window {
	deadline, ok := ctx.Deadline()
	if !ok {
		return window{}
	}
	kept := min(reserve, time.Until(deadline)/4)
	return window{
		ends: deadline.Add(-kept), stops: deadline.Add(-kept / 2), found: deadline.Add(-kept * 3 / 8), named: deadline.Add(-kept / 4),
	}
}

// over says whether no part is begun any more.
func (w window) over() bool { return !w.ends.IsZero() && !time.Now().Before(w.ends) }

// left is how long a part may take: an artifact that ends before the order does is truncated and says so, one that does
// not is lost. A limit of 0 is none.
func (w window) left(limit time.Duration) time.Duration {
	if w.ends.IsZero() {
		return limit
	}
	left := max(time.Until(w.ends), time.Millisecond)
	if limit == 0 {
		return left
	}
	return min(limit, left)
}

// share is time that some parts have in common, so that they leave some to the others. The zero value has no end.
type share struct {
	limited bool
	left    time.Duration
}

// half is half of the time in which parts may be stored from now on.
func (w window) half() share {
	if w.ends.IsZero() {
		return share{}
	}
	return share{limited: true, left: time.Until(w.ends) / 2}
}

func (s *share) usedUp() bool { return s.limited && s.left <= 0 }

// within is how long one of the parts may take that may take so long for itself.
func (s *share) within(limit time.Duration) time.Duration {
	if !s.limited {
		return limit
	}
	return min(limit, s.left)
}

// spend takes off what passed since a part was begun.
func (s *share) spend(begun time.Time) { s.left -= time.Since(begun) }

// until ends a context at one of the times of a window.
func until(ctx context.Context, at time.Time) (context.Context, context.CancelFunc) {
	if at.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, at)
}

// wait lets a pause pass, or what is left of the time to capture in.
func (w window) wait(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(w.left(pause))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
