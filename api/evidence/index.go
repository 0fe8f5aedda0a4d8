package evidence

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxIndexLine is above the longest line that an archive makes: a path and a link of 256 KiB, each escaped sixfold and
// once more as base64, and a MiB of attributes as base64.
const maxIndexLine = 8 << 20

// ErrIndex says that an index is not what an archive writes.
var ErrIndex = errors.New("malformed index")

// IndexReader reads an index line by line and computes its Merkle root on the way. It accepts only what an archive
// writes: canonical JSON, each line ended by a newline.
type IndexReader struct {
	in   *bufio.Reader
	tree MerkleTree
	line []byte
	own  []byte
}

// NewIndexReader reads a decompressed index.
func NewIndexReader(in io.Reader) *IndexReader {
	return &IndexReader{in: bufio.NewReaderSize(in, 64<<10)}
}

// Next returns the next entry; io.EOF at the end, ErrIndex for a line that no archive writes.
func (r *IndexReader) Next() (*Entry, error) {
	if err := r.readLine(); err != nil {
		return nil, err
	}
	entry := &Entry{}
	if err := json.Unmarshal(r.line, entry); err != nil {
		return nil, fmt.Errorf("line %d: %w: %w", r.tree.count, ErrIndex, err)
	}
	if r.own = entry.AppendCanonical(r.own[:0]); !bytes.Equal(r.own, r.line) {
		return nil, fmt.Errorf("line %d is not canonical: %w", r.tree.count, ErrIndex)
	}
	if !agree(entry.Path, entry.PathBytes) || !agree(entry.Link, entry.LinkBytes) {
		return nil, fmt.Errorf("line %d has two different paths: %w", r.tree.count, ErrIndex)
	}
	r.tree.AddLeaf(r.line)
	return entry, nil
}

// Line is the last line that Next read, without its newline; valid until the next call.
func (r *IndexReader) Line() []byte { return r.line }

// Root is the Merkle root over the lines read so far, Size how many they are.
func (r *IndexReader) Root() string { return r.tree.Root() }

// Size is how many lines were read so far.
func (r *IndexReader) Size() uint64 { return r.tree.Size() }

func (r *IndexReader) readLine() error {
	r.line = r.line[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		r.line = append(r.line, part...)
		switch {
		case err == nil:
			r.line = r.line[:len(r.line)-1]
			return nil
		case errors.Is(err, io.EOF) && len(r.line) == 0:
			return io.EOF
		case errors.Is(err, io.EOF):
			return fmt.Errorf("line %d has no end: %w", r.tree.count, ErrIndex)
		case !errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("read line %d: %w", r.tree.count, err)
		case len(r.line) > maxIndexLine:
			return fmt.Errorf("line %d is longer than %d bytes: %w", r.tree.count, maxIndexLine, ErrIndex)
		}
	}
}

// agree checks that text is what raw bytes read as, where there are any.
func agree(text string, bytes []byte) bool {
	if bytes == nil {
		return true
	}
	return !utf8.Valid(bytes) && text == string([]rune(string(bytes)))
}
