package upload

import (
	"errors"
	"strings"
	"sync"

	"ugallu.io/forensics/internal/worm"
)

// Claims are numbers that this process claimed and under which it stored nothing, at most one a folder of a bucket: the next try in the
// folder takes it and claims none. So a store that is full, or refuses, uses up no numbers however often it is tried. The
// zero value has none. It may be used by several goroutines at a time.
type Claims struct {
	mutex sync.Mutex
	free  map[place]claimed
}

// place is a folder in a bucket.
type place struct{ bucket, folder string }

// claimed is a number and the index of the segment that its claim names.
type claimed struct{ number, index int }

// take returns the free number of a folder if its claim names the segment and no number from it on is known to be taken.
func (c *Claims) take(from place, index, next int) (int, bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	free, ok := c.free[from]
	if !ok || free.index != index || free.number < next {
		return 0, false
	}
	delete(c.free, from)
	return free.number, true
}

func (c *Claims) give(to place, free claimed) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.free == nil {
		c.free = map[place]claimed{}
	}
	c.free[to] = free
}

// Forget the folders of a bucket whose names begin so. What is claimed there stays claimed.
func (c *Claims) Forget(bucket, prefix string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for at := range c.free {
		if at.bucket == bucket && strings.HasPrefix(at.folder, prefix) {
			delete(c.free, at)
		}
	}
}

// refused says of the error of a put that the store took nothing. Should it have taken the object in a request before, of
// which the answer was lost, another put under the key says so: nothing is replaced.
func refused(err error) bool {
	for _, target := range []error{worm.ErrFull, worm.ErrDenied, worm.ErrNoBucket} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
