package volatile

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxAbandoned is how many threads of the agent may be left waiting in the kernel by one call: each is a stack of the
// kernel and 8 MiB of addresses. After that nothing that could wait is begun.
const maxAbandoned = 16

// briefly is how long a process that kept us waiting once is waited for again, and the shortest that anyone is waited for.
const briefly = 100 * time.Millisecond

// guard bounds how long the kernel is waited for. A pod can serve a filesystem to itself, listen for opens of files, or
// hold the lock of its address space; frozen, it never answers. Such a call cannot be ended from outside: its goroutine is
// left to wait until the pod is thawed or killed, and ends then by itself. It owns everything that it touches.
type guard struct {
	patience  time.Duration
	deadline  time.Time
	abandoned int
}

func newGuard(limits Limits) *guard {
	return &guard{patience: limits.Patience, deadline: time.Now().Add(limits.Duration)}
}

func (g *guard) late() bool { return !time.Now().Before(g.deadline) }

// shared is a descriptor that is closed with its last user, who may be an abandoned goroutine.
type shared struct {
	fd    int
	users atomic.Int32
}

func share(fd int) *shared {
	s := &shared{fd: fd}
	s.users.Store(1)
	return s
}

func (s *shared) hold() { s.users.Add(1) }

func (s *shared) release() {
	if s.users.Add(-1) == 0 {
		_ = unix.Close(s.fd)
	}
}

type outcome[T any] struct {
	value T
	found findings
	err   error
}

// watched runs work in a goroutine of its own and waits no longer than patience for it, less each time: errBlocked. Once maxAbandoned
// threads wait it begins nothing: errNotBegun. Work may use the descriptor on; beside it only what it made itself, what nobody changes, and the findings that it is given.
func watched[T any](ctx context.Context, g *guard, on *shared, patience time.Duration, work func(*findings) (T, error)) (T, findings, error) {
	var none T
	switch {
	case ctx.Err() != nil:
		return none, nil, ctx.Err()
	case g.late():
		return none, nil, errLate
	case g.abandoned >= maxAbandoned:
		return none, nil, errNotBegun
	}
	// All that can be given up cost less than three times the patience, and not sixteen times.
	patience = max(patience>>g.abandoned, min(patience, briefly))
	done := make(chan outcome[T], 1)
	var settled atomic.Bool // by whoever comes first: the work with its outcome, or we who go on without it
	on.hold()
	go func() {
		defer on.release()
		var o outcome[T]
		o.value, o.err = work(&o.found)
		if settled.CompareAndSwap(false, true) {
			done <- o
		} else if unwanted, ok := any(o.value).(releaser); ok && o.err == nil {
			unwanted.release()
		}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	cause := errBlocked
	select {
	case o := <-done:
		return o.value, o.found, o.err
	case <-ctx.Done():
		cause = ctx.Err()
	case <-timer.C:
	}
	if settled.CompareAndSwap(false, true) {
		g.abandoned++
		return none, nil, cause
	}
	o := <-done
	return o.value, o.found, o.err
}

// releaser is an outcome that must be released when nobody waits for it any more.
type releaser interface{ release() }
