package order

import (
	"context"
	"errors"
	"testing"
	"time"
)

// broken is a runtime whose stream of events breaks at each signal, and tells of nothing.
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

// watching runs a watch on two contained pods, which is taken to stand so long after it began.
func watching(t *testing.T, settled time.Duration) (stream *broken, looks func() int) {
	t.Helper()
	w := newWorld(t)
	w.bothHeld()
	seen := new(looked)
	w.find = seen.find
	guard := w.guard()
	stream = &broken{tasks{podUID}, make(chan struct{}), make(chan struct{}, 1)}
	guard.watcher.tasks, guard.watcher.settled = stream, settled
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- guard.watcher.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		guard.restores.end()
	})
	return stream, func() int { return min(seen.count(podUID), seen.count(anotherPod)) }
}

func TestContainerThatStartedWhileNobodyWatchedIsLookedFor(t *testing.T) {
	stream, looks := watching(t, time.Hour)
	for breaks := 1; breaks <= 2; breaks++ {
		<-stream.begun
		stream.breaks <- struct{}{}
		eventually(t, "a look at each contained pod when the watch begins again", func() bool { return looks() == breaks })
	}
}

func TestContainerThatStartedBeforeTheWatchStoodIsLookedFor(t *testing.T) {
	stream, looks := watching(t, 50*time.Millisecond)
	<-stream.begun
	eventually(t, "a look at each contained pod when the watch stands", func() bool { return looks() == 1 })
}
