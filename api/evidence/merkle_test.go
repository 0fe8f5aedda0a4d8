package evidence_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"ugallu.io/forensics/api/evidence"
)

// indexOf returns an index of so many lines, its lines and its root.
func indexOf(count int) (index []byte, lines [][]byte, root string) {
	var tree evidence.MerkleTree
	for n := range count {
		entry := evidence.Entry{Path: fmt.Sprintf("file-%d", n), Type: evidence.EntryFile}
		lines = append(lines, entry.AppendCanonical(nil))
		index = append(append(index, lines[n]...), '\n')
		tree.Add(&entry)
	}
	return index, lines, tree.Root()
}

func TestInclusionProofsOfEveryLineHoldForAnotherImplementationAndForOurs(t *testing.T) {
	for count := 1; count <= 40; count++ {
		index, lines, root := indexOf(count)
		for leaf := range uint64(count) {
			made, err := evidence.Prove(bytes.NewReader(index), leaf)
			if err != nil {
				t.Fatal(err)
			}
			var path [][]byte
			for _, step := range made.Path {
				digest, err := hex.DecodeString(step)
				if err != nil {
					t.Fatal(err)
				}
				path = append(path, digest)
			}
			want, err := hex.DecodeString(root)
			if err != nil {
				t.Fatal(err)
			}
			hasher := rfc6962.DefaultHasher
			err = proof.VerifyInclusion(hasher, made.Leaf, made.Size, hasher.HashLeaf(lines[leaf]), path, want)
			if err != nil {
				t.Errorf("line %d of %d: %v", leaf, count, err)
			}
			if err := made.Verify(lines[leaf], root); err != nil {
				t.Errorf("line %d of %d: %v", leaf, count, err)
			}
		}
	}
}

func TestInclusionRefusesWhatIsNotThere(t *testing.T) {
	index, lines, root := indexOf(11)
	good, err := evidence.Prove(bytes.NewReader(index), 6)
	if err != nil {
		t.Fatal(err)
	}
	change := func(edit func(*evidence.Inclusion)) evidence.Inclusion {
		changed := good
		changed.Path = append([]string{}, good.Path...)
		edit(&changed)
		return changed
	}
	_, _, otherRoot := indexOf(12)
	tests := map[string]struct {
		proof evidence.Inclusion
		line  []byte
		root  string
	}{
		"another line":   {good, lines[7], root},
		"another root":   {good, lines[6], otherRoot},
		"another leaf":   {change(func(p *evidence.Inclusion) { p.Leaf = 7 }), lines[6], root},
		"outside":        {change(func(p *evidence.Inclusion) { p.Leaf = 11 }), lines[6], root},
		"no tree":        {evidence.Inclusion{}, lines[6], root},
		"a path cut":     {change(func(p *evidence.Inclusion) { p.Path = p.Path[1:] }), lines[6], root},
		"a longer path":  {change(func(p *evidence.Inclusion) { p.Path = append(p.Path, p.Path[0]) }), lines[6], root},
		"a short digest": {change(func(p *evidence.Inclusion) { p.Path[0] = p.Path[0][:62] }), lines[6], root},
		"a long digest":  {change(func(p *evidence.Inclusion) { p.Path[0] += "00" }), lines[6], root},
	}
	for name, test := range tests {
		if err := test.proof.Verify(test.line, test.root); !errors.Is(err, evidence.ErrNotIncluded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := evidence.Prove(bytes.NewReader(index), 11); !errors.Is(err, evidence.ErrNotIncluded) {
		t.Errorf("a line beyond the end was proven: %v", err)
	}
}
