package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/archive"
)

// captured is an archive with everything that is written beside it.
type captured struct {
	data, index, timeline []byte
	gaps                  []evidence.GapLine
	writes                []int
	result                archive.Result
}

// Write remembers the size of each call.
func (c *captured) Write(p []byte) (int, error) {
	c.data = append(c.data, p...)
	c.writes = append(c.writes, len(p))
	return len(p), nil
}

func capture(t testing.TB, root string, options archive.Options) *captured {
	t.Helper()
	var index, timeline, gaps bytes.Buffer
	options.Index, options.Timeline, options.Gaps = &index, &timeline, &gaps
	c := &captured{}
	var err error
	c.result, err = archive.Write(t.Context(), c, root, options)
	must(t, err)
	c.index, c.timeline, c.gaps = index.Bytes(), timeline.Bytes(), lines(t, gaps.Bytes())
	return c
}

// entries reads the index, and checks what holds for every index.
func (c *captured) entries(t testing.TB) map[string]*evidence.Entry {
	t.Helper()
	entries, reader := map[string]*evidence.Entry{}, evidence.NewIndexReader(bytes.NewReader(c.index))
	var archived int64
	for {
		entry, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if _, again := entries[entry.RawPath()]; again {
			t.Errorf("%q has two lines", entry.Path)
		}
		if entry.Position == nil && len(entry.Gaps) == 0 {
			t.Errorf("%q is not in the archive, and nothing says why", entry.Path)
		}
		if entry.Position != nil {
			archived++
		}
		entries[entry.RawPath()] = entry
	}
	if reader.Root() != c.result.MerkleRoot || int64(reader.Size()) != c.result.IndexLines || archived != c.result.Entries {
		t.Errorf("root %s over %d lines, %d archived; the result says %+v", reader.Root(), reader.Size(), archived, c.result)
	}
	for _, gap := range c.gaps {
		path := gap.Path
		if gap.PathBytes != nil {
			path = string(gap.PathBytes)
		}
		entry := entries[path]
		if entry != nil && entry.Type == evidence.EntryDirectory && gap.Reason == archive.GapChangedWhileRead {
			continue // its line comes before its content, which it cannot know of
		}
		if entry == nil || !strings.Contains(strings.Join(entry.Gaps, " "), gap.Reason) {
			t.Errorf("the index does not know of the gap %s at %q", gap.Reason, path)
		}
	}
	var timeline bytes.Buffer
	must(t, evidence.WriteTimeline(&timeline, bytes.NewReader(c.index)))
	if !bytes.Equal(timeline.Bytes(), c.timeline) {
		t.Error("the timeline is not that of the index")
	}
	return entries
}

// decompress opens a stream that may begin at any frame.
func decompress(t testing.TB, format archive.Format, data []byte) io.Reader {
	t.Helper()
	if format == archive.Gzip {
		reader, err := gzip.NewReader(bytes.NewReader(data))
		must(t, err)
		return reader
	}
	reader, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
	must(t, err)
	t.Cleanup(reader.Close)
	return reader
}

// mixedTree has files below, at and above the size of a frame, and objects that are not archived.
func mixedTree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	const frame = 1<<20 + 64<<10
	for i, size := range []int{0, 1, 511, 512, 100 << 10, frame - 4096, frame - 1024, frame, frame + 1, 3*frame + 77, 1000} {
		data := make([]byte, size)
		_, err := rand.Read(data[:size/3])
		must(t, err)
		for _, suffix := range []string{"a", "b"} {
			must(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("%02d-%s", i, suffix)), data, 0o600))
		}
	}
	listener, err := net.Listen("unix", filepath.Join(root, "03-socket"))
	must(t, err)
	t.Cleanup(func() { must(t, listener.Close()) })
	must(t, os.Symlink("01-a", filepath.Join(root, "04-link")))
	must(t, os.Link(filepath.Join(root, "01-a"), filepath.Join(root, "05-hard")))
	return root
}

func TestEveryEntryCanBeReadAloneFromItsFrames(t *testing.T) {
	for _, format := range []archive.Format{archive.Zstd, archive.Gzip} {
		root := mixedTree(t)
		c := capture(t, root, archive.Options{Format: format})
		for path, entry := range c.entries(t) {
			if entry.Position == nil {
				continue
			}
			at := *entry.Position
			end := at.Frame + at.FrameSize
			if at.Span > 0 {
				end = at.Frame + at.Span
			}
			stream := decompress(t, format, c.data[at.Frame:end])
			_, err := io.CopyN(io.Discard, stream, at.Offset)
			must(t, err)
			reader := tar.NewReader(stream)
			header, err := reader.Next()
			must(t, err)
			if filepath.Clean(header.Name) != path {
				t.Errorf("%s: at its place lies %q", path, header.Name)
			}
			content, err := io.ReadAll(reader)
			must(t, err)
			if entry.Type == evidence.EntryFile && evidence.Digest(content) != entry.SHA256 {
				t.Errorf("%s: other content", path)
			}
		}
		if len(c.entries(t)) != 2*11+3+1 {
			t.Errorf("%d lines", len(c.entries(t)))
		}
	}
}

func TestEachWriteIsOneFrameThatBeginsWhereATarRecordDoes(t *testing.T) {
	const frame = 1<<20 + 64<<10
	c := capture(t, mixedTree(t), archive.Options{})
	entries := c.entries(t)
	starts := map[int64]int64{} // of entries, in the stream before compression, with their sizes
	at, frames := int64(0), map[int64]int64{}
	var offset int64
	for _, size := range c.writes {
		raw, err := io.ReadAll(decompress(t, archive.Zstd, c.data[offset:offset+int64(size)]))
		must(t, err)
		if len(raw) > frame || len(raw) == 0 {
			t.Errorf("a frame of %d bytes", len(raw))
		}
		frames[offset] = at
		at, offset = at+int64(len(raw)), offset+int64(size)
	}
	if at != c.result.BytesTar {
		t.Errorf("frames hold %d bytes, the stream has %d", at, c.result.BytesTar)
	}
	for _, entry := range entries {
		if entry.Position != nil {
			starts[frames[entry.Position.Frame]+entry.Position.Offset] = entry.Size
		}
	}
	// straddled is the size of the entry that a place lies in.
	straddled := func(begin int64) (size int64) {
		last := int64(-1)
		for start, entry := range starts {
			if start < begin && start > last {
				last, size = start, entry
			}
		}
		return size
	}
	for _, begin := range frames {
		if _, is := starts[begin]; is || begin == at-1024 {
			continue
		}
		if size := straddled(begin); begin%512 != 0 || size < frame-4096 {
			t.Errorf("a frame begins at %d, within an entry of %d bytes", begin, size)
		}
	}
}

func TestBytesDoNotDependOnTheNumberOfWorkers(t *testing.T) {
	root := mixedTree(t)
	// As a View is: reading a link on a writable mount changes its access time.
	readOnly(t, root)
	first := capture(t, root, archive.Options{Workers: 1})
	for workers := 2; workers <= 4; workers++ {
		for range 3 {
			c := capture(t, root, archive.Options{Workers: workers})
			if !bytes.Equal(first.data, c.data) || !bytes.Equal(first.index, c.index) || !bytes.Equal(first.timeline, c.timeline) {
				t.Errorf("%d workers write other bytes than one", workers)
			}
			if !slices.Equal(first.writes, c.writes) || cmp.Diff(first.result, c.result) != "" {
				t.Errorf("%d workers cut other frames than one: %+v", workers, c.result)
			}
		}
	}
}

// readOnly mounts a folder read-only over itself.
func readOnly(t testing.TB, root string) {
	t.Helper()
	requireRoot(t)
	must(t, unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""))
	t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
	must(t, unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

func TestObjectsThatAreNotArchivedHoldLittleMemory(t *testing.T) {
	requireRoot(t)
	const count = 30_000
	root := t.TempDir()
	for i := range count {
		must(t, unix.Mknod(filepath.Join(root, fmt.Sprintf("%0200d", i)), unix.S_IFSOCK|0o600, 0))
	}
	c := capture(t, root, archive.Options{})
	if len(c.writes) != 2 {
		t.Errorf("%d frames for the root and the end", len(c.writes))
	}
	if len(c.entries(t)) != count+1 {
		t.Errorf("%d lines", len(c.entries(t)))
	}
}

func TestIndexSaysWhatTheKernelSays(t *testing.T) {
	requireRoot(t)
	root := t.TempDir()
	path := filepath.Join(root, "file")
	must(t, os.WriteFile(path, []byte("content"), 0o640))
	must(t, os.Lchown(path, 5, 6))
	must(t, os.Link(path, filepath.Join(root, "hard")))
	must(t, unix.Setxattr(path, "trusted.a", []byte{0, 1}, 0))
	var stat unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stat))
	entries := capture(t, root, archive.Options{}).entries(t)
	stamp := func(at unix.StatxTimestamp) string { return fmt.Sprintf("%d.%09d", at.Sec, at.Nsec) }
	want := &evidence.Entry{
		Path: "file", Type: evidence.EntryFile, Mode: 0o640, UID: 5, GID: 6, Inode: stat.Ino, Links: 2, Size: 7,
		SHA256: evidence.Digest([]byte("content")), AccessTime: stamp(stat.Atime), ModTime: stamp(stat.Mtime),
		ChangeTime: stamp(stat.Ctime), BirthTime: stamp(stat.Btime), XAttrs: map[string][]byte{"trusted.a": {0, 1}},
		Position: entries["file"].Position,
	}
	if diff := cmp.Diff(want, entries["file"]); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	want.Path, want.Type, want.Link, want.XAttrs = "hard", evidence.EntryHardLink, "file", nil
	want.Position = entries["hard"].Position
	if diff := cmp.Diff(want, entries["hard"]); diff != "" {
		t.Errorf("hard link (-want +got):\n%s", diff)
	}
}

func TestTimesThatDoNotFitAreFlagged(t *testing.T) {
	root := t.TempDir()
	const second, day = 1, 86400
	for name, ago := range map[string]int64{"new": 0, "moment": 30 * second, "back": day, "future": -day} {
		path := filepath.Join(root, name)
		must(t, os.WriteFile(path, nil, 0o600))
		var stat unix.Stat_t
		must(t, unix.Stat(path, &stat))
		at := unix.Timespec{Sec: stat.Mtim.Sec - ago, Nsec: stat.Mtim.Nsec}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, 0))
	}
	want := map[string][]evidence.Flag{
		"new": nil, "moment": nil, ".": nil,
		"back":   {evidence.FlagChangedAfterModified, evidence.FlagBornAfterModified},
		"future": {evidence.FlagModifiedAfterChanged},
	}
	got := map[string][]evidence.Flag{}
	for path, entry := range capture(t, root, archive.Options{}).entries(t) {
		got[path] = entry.Flags
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flags (-want +got):\n%s", diff)
	}
}

func TestSparseFilesAreHashedAsReadersSeeThem(t *testing.T) {
	root := t.TempDir()
	content := make([]byte, 8<<20)
	copy(content[5<<20:], "data")
	for name, size := range map[string]int64{"small": int64(len(content)), "huge": 1 << 40} {
		file, err := os.Create(filepath.Join(root, name))
		must(t, err)
		_, err = file.WriteAt([]byte("data"), 5<<20)
		must(t, errors.Join(err, file.Truncate(size), file.Close()))
	}
	entries := capture(t, root, archive.Options{}).entries(t)
	small, huge := entries["small"], entries["huge"]
	if small.SHA256 != evidence.Digest(content) || small.StoredSHA256 == "" || small.Size != 8<<20 {
		t.Errorf("small: %+v", small)
	}
	if diff := cmp.Diff([]evidence.Flag{evidence.FlagSparse}, small.Flags); diff != "" {
		t.Error(diff)
	}
	if huge.SHA256 != "" || huge.StoredSHA256 == "" || huge.Size != 1<<40 {
		t.Errorf("huge: %+v", huge)
	}
	if diff := cmp.Diff([]evidence.Flag{evidence.FlagSparse, evidence.FlagHolesNotHashed}, huge.Flags); diff != "" {
		t.Error(diff)
	}
}

func TestIndexNamesWhereALimitEndsTheArchive(t *testing.T) {
	root := t.TempDir()
	for i := range 5 {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("f%d", i)), make([]byte, 100), 0o600))
	}
	c := capture(t, root, archive.Options{MaxEntries: 3})
	last := c.entries(t)["f2"]
	if c.result.IndexLines != 4 || last == nil || last.Position != nil || last.Gaps[0] != archive.GapMaxEntries {
		t.Errorf("%d lines, last %+v", c.result.IndexLines, last)
	}
	c = capture(t, root, archive.Options{MaxBytes: 250})
	skipped := c.entries(t)["f4"]
	if c.result.IndexLines != 6 || skipped.Position != nil || skipped.Size != 100 || skipped.Gaps[0] != archive.GapMaxBytes {
		t.Errorf("%d lines, skipped %+v", c.result.IndexLines, skipped)
	}
}

func TestWriteReturnsTheErrorOfItsIndex(t *testing.T) {
	want := errors.New("store is gone")
	reader, out := io.Pipe()
	must(t, reader.CloseWithError(want))
	for _, options := range []archive.Options{{Index: out}, {Timeline: out}} {
		if _, err := archive.Write(t.Context(), io.Discard, mixedTree(t), options); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
}

func TestIndexLinesAreJSONThatAnyoneReads(t *testing.T) {
	c := capture(t, makeTree(t), archive.Options{})
	for line := range bytes.Lines(c.index) {
		var entry struct {
			Path, Type, Size, Inode, ModTime string
			Position                         struct{ Frame, FrameSize, Offset int64 }
		}
		must(t, json.Unmarshal(line, &entry))
		if entry.Path == "" || entry.Inode == "" || entry.ModTime == "" || entry.Position.FrameSize == 0 {
			t.Errorf("line %s", line)
		}
	}
}
