package corpus

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Backdate sets both times of a file to the same moment of the past.
func Backdate(t testing.TB, path string) {
	t.Helper()
	at := unix.NsecToTimespec(time.Date(2020, 1, 2, 3, 4, 5, 67, time.UTC).UnixNano())
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
}

// WriteFile writes a file and the folders above it, and backdates it.
func WriteFile(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
	Backdate(t, path)
}

// Sparse makes 9 GiB that take two blocks: above what ustar's size field holds, and no more work than a small file.
func Sparse(t testing.TB, path string) {
	t.Helper()
	file, err := os.Create(path)
	must(t, err)
	_, early := file.WriteAt([]byte("early"), 5<<20)
	_, late := file.WriteAt([]byte("late"), 8<<30)
	must(t, errors.Join(early, late, file.Truncate(9<<30), file.Close()))
}

// Compressible makes a file of one byte over and over, which has no holes.
func Compressible(t testing.TB, path string, size int64) {
	t.Helper()
	file, err := os.Create(path)
	must(t, err)
	piece := bytes.Repeat([]byte("A"), 1<<20)
	for left := size; left > 0; left -= int64(len(piece)) {
		piece = piece[:min(left, int64(len(piece)))]
		_, err := file.Write(piece)
		must(t, err)
	}
	must(t, file.Close())
}

// Many makes folders with a thousand small files each.
func Many(t testing.TB, root string, folders int) {
	t.Helper()
	for i := range folders {
		folder := filepath.Join(root, strconv.Itoa(i))
		must(t, os.Mkdir(folder, 0o755))
		for j := range 1000 {
			must(t, os.WriteFile(filepath.Join(folder, fmt.Sprintf("file-%04d.txt", j)), []byte(folder), 0o644))
		}
	}
}
