package order

import "sync"

// pods keeps apart what different goroutines do to one pod: an order, the watch on its containers, the keeper.
type pods struct {
	mutex sync.Mutex
	held  map[string]*podLock
}

// podLock goes when its last user has gone.
type podLock struct {
	sync.Mutex
	users int
}

func newPods() *pods { return &pods{held: map[string]*podLock{}} }

// lock returns what unlocks.
func (p *pods) lock(uid string) (unlock func()) {
	p.mutex.Lock()
	lock := p.held[uid]
	if lock == nil {
		lock = new(podLock)
		p.held[uid] = lock
	}
	lock.users++
	p.mutex.Unlock()
	lock.Lock()
	return func() {
		lock.Unlock()
		p.mutex.Lock()
		defer p.mutex.Unlock()
		if lock.users--; lock.users == 0 {
			delete(p.held, uid)
		}
	}
}
