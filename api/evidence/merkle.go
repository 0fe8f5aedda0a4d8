package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// ErrNotIncluded says that a line is not the leaf that a proof claims it to be.
var ErrNotIncluded = errors.New("not included in the tree")

// node is the hash of a perfect subtree, and whether the leaf to be proven lies in it.
type node struct {
	hash    [sha256.Size]byte
	watched bool
}

// MerkleTree computes the root of RFC 6962 section 2.1 over the lines of an index, in memory that grows with the
// logarithm of their number.
//
// The n-th leaf is the n-th line of the index: its bytes as they stand there, without the newline, hashed after a byte
// of zero. A node is the hash of a byte of one, its left and its right child. The root of no lines is the hash of
// nothing. The zero value is an empty tree.
type MerkleTree struct {
	count uint64
	// peaks are the perfect subtrees so far, the largest first: one for each set bit of count.
	peaks []node
	// watch is the number of the leaf to be proven, counted from one, and path what its proof is so far.
	watch uint64
	path  []string
}

// Add appends one entry.
func (t *MerkleTree) Add(entry *Entry) { t.AddLeaf(entry.AppendCanonical(nil)) }

// AddLeaf appends one leaf's data.
func (t *MerkleTree) AddLeaf(data []byte) {
	top := node{hash: leafHash(data), watched: t.count+1 == t.watch}
	for bits := t.count; bits&1 == 1; bits >>= 1 {
		last := len(t.peaks) - 1
		top = t.join(t.peaks[last], top)
		t.peaks = t.peaks[:last]
	}
	t.peaks = append(t.peaks, top)
	t.count++
}

// Size is how many leaves were added.
func (t *MerkleTree) Size() uint64 { return t.count }

// Root is the lower-case hex root of what was added so far.
func (t *MerkleTree) Root() string {
	if len(t.peaks) == 0 {
		return Digest(nil)
	}
	root := t.peaks[len(t.peaks)-1].hash
	for i := len(t.peaks) - 2; i >= 0; i-- {
		root = parent(t.peaks[i].hash, root)
	}
	return hex.EncodeToString(root[:])
}

// join makes one node of two, and notes the sibling of the watched one.
func (t *MerkleTree) join(left, right node) node {
	switch {
	case left.watched:
		t.path = append(t.path, hex.EncodeToString(right.hash[:]))
	case right.watched:
		t.path = append(t.path, hex.EncodeToString(left.hash[:]))
	}
	return node{hash: parent(left.hash, right.hash), watched: left.watched || right.watched}
}

// proof ends the tree.
func (t *MerkleTree) proof() Inclusion {
	top := t.peaks[len(t.peaks)-1]
	for i := len(t.peaks) - 2; i >= 0; i-- {
		top = t.join(t.peaks[i], top)
	}
	return Inclusion{Leaf: t.watch - 1, Size: t.count, Path: t.path}
}

func leafHash(data []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(data)
	h.Sum(sum[:0])
	return sum
}

func parent(left, right [sha256.Size]byte) [sha256.Size]byte {
	var data [1 + 2*sha256.Size]byte
	data[0] = 1
	copy(data[1:], left[:])
	copy(data[1+sha256.Size:], right[:])
	return sha256.Sum256(data[:])
}

// Inclusion proves that a line stands at its place in an index whose Merkle root is known (RFC 9162 section 2.1.3).
type Inclusion struct {
	// Leaf is the line's number, counted from zero, Size how many lines the index has.
	Leaf uint64 `json:"leaf"`
	Size uint64 `json:"size"`
	// Path are the siblings from the leaf up, in lower-case hex.
	Path []string `json:"path"`
}

// Prove reads an index and makes the proof for one of its lines, counted from zero.
func Prove(index io.Reader, leaf uint64) (Inclusion, error) {
	reader := NewIndexReader(index)
	reader.tree.watch = leaf + 1
	for {
		_, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Inclusion{}, err
		}
	}
	if leaf >= reader.tree.count {
		return Inclusion{}, fmt.Errorf("prove line %d of %d: %w", leaf, reader.tree.count, ErrNotIncluded)
	}
	return reader.tree.proof(), nil
}

// Verify checks that a line, without its newline, is the leaf of a tree with this root; ErrNotIncluded when it is not.
func (p Inclusion) Verify(line []byte, root string) error {
	if p.Leaf >= p.Size {
		return fmt.Errorf("line %d of %d: %w", p.Leaf, p.Size, ErrNotIncluded)
	}
	at, last, sum := p.Leaf, p.Size-1, leafHash(line)
	for _, step := range p.Path {
		var sibling [sha256.Size]byte
		if digest, err := hex.DecodeString(step); err != nil || len(digest) != copy(sibling[:], digest) || len(digest) < sha256.Size {
			return fmt.Errorf("sibling %q is no sha256: %w", step, ErrNotIncluded)
		}
		if last == 0 {
			return fmt.Errorf("the path is too long: %w", ErrNotIncluded)
		}
		if at&1 == 1 || at == last {
			sum = parent(sibling, sum)
			for at&1 == 0 && at != 0 {
				at, last = at>>1, last>>1
			}
		} else {
			sum = parent(sum, sibling)
		}
		at, last = at>>1, last>>1
	}
	if got := hex.EncodeToString(sum[:]); last != 0 || got != root {
		return fmt.Errorf("the path leads to %s: %w", got, ErrNotIncluded)
	}
	return nil
}
