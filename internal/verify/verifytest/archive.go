package verifytest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/evidence"
)

// frameSize of the archive: small, so that one file lies in several frames.
const frameSize = 8 << 10

// Archive is a tar archive in frames, with its index.
type Archive struct {
	Stream, Index []byte
	Root          string
	Lines         int64
	MediaType     string
}

// file is one entry to be archived.
type file struct {
	name, link string
	kind       byte
	content    []byte
}

// content of a file that compresses badly, different for each name.
func content(name string, size int) []byte {
	var data []byte
	for sum := sha256.Sum256([]byte(name)); len(data) < size; sum = sha256.Sum256(sum[:]) {
		data = append(data, sum[:]...)
	}
	return data[:size]
}

// NewArchive archives a small tree: folders, files of which one lies in several frames, a link and a hard link.
func NewArchive(t testing.TB) Archive {
	t.Helper()
	files := []file{
		{name: "etc", kind: tar.TypeDir},
		{name: "etc/passwd", kind: tar.TypeReg, content: content("passwd", 700)},
		{name: "usr", kind: tar.TypeDir},
		{name: "usr/bin", kind: tar.TypeDir},
		{name: "usr/bin/sh", kind: tar.TypeSymlink, link: "x"},
		{name: "usr/bin/x", kind: tar.TypeReg, content: content("x", 3000)},
		{name: "usr/bin/y", kind: tar.TypeLink, link: "usr/bin/x"},
		{name: "usr/lib/large", kind: tar.TypeReg, content: content("large", 5*frameSize)},
	}
	for i := range 200 {
		files = append(files, file{name: "var/" + strings.Repeat("f", i+1), kind: tar.TypeReg, content: content("var", i*13)})
	}
	out := &frames{t: t}
	var entries []*evidence.Entry
	for i := range files {
		entries = append(entries, out.add(&files[i]))
	}
	out.flush()
	archive := Archive{Stream: out.stream, MediaType: evidence.MediaTypeTarZstd}
	var tree evidence.MerkleTree
	var lines []byte
	for i, entry := range entries {
		out.place(i, entry)
		lines = append(entry.AppendCanonical(lines), '\n')
		tree.Add(entry)
	}
	archive.Index, archive.Root, archive.Lines = pack(t, lines), tree.Root(), int64(len(entries))
	return archive
}

// frames cuts a tar stream as the node's agent does.
type frames struct {
	t       testing.TB
	stream  []byte
	current []byte
	// begins and ends are the frames in which each entry begins and ends, offsets where it begins in the first.
	begins, ends []int
	offsets      []int64
	// bounds of the frames in the stream; one more than there are frames.
	bounds []int64
}

func (f *frames) add(from *file) *evidence.Entry {
	f.t.Helper()
	var encoded bytes.Buffer
	writer := tar.NewWriter(&encoded)
	name := from.name
	if from.kind == tar.TypeDir {
		name += "/"
	}
	must(f.t, writer.WriteHeader(&tar.Header{
		Typeflag: from.kind, Name: name, Linkname: from.link, Mode: 0o755, Size: int64(len(from.content)), Format: tar.FormatPAX,
	}))
	_, err := writer.Write(from.content)
	must(f.t, err)
	must(f.t, writer.Flush())
	if len(f.current) > 0 && len(f.current)+encoded.Len() > frameSize {
		f.flush()
	}
	f.begins, f.offsets = append(f.begins, len(f.bounds)), append(f.offsets, int64(len(f.current)))
	for data := encoded.Bytes(); len(data) > 0; {
		if len(f.current) == frameSize {
			f.flush()
		}
		n := min(len(data), frameSize-len(f.current))
		f.current, data = append(f.current, data[:n]...), data[n:]
	}
	f.ends = append(f.ends, len(f.bounds))
	return f.entry(from)
}

func (f *frames) entry(from *file) *evidence.Entry {
	kinds := map[byte]evidence.EntryType{
		tar.TypeDir: evidence.EntryDirectory, tar.TypeReg: evidence.EntryFile, tar.TypeSymlink: evidence.EntrySymlink, tar.TypeLink: evidence.EntryHardLink,
	}
	entry := &evidence.Entry{Path: from.name, Link: from.link, Type: kinds[from.kind], Mode: 0o755, Size: int64(len(from.content))}
	if from.kind == tar.TypeReg {
		sum := sha256.Sum256(from.content)
		entry.SHA256 = hex.EncodeToString(sum[:])
	}
	return entry
}

func (f *frames) flush() {
	f.t.Helper()
	f.bounds = append(f.bounds, int64(len(f.stream)))
	f.stream = append(f.stream, pack(f.t, f.current)...)
	f.current = nil
}

// place says where the n-th entry lies.
func (f *frames) place(n int, entry *evidence.Entry) {
	bounds := append(f.bounds[:len(f.bounds):len(f.bounds)], int64(len(f.stream)))
	first, last := f.begins[n], f.ends[n]
	entry.Position = &evidence.Position{Frame: bounds[first], FrameSize: bounds[first+1] - bounds[first], Offset: f.offsets[n]}
	if last > first {
		entry.Position.Span = bounds[last+1] - bounds[first]
	}
}

// pack compresses data as one frame.
func pack(t testing.TB, data []byte) []byte {
	t.Helper()
	writer, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	must(t, err)
	return writer.EncodeAll(data, nil)
}

// ContentSHA256 is the digest of a file in the archive.
func ContentSHA256(name string, size int) string {
	sum := sha256.Sum256(content(name, size))
	return hex.EncodeToString(sum[:])
}
