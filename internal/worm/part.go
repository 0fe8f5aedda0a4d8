package worm

import (
	"errors"
	"io"
	"sync"
)

const (
	// firstBuffer grows by bufferGrowth up to firstPartSize: a small object costs a small buffer.
	firstBuffer  = 64 << 10
	bufferGrowth = 10
	// firstPartSize is the least that S3 allows for any part but the last. What is shorter is stored by one request.
	firstPartSize = 5 << 20
	firstParts    = 16
	// nextPartSize doubles after each partsPerSize parts up to maxPartSize, so that 10,000 parts hold more than 1 TiB
	// and the first 11 GiB cost two buffers of 8 MiB.
	nextPartSize = 8 << 20
	partsPerSize = 1400
	maxPartSize  = 512 << 20
	maxParts     = 10000
)

// partSize of the part with this number, from 1.
func partSize(number int) int {
	if number <= firstParts {
		return firstPartSize
	}
	return min(maxPartSize, nextPartSize<<((number-firstParts-1)/partsPerSize))
}

// buffers are kept for the next upload: segments follow each other, and what is thrown away doubles the heap.
type buffers struct{ first, next sync.Pool }

func (b *buffers) take(size int) []byte {
	pool := b.pool(size)
	if pool == nil {
		return make([]byte, size)
	}
	if kept, ok := pool.Get().(*[]byte); ok {
		return *kept
	}
	return make([]byte, size)
}

func (b *buffers) giveBack(buffer []byte) {
	buffer = buffer[:cap(buffer)]
	if pool := b.pool(len(buffer)); pool != nil {
		pool.Put(&buffer)
	}
}

func (b *buffers) pool(size int) *sync.Pool {
	switch size {
	case firstPartSize:
		return &b.first
	case nextPartSize:
		return &b.next
	}
	return nil
}

// readFirst returns the first part, with io.EOF when the body ended before it was full.
func (b *buffers) readFirst(source io.Reader) ([]byte, error) {
	var part []byte
	n := 0
	for size := firstBuffer; ; size = min(size*bufferGrowth, firstPartSize) {
		larger := b.take(size)
		copy(larger, part[:n])
		part = larger
		m, err := fill(part[n:], source)
		n += m
		if err != nil || size == firstPartSize {
			return part[:n], err
		}
	}
}

// filling is a part that is being read while the one before it is sent.
type filling struct {
	done chan struct{}
	part []byte
	err  error
}

// fillNext reads the next part into buffer, or into a larger one. The part is empty when the body has ended.
func (b *buffers) fillNext(source io.Reader, buffer []byte, size int) *filling {
	f := &filling{done: make(chan struct{})}
	go func() {
		defer close(f.done)
		if cap(buffer) < size {
			b.giveBack(buffer)
			buffer = b.take(size)
		}
		n, err := fill(buffer[:size], source)
		f.part = buffer[:n]
		if !errors.Is(err, io.EOF) {
			f.err = err
		}
	}()
	return f
}

func (f *filling) wait() ([]byte, error) {
	<-f.done
	return f.part, f.err
}

// fill reads until the buffer is full. Unlike io.ReadFull it keeps a body's own io.ErrUnexpectedEOF apart from the
// body's end, so that a torn stream is never stored as a whole one.
func fill(buffer []byte, source io.Reader) (int, error) {
	n := 0
	for n < len(buffer) {
		m, err := source.Read(buffer[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

type countingReader struct {
	source io.Reader
	count  int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.source.Read(p)
	r.count += int64(n)
	return n, err
}
