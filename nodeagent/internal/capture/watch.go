package capture

import (
	"slices"
	"sync"
	"time"
)

const (
	// lookEvery spaces the looks at whether a pod stands still while one of its parts is stored, beside those at the begin,
	// at each segment and at the end. A look asks the runtime for each container and goes through the node's processes,
	// 20 ms of one core where there are 3000: half a percent.
	lookEvery = 5 * time.Second
	// lookShare bounds what looks take where there are more processes: a look that took long is followed by so many times
	// as long without one, two percent.
	lookShare = 50
	// fresh is how old the last look at one part may be to count as the first at the next: a pod can have hundreds of small
	// parts.
	fresh = 100 * time.Millisecond
)

// watch tells of one part whether everything that could have changed it stood still at each look. What ran once is not
// asked again.
type watch struct {
	run  *run
	part *Part
	// mutex guards what follows but stop, and is not held during a look.
	mutex sync.Mutex
	still bool
	// last is when the last look ended, and took how long it went on.
	last time.Time
	took time.Duration
	// stop ends the looks from time to time.
	stop func()
}

// watch begins to look at a part. Either stop or end ends it.
func (r *run) watch(part *Part) *watch {
	w := &watch{run: r, part: part, still: len(part.Frozen) > 0, stop: func() {}}
	if before := r.watching; before != nil && before.covers(part) {
		w.last, w.took = before.last, before.took
	} else {
		w.look()
	}
	if w.still {
		w.stop = w.start()
	}
	return w
}

// covers says whether the last look at one part counts for another one, which begins now.
func (w *watch) covers(part *Part) bool {
	for _, id := range part.Frozen {
		if !slices.Contains(w.part.Frozen, id) {
			return false
		}
	}
	return w.still && time.Since(w.last) < fresh
}

// start looks from time to time, also while nothing moves, until what it returns is called, which waits for a look that goes on.
func (w *watch) start() (stop func()) {
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for again := true; again; again = w.look() {
			timer := time.NewTimer(w.pause())
			select {
			case <-stopped:
				timer.Stop()
				return
			case <-timer.C:
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(stopped)
		<-ended
	})
}

// look says whether everything stood still so far. It may be called by several goroutines at a time.
func (w *watch) look() bool {
	if !w.stood() {
		return false
	}
	begun := time.Now()
	frozen := w.run.frozen(w.part)
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.still = w.still && frozen
	w.last, w.took = time.Now(), time.Since(begun)
	return w.still
}

// pause is how long to wait before the next look.
func (w *watch) pause() time.Duration {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return max(lookEvery, lookShare*w.took)
}

func (w *watch) stood() bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.still
}

// end looks for the last time.
func (w *watch) end() bool {
	w.stop()
	return w.look()
}

// frozen says whether every container that the part is about stands still, and no process of the pod runs that left its
// container's cgroup: it may reach the container's files. What cannot be found out is not claimed.
func (r *run) frozen(part *Part) bool {
	for _, id := range part.Frozen {
		if !r.Frozen(id) {
			return false
		}
	}
	return r.strays != nil && !r.strays()
}
