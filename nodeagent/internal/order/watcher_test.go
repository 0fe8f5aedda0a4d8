package order

import (
	"context"
	"errors"
	"testing"
)

// broken is a runtime whose stream of events breaks once, then stands and tells of nothing.
type broken struct {
	tasks
	begun  chan struct{}
	breaks chan struct{}
}

func (b *broken) Started(ctx context.Context, _ func(context.Context, string)) error {
	select {
	case b.begun <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	select {
	case <-b.breaks:
		return errors.New("the stream broke")
	case <-ctx.Done():
		return nil
	}
}

func TestContainerThatStartedWhileNobodyWatchedIsLookedFor(t *testing.T) {
	w := newWorld(t)
	w.bothHeld()
	seen := new(looked)
	w.find = seen.find
	guard := w.guard()
	stream := &broken{tasks{podUID}, make(chan struct{}), make(chan struct{})}
	guard.watcher.tasks, guard.watcher.settled = stream, 0
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- guard.watcher.Start(ctx) }()
	each := func(count int) func() bool {
		return func() bool { return seen.count(podUID) >= count && seen.count(anotherPod) >= count }
	}
	<-stream.begun
	eventually(t, "a look at each contained pod when the watch begins", each(1))
	before := max(seen.count(podUID), seen.count(anotherPod))
	close(stream.breaks)
	stream.breaks = nil
	<-stream.begun
	eventually(t, "a look at each contained pod when the watch begins again", each(before+1))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	guard.restores.end()
}
