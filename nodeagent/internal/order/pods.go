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
	lock := p.use(uid)
	lock.Lock()
	return func() {
		lock.Unlock()
		p.leave(uid, lock)
	}
}

// tryLock is false, and nothing is to be unlocked, while somebody else has the pod.
func (p *pods) tryLock(uid string) (unlock func(), ok bool) {
	lock := p.use(uid)
	if !lock.TryLock() {
		p.leave(uid, lock)
		return nil, false
	}
	return func() {
		lock.Unlock()
		p.leave(uid, lock)
	}, true
}

func (p *pods) use(uid string) *podLock {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	lock := p.held[uid]
	if lock == nil {
		lock = new(podLock)
		p.held[uid] = lock
	}
	lock.users++
	return lock
}

func (p *pods) leave(uid string, lock *podLock) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if lock.users--; lock.users == 0 {
		delete(p.held, uid)
	}
}
