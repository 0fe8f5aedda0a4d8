package archive

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"strconv"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// blockSize is the record size of tar: headers and content are padded to it.
const blockSize = 512

// Type flags of the ustar format.
const (
	flagFile      = '0'
	flagHardLink  = '1'
	flagSymlink   = '2'
	flagCharacter = '3'
	flagBlock     = '4'
	flagDirectory = '5'
	flagFIFO      = '6'
	flagExtended  = 'x'
)

// header is what tar says of one entry. Headers are built here and not by archive/tar, which refuses sparse files and
// attribute names with '='.
type header struct {
	// name is relative, raw bytes, with a trailing slash on a directory.
	name     string
	link     string
	flag     byte
	mode     uint32
	uid, gid uint32
	// size of the data that follows.
	size         int64
	modified     unix.StatxTimestamp
	accessed     unix.StatxTimestamp
	changed      unix.StatxTimestamp
	born         *unix.StatxTimestamp
	major, minor uint32
	xattrs       []xattr
	// realSize is set on a sparse file alone: its size with holes.
	realSize int64
	sparse   bool
}

// tarWriter writes entries in the POSIX.1-2001 (PAX) format: one extended header for each entry, since ustar's own
// fields hold neither nanoseconds nor attributes.
type tarWriter struct {
	out     io.Writer
	records bytes.Buffer
}

// writeHeader starts an entry; the caller writes header.size bytes and then pads.
func (t *tarWriter) writeHeader(h *header) error {
	t.records.Reset()
	t.describe(h)
	extended := ustar(&header{name: "././@PaxHeader", flag: flagExtended, mode: 0o644, size: int64(t.records.Len())})
	if _, err := t.out.Write(extended[:]); err != nil {
		return err
	}
	size := int64(t.records.Len())
	if _, err := t.out.Write(t.records.Bytes()); err != nil {
		return err
	}
	if err := t.pad(size); err != nil {
		return err
	}
	plain := *h
	if h.sparse {
		plain.name = "GNUSparseFile.0/" + path.Base(h.name)
	}
	block := ustar(&plain)
	_, err := t.out.Write(block[:])
	return err
}

// pad completes the last block after size bytes of data.
func (t *tarWriter) pad(size int64) error {
	var zeros [blockSize]byte
	rest := (blockSize - size%blockSize) % blockSize
	_, err := t.out.Write(zeros[:rest])
	return err
}

// close ends the archive with two empty blocks.
func (t *tarWriter) close() error {
	var zeros [2 * blockSize]byte
	_, err := t.out.Write(zeros[:])
	return err
}

// describe collects the extended records of an entry.
func (t *tarWriter) describe(h *header) {
	t.describeNames(h)
	t.record("mtime", stamp(h.modified))
	t.record("atime", stamp(h.accessed))
	t.record("ctime", stamp(h.changed))
	if h.born != nil {
		t.record("LIBARCHIVE.creationtime", stamp(*h.born))
	}
	if !fits(uint64(h.uid), 7) {
		t.record("uid", strconv.FormatUint(uint64(h.uid), 10))
	}
	if !fits(uint64(h.gid), 7) {
		t.record("gid", strconv.FormatUint(uint64(h.gid), 10))
	}
	if !fits(uint64(h.size), 11) { // #nosec G115 -- sizes are never negative
		t.record("size", strconv.FormatInt(h.size, 10))
	}
	if !fits(uint64(h.major), 7) || !fits(uint64(h.minor), 7) {
		t.record("SCHILY.devmajor", strconv.FormatUint(uint64(h.major), 10))
		t.record("SCHILY.devminor", strconv.FormatUint(uint64(h.minor), 10))
	}
	for _, attribute := range h.xattrs {
		t.record("SCHILY.xattr."+attribute.key(), string(attribute.value))
	}
}

// describeNames records what ustar's name fields cannot hold, and UTF-8 names, whose charset ustar leaves open. A short
// name of raw bytes stays in the ustar field, which every reader takes as bytes.
func (t *tarWriter) describeNames(h *header) {
	name, link := needsRecord(h.name), needsRecord(h.link)
	if (name && !utf8.ValidString(h.name)) || (link && !utf8.ValidString(h.link)) {
		t.record("hdrcharset", "BINARY")
	}
	switch {
	case h.sparse:
		t.record("GNU.sparse.major", "1")
		t.record("GNU.sparse.minor", "0")
		t.record("GNU.sparse.name", h.name)
		t.record("GNU.sparse.realsize", strconv.FormatInt(h.realSize, 10))
	case name:
		t.record("path", h.name)
	}
	if link {
		t.record("linkpath", h.link)
	}
}

func needsRecord(name string) bool {
	const field = 100
	if len(name) > field {
		return true
	}
	for i := range len(name) {
		if name[i] >= utf8.RuneSelf {
			return utf8.ValidString(name)
		}
	}
	return false
}

// record appends "length key=value\n", where length counts its own digits too.
func (t *tarWriter) record(key, value string) {
	rest := len(key) + len(value) + len(" =\n")
	length := rest + len(strconv.Itoa(rest))
	if total := rest + len(strconv.Itoa(length)); total > length {
		length = total
	}
	fmt.Fprintf(&t.records, "%d %s=%s\n", length, key, value)
}

// ustar encodes the plain header. What does not fit is zero here and stands in the extended records.
func ustar(h *header) [blockSize]byte {
	var block [blockSize]byte
	copy(block[0:100], h.name)
	octal(block[100:108], uint64(h.mode))
	octal(block[108:116], uint64(h.uid))
	octal(block[116:124], uint64(h.gid))
	octal(block[124:136], uint64(h.size))         // #nosec G115 -- sizes are never negative
	octal(block[136:148], uint64(h.modified.Sec)) // #nosec G115 -- a negative time does not fit and becomes zero
	copy(block[148:156], "        ")
	block[156] = h.flag
	copy(block[157:257], h.link)
	copy(block[257:265], "ustar\x0000")
	octal(block[329:337], uint64(h.major))
	octal(block[337:345], uint64(h.minor))
	var sum uint64
	for _, b := range block {
		sum += uint64(b)
	}
	octal(block[148:155], sum)
	return block
}

func octal(field []byte, value uint64) {
	digits := len(field) - 1
	if !fits(value, digits) {
		value = 0
	}
	for i := digits - 1; i >= 0; i-- {
		field[i] = '0' + byte(value&7)
		value >>= 3
	}
	field[digits] = 0
}

func fits(value uint64, digits int) bool { return value>>(3*digits) == 0 }

// stamp prints a time as PAX wants it: decimal seconds. Before 1970 the kernel counts nanoseconds forward from a
// negative second, and PAX writes a negative number.
func stamp(at unix.StatxTimestamp) string {
	const second = 1_000_000_000
	if at.Sec < 0 && at.Nsec > 0 {
		return fmt.Sprintf("-%d.%09d", -(at.Sec + 1), second-at.Nsec)
	}
	return fmt.Sprintf("%d.%09d", at.Sec, at.Nsec)
}
