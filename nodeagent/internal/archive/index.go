package archive

import (
	"fmt"
	"io"

	"ugallu.io/forensics/api/evidence"
)

// batch is how much of the index and the timeline is written at once.
const batch = 64 << 10

// indexer writes the line of each entry, and computes the Merkle root over them.
type indexer struct {
	lines, body sink
	tree        evidence.MerkleTree
}

// sink gathers lines for a writer that may be nil.
type sink struct {
	out    io.Writer
	name   string
	buffer []byte
}

func newIndexer(options Options) *indexer {
	return &indexer{
		lines: sink{out: options.Index, name: "index"},
		body:  sink{out: options.Timeline, name: "timeline"},
	}
}

// add completes an entry whose last frame is stored at end.
func (x *indexer) add(l line, end *place) error {
	if l.start != nil {
		l.entry.Position = &evidence.Position{Frame: l.start.offset, FrameSize: l.start.size, Offset: l.offset}
		if span := end.offset + end.size - l.start.offset; span > l.start.size {
			l.entry.Position.Span = span
		}
	}
	begin := len(x.lines.buffer)
	x.lines.buffer = l.entry.AppendCanonical(x.lines.buffer)
	x.tree.AddLeaf(x.lines.buffer[begin:])
	x.lines.buffer = append(x.lines.buffer, '\n')
	if err := x.lines.full(); err != nil {
		return err
	}
	if x.body.out == nil {
		return nil
	}
	x.body.buffer = l.entry.AppendBody(x.body.buffer)
	return x.body.full()
}

func (x *indexer) flush() error {
	if err := x.lines.flush(); err != nil {
		return err
	}
	return x.body.flush()
}

// full flushes a full buffer.
func (s *sink) full() error {
	if len(s.buffer) < batch {
		return nil
	}
	return s.flush()
}

func (s *sink) flush() error {
	if s.out != nil && len(s.buffer) > 0 {
		if _, err := s.out.Write(s.buffer); err != nil {
			return fmt.Errorf("write %s: %w", s.name, err)
		}
	}
	s.buffer = s.buffer[:0]
	return nil
}
