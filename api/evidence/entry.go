package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// EntryType is the kind of a filesystem object in an archive.
type EntryType string

// Entry types.
const (
	EntryFile      EntryType = "file"
	EntryDirectory EntryType = "directory"
	EntrySymlink   EntryType = "symlink"
	EntryHardLink  EntryType = "hardlink"
	EntryCharacter EntryType = "character"
	EntryBlock     EntryType = "block"
	EntryFIFO      EntryType = "fifo"
	EntrySocket    EntryType = "socket"
)

// Entry is one entry of an archive as its Merkle tree sees it. Everything in it can be read from the archive itself.
type Entry struct {
	// Path is relative to the captured root, without a leading or trailing slash; the root itself is ".".
	Path string `json:"path"`
	// PathBytes is the raw path, set only when it is not UTF-8.
	PathBytes []byte    `json:"pathBytes,omitempty"`
	Type      EntryType `json:"type"`
	// Mode holds permissions, setuid, setgid and sticky: the lower twelve bits.
	Mode uint32 `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	// Size of the content in bytes, holes included.
	Size int64 `json:"size"`
	// SHA256 over the content of a file. For a sparse entry over its data as it lies in the archive, map and padding
	// included: a hole of terabytes costs nothing to make and hours to hash.
	SHA256 string `json:"sha256,omitempty"`
	// ModTime is seconds since 1970, a point, and nine digits.
	ModTime string `json:"modTime"`
	// Link is the target of a symbolic link, or the path of the first name of a hard link.
	Link string `json:"link,omitempty"`
	// LinkBytes is the raw target, set only when it is not UTF-8.
	LinkBytes []byte `json:"linkBytes,omitempty"`
	Major     uint32 `json:"major,omitempty"`
	Minor     uint32 `json:"minor,omitempty"`
	// XAttrs by name; '%', '=' and bytes that are not UTF-8 are percent-encoded in names, as in the archive.
	XAttrs map[string][]byte `json:"xattrs,omitempty"`
	Sparse bool              `json:"sparse,omitempty"`
}

// MerkleTree computes the root of RFC 6962 section 2.1 over a sequence of entries in memory that grows with the
// logarithm of their number. Leaf data is the canonical JSON of an entry. The zero value is an empty tree.
type MerkleTree struct {
	count uint64
	// peaks are the roots of the perfect subtrees so far, the largest first: one for each set bit of count.
	peaks [][sha256.Size]byte
}

// Add appends one entry.
func (t *MerkleTree) Add(entry *Entry) error {
	leaf, err := Canonical(entry)
	if err != nil {
		return fmt.Errorf("hash entry %q: %w", entry.Path, err)
	}
	t.AddLeaf(leaf)
	return nil
}

// AddLeaf appends one leaf's data.
func (t *MerkleTree) AddLeaf(data []byte) {
	node := sha256.Sum256(append([]byte{0}, data...))
	for bits := t.count; bits&1 == 1; bits >>= 1 {
		last := len(t.peaks) - 1
		node = parent(t.peaks[last], node)
		t.peaks = t.peaks[:last]
	}
	t.peaks = append(t.peaks, node)
	t.count++
}

// Root is the lower-case hex root of what was added so far.
func (t *MerkleTree) Root() string {
	if len(t.peaks) == 0 {
		return Digest(nil)
	}
	root := t.peaks[len(t.peaks)-1]
	for i := len(t.peaks) - 2; i >= 0; i-- {
		root = parent(t.peaks[i], root)
	}
	return hex.EncodeToString(root[:])
}

func parent(left, right [sha256.Size]byte) [sha256.Size]byte {
	data := make([]byte, 0, 1+2*sha256.Size)
	data = append(data, 1)
	data = append(data, left[:]...)
	data = append(data, right[:]...)
	return sha256.Sum256(data)
}
