package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

// slice is how long arrivals are added up before they are logged: at full speed a line for each would slow the receiver.
const slice = 50 * time.Millisecond

// arrivals of one sender: when the last one was, and how many bytes in all.
type arrivals struct {
	last  int64
	total int
	// fresh: some came since the last line about them.
	fresh bool
}

// counter adds arrivals up by tag and appends `unix-nanoseconds-of-the-last tag total-bytes` to a log, at the end of each
// slice in which something came.
type counter struct {
	mutex sync.Mutex
	log   *os.File
	known map[string]*arrivals
}

func newCounter(path string) (*counter, error) {
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) // #nosec G304 -- the test names its own file
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &counter{log: log, known: map[string]*arrivals{}}, nil
}

func (c *counter) add(tag string, at time.Time, bytes int) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	known := c.known[tag]
	if known == nil {
		known = new(arrivals)
		c.known[tag] = known
	}
	known.last = max(known.last, at.UnixNano())
	known.total += bytes
	known.fresh = true
}

// flush writes the slice that ends in one piece, so that a reader sees whole lines.
func (c *counter) flush() error {
	if _, err := c.log.Write(c.lines()); err != nil {
		return fmt.Errorf("log arrivals: %w", err)
	}
	return nil
}

func (c *counter) lines() []byte {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	var lines bytes.Buffer
	for _, tag := range slices.Sorted(maps.Keys(c.known)) {
		if known := c.known[tag]; known.fresh {
			fmt.Fprintf(&lines, "%d %s %d\n", known.last, tag, known.total)
			known.fresh = false
		}
	}
	return lines.Bytes()
}

// run flushes until the time is over or a receiver fails.
func (c *counter) run(within time.Duration, failed <-chan error) (err error) {
	defer func() { err = errors.Join(err, c.flush(), c.log.Close()) }()
	ticks := time.NewTicker(slice)
	defer ticks.Stop()
	end := time.After(within)
	for {
		select {
		case <-end:
			return nil
		case err := <-failed:
			return err
		case <-ticks.C:
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
}
