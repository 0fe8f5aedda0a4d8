package tree

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Type is the kind of an entry.
type Type string

// Types of entries. A tar archive has no way to hold a socket.
const (
	File      Type = "file"
	Directory Type = "directory"
	Symlink   Type = "symlink"
	Char      Type = "char"
	Block     Type = "block"
	Fifo      Type = "fifo"
	Socket    Type = "socket"
)

// Entry is everything that must survive from a container's file to the archive.
type Entry struct {
	// Path is relative to the root, which is "."; bytes that are not printable ASCII are escaped as in Go.
	Path string `json:"path"`
	Type Type   `json:"type"`
	// Mode holds the permission bits with setuid, setgid and sticky.
	Mode uint32 `json:"mode"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
	// Size and SHA256 are of a file's content.
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	// MtimeNanos since the epoch.
	MtimeNanos int64 `json:"mtimeNanos"`
	// Target of a symbolic link, escaped like Path.
	Target string `json:"target,omitempty"`
	// LinkedWith is the first path, in byte order, of the names that share one inode; empty when there is one name.
	LinkedWith string `json:"linkedWith,omitempty"`
	// Device is major:minor of a device node.
	Device string `json:"device,omitempty"`
	// Xattrs by name, with the value in hex.
	Xattrs map[string]string `json:"xattrs,omitempty"`
}

// Tree is entries by path.
type Tree map[string]Entry

// Read decodes the JSON lines that Entry makes.
func Read(in io.Reader) (Tree, error) {
	found := Tree{}
	decoder := json.NewDecoder(in)
	for decoder.More() {
		var entry Entry
		if err := decoder.Decode(&entry); err != nil {
			return nil, fmt.Errorf("decode entry %d: %w", len(found), err)
		}
		found[entry.Path] = entry
	}
	return found, nil
}

// Write encodes the tree as JSON lines, in no particular order.
func (t Tree) Write(out io.Writer) error {
	encoder := json.NewEncoder(out)
	for _, entry := range t {
		if err := encoder.Encode(entry); err != nil {
			return fmt.Errorf("encode %s: %w", entry.Path, err)
		}
	}
	return nil
}

// link writes LinkedWith of every entry whose inode has several names; names holds the paths of each inode.
func (t Tree) link(names map[string][]string) {
	for _, paths := range names {
		if len(paths) < 2 {
			continue
		}
		first := paths[0]
		for _, path := range paths[1:] {
			first = min(first, path)
		}
		for _, path := range paths {
			entry := t[path]
			entry.LinkedWith = first
			t[path] = entry
		}
	}
}

func escape(raw string) string {
	quoted := strconv.QuoteToASCII(raw)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func hexOf(raw string) string { return hex.EncodeToString([]byte(raw)) }
