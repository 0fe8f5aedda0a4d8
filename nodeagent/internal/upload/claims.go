package upload

import (
	"errors"
	"strings"
	"sync"

	"ugallu.io/forensics/internal/worm"
)

// Claims are numbers that this process claimed and under which it stored nothing, at most one a folder: the next try in the
// folder takes it and claims none. So a store that is full, or refuses, uses up no numbers however often it is tried. The
// zero value has none. It may be used by several goroutines at a time.
type Claims struct {
	mutex sync.Mutex
	free  map[string]claimed
}

// claimed is a number and the index of the segment that its claim names.
type claimed struct{ number, index int }

// take returns the free number of a folder if its claim names the segment and no number from it on is known to be taken.
func (c *Claims) take(folder string, index, next int) (int, bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	free, ok := c.free[folder]
	if !ok || free.index != index || free.number < next {
		return 0, false
	}
	delete(c.free, folder)
	return free.number, true
}

func (c *Claims) give(folder string, free claimed) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.free == nil {
		c.free = map[string]claimed{}
	}
	c.free[folder] = free
}

// Forget the folders whose names begin so. What is claimed there stays claimed.
func (c *Claims) Forget(prefix string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for folder := range c.free {
		if strings.HasPrefix(folder, prefix) {
			delete(c.free, folder)
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
