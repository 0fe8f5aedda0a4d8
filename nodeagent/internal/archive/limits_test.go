package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newTestWalker returns a walker of root and a function that walks and returns the archive.
func newTestWalker(t *testing.T, options Options) (w *walker, walk func(root string) []byte) {
	t.Helper()
	var out bytes.Buffer
	encoders, err := options.encoders()
	must(t, err)
	compressor := newCompressor(&out, newIndexer(options), encoders)
	w = newWalker(t.Context(), compressor, options)
	return w, func(root string) []byte {
		t.Helper()
		folder, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, errors.Join(w.root(folder), w.end(), compressor.close()))
		return out.Bytes()
	}
}

// entries reads an archive to its end with Go's reader and returns how many entries it has.
func entries(t *testing.T, compressed []byte) int {
	t.Helper()
	decoder, err := zstd.NewReader(bytes.NewReader(compressed))
	must(t, err)
	defer decoder.Close()
	return count(t, decoder)
}

func count(t *testing.T, stream io.Reader) int {
	t.Helper()
	reader, count := tar.NewReader(stream), 0
	for {
		_, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return count
		}
		must(t, err)
		count++
	}
}

func gapCounts(w *walker) map[string]int64 {
	counts := map[string]int64{}
	for _, gap := range w.gaps.Gaps() {
		counts[gap.Reason] = gap.Count
	}
	return counts
}

func TestNamesOfAllLevelsShareOneBoundAndNothingIsLost(t *testing.T) {
	const levels, files, nameLength = 20, 200, 200
	root := t.TempDir()
	folder := root
	for range levels {
		for i := range files {
			must(t, os.WriteFile(filepath.Join(folder, fmt.Sprintf("f%0*d", nameLength-1, i)), nil, 0o600))
		}
		folder = filepath.Join(folder, "a") // sorts first: the files wait while it is walked
		must(t, os.Mkdir(folder, 0o700))
	}
	const room = files * nameLength
	least := room
	var w *walker
	w, walk := newTestWalker(t, Options{Progress: func(Progress) { least = min(least, w.nameRoom) }})
	w.nameRoom = room
	if got, want := entries(t, walk(root)), levels*(files+1)+1; got != want {
		t.Errorf("%d entries, want %d", got, want)
	}
	if floor := -(levels + 1) * chunk * (nameLength + nameCost); least < floor {
		t.Errorf("names took %d bytes beyond the room, want at most %d", -least, -floor)
	}
	if w.nameRoom != room || len(gapCounts(w)) != 0 {
		t.Errorf("room %d was not given back, or gaps %v", w.nameRoom, gapCounts(w))
	}
}

// TestNamesThatWereSeenHoldTheirRoomWhileNewOnesAreWalked has a folder come into one that was read.
func TestNamesThatWereSeenHoldTheirRoomWhileNewOnesAreWalked(t *testing.T) {
	const files, room = 100, 1 << 20
	root := t.TempDir()
	for i := range files {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("f%03d", i)), nil, 0o600))
	}
	newer := filepath.Join(root, "newer")
	within := 0
	var w *walker
	w, walk := newTestWalker(t, Options{Progress: func(Progress) {
		if string(w.here) == "newer" {
			within = w.nameRoom
			return
		}
		if w.nameRoom == room {
			return // the names are not read yet
		}
		if err := os.Mkdir(newer, 0o700); !errors.Is(err, os.ErrExist) {
			must(t, errors.Join(err, os.WriteFile(filepath.Join(newer, "file"), nil, 0o600)))
		}
	}})
	w.nameRoom = room
	if got := entries(t, walk(root)); got != files+3 {
		t.Errorf("%d entries", got)
	}
	const name = len("f000") + nameCost
	if want := room - 2*files*name - len("newer") - len("file") - 2*nameCost; within != want {
		t.Errorf("while what came is walked, the room is %d, want %d", within, want)
	}
	if w.nameRoom != room {
		t.Errorf("room %d was not given back", w.nameRoom)
	}
}

// TestWhatCameIntoAFolderIsWalkedHoweverLittleRoomItsNamesLeft has more come than is read at once.
func TestWhatCameIntoAFolderIsWalkedHoweverLittleRoomItsNamesLeft(t *testing.T) {
	const files, came = 2 * chunk, 3 * chunk
	root := t.TempDir()
	for i := range files {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("f%07d", i)), nil, 0o600))
	}
	const room = files*(len("f0000000")+nameCost) + 1
	done := false
	var w *walker
	w, walk := newTestWalker(t, Options{Progress: func(Progress) {
		if done || w.nameRoom == room {
			return // the names are not read yet
		}
		done = true
		for i := range came {
			must(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("n%07d", i)), nil, 0o600))
		}
	}})
	w.nameRoom = room
	if got, want := entries(t, walk(root)), files+came+1; got != want || w.nameRoom != room {
		t.Errorf("%d entries, want %d; room %d, want %d", got, want, w.nameRoom, room)
	}
}

func TestFirstNamesOfHardLinksAreBoundedByTheirBytes(t *testing.T) {
	w, _ := newTestWalker(t, Options{})
	remembered := 0
	object := &object{path: strings.Repeat("p", maxPath), stat: unix.Statx_t{Nlink: 2, Mode: unix.S_IFREG}}
	for i := range uint64(100) {
		object.stat.Ino = i
		must(t, w.remember(object))
	}
	for _, first := range w.links {
		remembered += len(first.path)
	}
	if want := maxLinkNames / maxPath * maxPath; remembered != want {
		t.Errorf("%d bytes of names are remembered, want %d", remembered, want)
	}
	if got := gapCounts(w)[evidence.GapHardLinkStoredAsFile]; got != int64(100-maxLinkNames/maxPath) {
		t.Errorf("%d gaps", got)
	}
	object.stat.Ino = 0
	if linked, err := w.hardLink(object); !linked || err != nil || w.linkRoom != maxPath {
		t.Errorf("the last link did not give its room back: %v, %d (%v)", linked, w.linkRoom, err)
	}
}

func TestPathLongerThanAnArchiveCanHoldIsAGapAndTheRestIsReadable(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "zz-after"), nil, 0o600))
	folder, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	name := strings.Repeat("n", unix.NAME_MAX)
	for range maxPath/len(name) + 10 {
		must(t, unix.Mkdirat(folder, name, 0o700))
		below, err := unix.Openat(folder, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, errors.Join(err, unix.Close(folder)))
		folder = below
	}
	must(t, unix.Close(folder))
	w, walk := newTestWalker(t, Options{})
	got := entries(t, walk(root))
	if want := 1 + maxPath/(len(name)+1) - 1 + 1; got != want {
		t.Errorf("%d entries, want %d", got, want)
	}
	if counts := gapCounts(w); len(counts) != 1 || counts[GapTooDeep] != 1 {
		t.Errorf("gaps %v", counts)
	}
}

func TestAttributesThatDoNotFitBesideThePathAreNamedAndTheArchiveIsReadable(t *testing.T) {
	large, small := map[string][]byte{}, map[string][]byte{}
	for i := range 16 {
		large[fmt.Sprintf("user.large%02d", i)] = make([]byte, 64<<10)
	}
	for i := range 7000 {
		small[fmt.Sprintf("u.%%%d", i)] = make([]byte, 100)
	}
	for name, attributes := range map[string]map[string][]byte{"a few large ones": large, "many small ones": small} {
		t.Run(name, func(t *testing.T) {
			var gaps bytes.Buffer
			w, _ := newTestWalker(t, Options{Gaps: &gaps})
			o := &object{path: strings.Repeat("p", maxPath), stat: unix.Statx_t{Mode: unix.S_IFLNK}}
			h, err := w.header(o, flagSymlink, fakeAttributes(attributes))
			must(t, err)
			h.link = strings.Repeat("\xff", unix.PathMax)
			if got := count(t, bytes.NewReader(append(w.tar.header(h), zeros[:]...))); got != 1 {
				t.Errorf("%d entries", got)
			}
			left := len(attributes) - len(h.xattrs)
			if left == 0 || len(h.xattrs) == 0 || gapCounts(w)[GapAttributes] != 1 {
				t.Errorf("%d attributes left out, gaps %v", left, gapCounts(w))
			}
			if named := strings.Count(gaps.String(), errAttributesTooLarge.Error()); named != left {
				t.Errorf("%d attributes are named, %d were left out", named, left)
			}
		})
	}
}

func fakeAttributes(attributes map[string][]byte) attributeSource {
	return attributeSource{
		list: func(buffer []byte) (int, error) {
			n := 0
			for name := range attributes {
				n += copy(buffer[n:], name+"\x00")
			}
			return n, nil
		},
		get: func(name string, buffer []byte) (int, error) { return copy(buffer, attributes[name]), nil },
	}
}

func TestTimeThatRunsOutInsideALargeFileLeavesAWholeArchive(t *testing.T) {
	for _, format := range []Format{Zstd, Gzip} {
		t.Run(string(format), func(t *testing.T) {
			root := t.TempDir()
			content := bytes.Repeat([]byte("content "), 5<<17)
			must(t, os.WriteFile(filepath.Join(root, "large"), content, 0o600))
			var w *walker
			var index bytes.Buffer
			options := Options{Format: format, Index: &index, Progress: func(p Progress) {
				if p.BytesRead > 0 {
					w.deadline = time.Unix(0, 1)
				}
			}}
			var walk func(string) []byte
			w, walk = newTestWalker(t, options)
			w.hashed = 1 << 20
			compressed := walk(root)
			plain := decompress(t, format, compressed)
			reader := tar.NewReader(bytes.NewReader(plain))
			_, err := reader.Next()
			must(t, err)
			header, err := reader.Next()
			must(t, err)
			got, err := io.ReadAll(reader)
			must(t, err)
			read := int(w.bytesRead)
			if header.Size != int64(len(content)) || len(got) != len(content) || read == 0 || read >= len(content) {
				t.Fatalf("%d of %d bytes, read %d", len(got), len(content), read)
			}
			if !bytes.Equal(got[:read], content[:read]) || len(bytes.Trim(got[read:], "\x00")) > 0 {
				t.Error("what was read is not followed by zeros alone")
			}
			if _, err := reader.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("the archive does not end: %v", err)
			}
			if gapCounts(w)[GapMaxDuration] == 0 || bytes.Contains(bytes.Split(index.Bytes(), []byte("\n"))[1], []byte("sha256")) {
				t.Errorf("gaps %v, index %s", w.gaps.Gaps(), index.Bytes())
			}
		})
	}
}

func TestTimeThatRunsOutInsideTheLastFileTruncatesTheArchive(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "large"), make([]byte, 4<<20), 0o600))
	const limit = 2 * time.Second // long enough for the file to be begun
	var gaps bytes.Buffer
	runOut := sync.OnceFunc(func() { time.Sleep(limit) })
	result, err := Write(t.Context(), io.Discard, root, Options{MaxDuration: limit, Gaps: &gaps, Progress: func(p Progress) {
		if p.BytesRead > 0 {
			runOut()
		}
	}})
	must(t, err)
	if result.Entries != 2 || !strings.Contains(gaps.String(), "the rest of this file is zeros") {
		t.Errorf("result %+v, gaps %s", result, gaps.String())
	}
	if !result.Truncated {
		t.Error("an archive whose last file ends in zeros is not truncated")
	}
}

func decompress(t *testing.T, format Format, compressed []byte) []byte {
	t.Helper()
	var plain io.Reader
	if format == Gzip {
		unzipped, err := gzip.NewReader(bytes.NewReader(compressed))
		must(t, err)
		plain = unzipped
	} else {
		decoder, err := zstd.NewReader(bytes.NewReader(compressed))
		must(t, err)
		defer decoder.Close()
		plain = decoder
	}
	content, err := io.ReadAll(plain)
	must(t, err)
	return content
}
