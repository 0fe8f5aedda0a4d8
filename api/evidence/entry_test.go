package evidence_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"ugallu.io/forensics/api/evidence"
)

// treeHash is MTH of RFC 6962 section 2.1, written down as the RFC defines it.
func treeHash(leaves [][]byte) [sha256.Size]byte {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	}
	split := 1
	for split*2 < len(leaves) {
		split *= 2
	}
	left, right := treeHash(leaves[:split]), treeHash(leaves[split:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

func TestMerkleTreeAgreesWithTheDefinitionOfRFC6962(t *testing.T) {
	var tree evidence.MerkleTree
	var leaves [][]byte
	for n := range 70 {
		want := treeHash(leaves)
		if got := tree.Root(); got != hex.EncodeToString(want[:]) {
			t.Fatalf("root of %d leaves = %s, want %x", n, got, want)
		}
		leaf := fmt.Appendf(nil, "leaf %d", n)
		leaves = append(leaves, leaf)
		tree.AddLeaf(leaf)
	}
}

func TestMerkleRootCoversEveryField(t *testing.T) {
	root := func(entry evidence.Entry) string {
		var tree evidence.MerkleTree
		tree.Add(&entry)
		return tree.Root()
	}
	base := evidence.Entry{Path: "a", Type: evidence.EntryFile, ModTime: "1.000000001"}
	tests := map[string]func(*evidence.Entry){
		"path":       func(e *evidence.Entry) { e.Path = "b" },
		"path bytes": func(e *evidence.Entry) { e.PathBytes = []byte{0xff} },
		"type":       func(e *evidence.Entry) { e.Type = evidence.EntryFIFO },
		"mode":       func(e *evidence.Entry) { e.Mode = 0o4755 },
		"owner":      func(e *evidence.Entry) { e.UID = 1 },
		"group":      func(e *evidence.Entry) { e.GID = 1 },
		"size":       func(e *evidence.Entry) { e.Size = 1 },
		"content":    func(e *evidence.Entry) { e.SHA256 = "00" },
		"time":       func(e *evidence.Entry) { e.ModTime = "1.000000002" },
		"link":       func(e *evidence.Entry) { e.Link = "b" },
		"device":     func(e *evidence.Entry) { e.Minor = 1 },
		"attribute":  func(e *evidence.Entry) { e.XAttrs = map[string][]byte{"user.a": {1}} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			changed := base
			change(&changed)
			if root(changed) == root(base) {
				t.Error("the root did not change")
			}
		})
	}
}
