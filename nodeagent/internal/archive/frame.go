package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"ugallu.io/forensics/api/evidence"
)

// frameSize is how much of the tar stream makes one frame at most. Frames are compressed independently, one on each core,
// and concatenated: both formats define that as one stream. It holds the largest header, which is below 1 MiB and two
// blocks.
const frameSize = window + (64 << 10)

const (
	// maxLines is what the entries may take that wait for a frame to be stored: objects that are not in the archive, sockets
	// for instance, would otherwise wait without bound.
	maxLines = 1 << 20
	// lineCost is what a waiting entry takes beside its names and attributes.
	lineCost = 512
)

// frame is a piece of the stream on its way through a worker.
type frame struct {
	raw, packed []byte
	// place is where the frame lies in the compressed stream, known once it is stored.
	place *place
	// zero says that all of raw stands for zeros, whatever it holds.
	zero bool
	// lines are the entries that end in this frame, and waiting is what they take.
	lines   []line
	waiting int
	err     error
	done    chan struct{}
}

// place of a stored frame.
type place struct{ offset, size int64 }

// line is an entry that waits for its place; without a start it has none.
type line struct {
	entry  *evidence.Entry
	start  *place
	offset int64
}

// compressor cuts the stream into frames, compresses them on several cores and writes the result, in order, to one
// writer.
type compressor struct {
	out     io.Writer
	index   *indexer
	current *frame
	// free holds the fixed set of frames, which bounds memory and pushes back on the reader.
	free, jobs, ordered chan *frame
	failed              chan struct{}
	err                 error
	// taken is how many bytes came in.
	taken   int64
	written atomic.Int64
	// nothing is a frame of zeros as every encoder packs it, made when it is first wanted.
	nothing    []byte
	nothingErr error
	onNothing  sync.Once
	sum        hash.Hash
	running    sync.WaitGroup
}

// newCompressor starts as many workers as there are encoders.
func newCompressor(out io.Writer, index *indexer, encoders []encoder) *compressor {
	// One frame is being filled and one being written while every worker has one.
	frames := len(encoders) + 2
	c := &compressor{
		out:     out,
		index:   index,
		free:    make(chan *frame, frames),
		jobs:    make(chan *frame, frames),
		ordered: make(chan *frame, frames),
		failed:  make(chan struct{}),
		sum:     sha256.New(),
	}
	for range frames {
		c.free <- &frame{raw: make([]byte, 0, frameSize), packed: make([]byte, 0, frameSize), done: make(chan struct{}, 1)}
	}
	for _, encode := range encoders {
		c.running.Go(func() {
			for f := range c.jobs {
				c.pack(f, encode)
				f.done <- struct{}{}
			}
		})
	}
	c.running.Go(c.drain)
	return c
}

// pack compresses a frame; one that only carries lines stays empty.
func (c *compressor) pack(f *frame, encode encoder) {
	f.packed, f.err = f.packed[:0], nil
	switch {
	case f.zero:
		c.onNothing.Do(func() {
			clear(f.raw)
			c.nothing, c.nothingErr = encode(nil, f.raw)
		})
		f.packed, f.err = append(f.packed, c.nothing...), c.nothingErr
	case len(f.raw) > 0:
		f.packed, f.err = encode(f.packed, f.raw)
	}
}

// drain writes finished frames in order. After an error it only recycles them, so that nobody waits for ever.
func (c *compressor) drain() {
	for f := range c.ordered {
		<-f.done
		if c.err == nil {
			if c.err = c.store(f); c.err != nil {
				close(c.failed)
			}
		}
		clear(f.lines)
		f.raw, f.zero, f.lines, f.waiting, f.place = f.raw[:0], false, f.lines[:0], 0, nil
		c.free <- f
	}
}

// store writes a frame with one call, and then the lines of the entries that end in it.
func (c *compressor) store(f *frame) error {
	if f.err != nil {
		return fmt.Errorf("compress: %w", f.err)
	}
	*f.place = place{offset: c.written.Load(), size: int64(len(f.packed))}
	if len(f.packed) > 0 {
		c.sum.Write(f.packed)
		if _, err := c.out.Write(f.packed); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
		c.written.Add(int64(len(f.packed)))
	}
	for _, l := range f.lines {
		if err := c.index.add(l, f.place); err != nil {
			return err
		}
	}
	return nil
}

// frame takes a frame to fill, when there is none. The error is that of a writer below, as soon as it is known, which can
// be frames later.
func (c *compressor) frame() error {
	if c.current != nil {
		return nil
	}
	select {
	case <-c.failed:
		return c.err
	case c.current = <-c.free:
		c.current.place = &place{}
		return nil
	}
}

// begin makes room for an entry of a header and so many bytes in all: in the current frame when it fits, or when it is
// larger than a frame and its header fits; else in the next. It returns where the entry begins.
func (c *compressor) begin(header, total int64) (*place, int64, error) {
	if c.current != nil {
		left := frameSize - int64(len(c.current.raw))
		split := total > frameSize && header < left
		if total > left && !split {
			c.flush()
		}
	}
	if err := c.frame(); err != nil {
		return nil, 0, err
	}
	return c.current.place, int64(len(c.current.raw)), nil
}

// room returns space in the current frame, at most limit bytes, for the caller to fill.
func (c *compressor) room(limit int64) ([]byte, error) {
	if c.current != nil && len(c.current.raw) == frameSize {
		c.flush()
	}
	if err := c.frame(); err != nil {
		return nil, err
	}
	used := len(c.current.raw)
	return c.current.raw[used : used+int(min(limit, int64(frameSize-used)))], nil
}

// filled says how much of the last room was filled.
func (c *compressor) filled(n int) {
	c.current.raw = c.current.raw[:len(c.current.raw)+n]
	c.taken += int64(n)
}

// Write splits what does not fit into the current frame.
func (c *compressor) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		space, err := c.room(int64(len(p)))
		if err != nil {
			return total - len(p), err
		}
		n := copy(space, p)
		c.filled(n)
		p = p[n:]
	}
	return total, nil
}

// zeros writes so many zeros. Whole frames of them are packed once.
func (c *compressor) zeros(n int64) error {
	for n > 0 {
		space, err := c.room(n)
		if err != nil {
			return err
		}
		if len(space) == frameSize {
			c.current.zero = true
		} else {
			clear(space)
		}
		c.filled(len(space))
		n -= int64(len(space))
	}
	return nil
}

// line has the index receive an entry once the current frame is stored.
func (c *compressor) line(l line) error {
	if err := c.frame(); err != nil {
		return err
	}
	f := c.current
	f.lines = append(f.lines, l)
	f.waiting += lineCost + len(l.entry.Path) + len(l.entry.Link)
	for name, value := range l.entry.XAttrs {
		f.waiting += len(name) + len(value)
	}
	if f.waiting > maxLines {
		c.flush()
	}
	return nil
}

func (c *compressor) flush() {
	if c.current == nil {
		return
	}
	c.jobs <- c.current
	c.ordered <- c.current
	c.current = nil
}

// close writes what is left and waits for everything. It must be called once, also after an error.
func (c *compressor) close() error {
	c.flush()
	close(c.jobs)
	close(c.ordered)
	c.running.Wait()
	if c.err == nil {
		c.err = c.index.flush()
	}
	return c.err
}

// digest of everything written; valid after close.
func (c *compressor) digest() string { return hex.EncodeToString(c.sum.Sum(nil)) }
