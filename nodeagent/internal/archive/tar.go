package archive

import (
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
	// name is relative, raw bytes; a directory's gets its trailing slash when it is encoded.
	name     string
	link     string
	flag     byte
	mode     uint32
	uid, gid uint32
	// size of the data that follows.
	size int64
	// modified is the whole second of times.modified.
	modified     int64
	times        times
	major, minor uint32
	xattrs       []xattr
	// realSize is set on a sparse file alone: its size with holes.
	realSize int64
	sparse   bool
}

// times of an object as PAX prints them; born is empty where the filesystem does not know.
type times struct{ accessed, modified, changed, born string }

func timesOf(stat *unix.Statx_t) times {
	t := times{accessed: stamp(stat.Atime), modified: stamp(stat.Mtime), changed: stamp(stat.Ctime)}
	if stat.Mask&unix.STATX_BTIME != 0 {
		t.born = stamp(stat.Btime)
	}
	return t
}

// tarEncoder encodes headers in the POSIX.1-2001 (PAX) format: one extended header for each entry, since ustar's own
// fields hold neither nanoseconds nor attributes.
type tarEncoder struct{ records, encoded []byte }

// header returns the blocks that begin an entry; header.size bytes of data and padding follow. They are valid until the
// next call.
func (t *tarEncoder) header(h *header) []byte {
	t.records = t.records[:0]
	t.describe(h)
	extended := ustar(&header{name: "././@PaxHeader", flag: flagExtended, mode: 0o644, size: int64(len(t.records))})
	t.encoded = append(t.encoded[:0], extended[:]...)
	t.encoded = append(t.encoded, t.records...)
	t.encoded = append(t.encoded, zeros[:padding(int64(len(t.records)))]...)
	plain := *h
	if h.sparse {
		plain.name = "GNUSparseFile.0/" + path.Base(h.name)
	}
	block := ustar(&plain)
	t.encoded = append(t.encoded, block[:]...)
	return t.encoded
}

// zeros are the two empty blocks that end an archive.
var zeros [2 * blockSize]byte

// padding is how many bytes complete the last block of so many bytes of data.
func padding(size int64) int64 { return (blockSize - size%blockSize) % blockSize }

// describe collects the extended records of an entry.
func (t *tarEncoder) describe(h *header) {
	t.describeNames(h)
	t.record("mtime", h.times.modified)
	t.record("atime", h.times.accessed)
	t.record("ctime", h.times.changed)
	if h.times.born != "" {
		t.record("LIBARCHIVE.creationtime", h.times.born)
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
		t.attribute(attribute)
	}
}

// describeNames records what ustar's name fields cannot hold, and UTF-8 names, whose charset ustar leaves open. A short
// name of raw bytes stays in the ustar field, which every reader takes as bytes.
func (t *tarEncoder) describeNames(h *header) {
	name, link := needsRecord(h.name, len(h.slash())), needsRecord(h.link, 0)
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
		t.record("path", h.name, h.slash())
	}
	if link {
		t.record("linkpath", h.link)
	}
}

// slash ends the name of a directory.
func (h *header) slash() string {
	if h.flag == flagDirectory {
		return "/"
	}
	return ""
}

func needsRecord(name string, more int) bool {
	const field = 100
	if len(name)+more > field {
		return true
	}
	for i := range len(name) {
		if name[i] >= utf8.RuneSelf {
			return utf8.ValidString(name)
		}
	}
	return false
}

// record appends "length key=value\n", with a value in parts.
func (t *tarEncoder) record(key string, value ...string) {
	size := len(key) + len("=\n")
	for _, part := range value {
		size += len(part)
	}
	t.length(size)
	t.records = append(append(t.records, key...), '=')
	for _, part := range value {
		t.records = append(t.records, part...)
	}
	t.records = append(t.records, '\n')
}

// attribute appends the record of an extended attribute.
func (t *tarEncoder) attribute(x xattr) {
	const prefix = "SCHILY.xattr."
	key := x.key()
	t.length(len(prefix) + len(key) + len("=\n") + len(x.value))
	t.records = append(append(append(t.records, prefix...), key...), '=')
	t.records = append(append(t.records, x.value...), '\n')
}

// length begins a record whose rest has so many bytes; it counts its own digits and the space, too.
func (t *tarEncoder) length(rest int) {
	rest += len(" ")
	length := rest + digits(rest)
	length = rest + digits(length)
	t.records = append(strconv.AppendInt(t.records, int64(length), 10), ' ')
}

func digits(n int) int {
	count := 1
	for ; n > 9; n /= 10 {
		count++
	}
	return count
}

// ustar encodes the plain header. What does not fit is zero here and stands in the extended records.
func ustar(h *header) [blockSize]byte {
	var block [blockSize]byte
	if n := copy(block[0:100], h.name); n < 100 {
		copy(block[n:100], h.slash())
	}
	octal(block[100:108], uint64(h.mode))
	octal(block[108:116], uint64(h.uid))
	octal(block[116:124], uint64(h.gid))
	octal(block[124:136], uint64(h.size))     // #nosec G115 -- sizes are never negative
	octal(block[136:148], uint64(h.modified)) // #nosec G115 -- a negative time does not fit and becomes zero
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
	var buffer [32]byte
	text, whole, rest := buffer[:0], at.Sec, uint64(at.Nsec)
	if whole < 0 && rest > 0 {
		whole, rest = whole+1, second-rest
		if whole == 0 {
			text = append(text, '-')
		}
	}
	text = append(strconv.AppendInt(text, whole, 10), '.')
	for unit := uint64(second / 10); unit > 0; unit /= 10 {
		text = append(text, '0'+byte(rest/unit%10))
	}
	return string(text)
}
