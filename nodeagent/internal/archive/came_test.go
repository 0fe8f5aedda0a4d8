package archive

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// gapPaths are the paths of the gaps with a reason.
func gapPaths(t *testing.T, lines []byte, reason string) []string {
	t.Helper()
	var paths []string
	for line := range bytes.Lines(lines) {
		var gap evidence.GapLine
		must(t, json.Unmarshal(line, &gap))
		if gap.Reason == reason {
			paths = append(paths, gap.Path)
		}
	}
	return paths
}

// TestWhatIsRenamedAgainAndAgainIsArchivedTwiceAtMost moves an object, each time it was archived, to the name that is next.
func TestWhatIsRenamedAgainAndAgainIsArchivedTwiceAtMost(t *testing.T) {
	const size, names = 1000, 20
	write := func(path string) error { return os.WriteFile(path, make([]byte, size), 0o600) }
	folder := func(path string) error { return os.Mkdir(path, 0o700) }
	for name, test := range map[string]struct {
		make, makeNext func(path string) error
		format, moved  string
	}{
		"file": {
			make: write, makeNext: func(path string) error { return os.WriteFile(path, nil, 0o600) },
			format: "n%02d", moved: "n01",
		},
		"folder": {
			make: func(path string) error {
				must(t, folder(path))
				return write(filepath.Join(path, "content"))
			},
			makeNext: folder, format: "n%02d", moved: "n01",
		},
		"folder in a new one each time": {
			make: func(path string) error {
				must(t, folder(path))
				return write(filepath.Join(path, "content"))
			},
			makeNext: folder, format: "n%02d/in", moved: "n01/in",
		},
		"file in a new folder each time": {make: write, makeNext: folder, format: "n%02d/in", moved: "n01/in"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			at, read, moves := filepath.Join(root, "big"), int64(0), 0
			must(t, test.make(at))
			var gaps bytes.Buffer
			w, walk := newTestWalker(t, Options{Gaps: &gaps, Progress: func(p Progress) {
				if p.BytesRead == read || moves == names {
					return
				}
				for i := 0; moves == 0 && i < names; i++ {
					must(t, test.makeNext(filepath.Join(root, fmt.Sprintf("n%02d", i))))
				}
				next := filepath.Join(root, fmt.Sprintf(test.format, moves))
				must(t, unix.Rename(at, next)) // over an empty folder as well
				at, read, moves = next, p.BytesRead, moves+1
			}})
			entries(t, walk(root))
			if w.bytesRead != 2*size {
				t.Errorf("%d bytes were archived, want those of the object twice, %d", w.bytesRead, 2*size)
			}
			if diff := cmp.Diff([]string{test.moved}, gapPaths(t, gaps.Bytes(), GapMovedWhileRead)); diff != "" {
				t.Errorf("named as moved (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNewNamesAreBoundedAndWhatIsElsewhereIsArchived has more come into a folder than is looked at.
func TestNewNamesAreBoundedAndWhatIsElsewhereIsArchived(t *testing.T) {
	const before, room, came = 5, 10, 20
	for name, test := range map[string]struct {
		into string // the folder within the one that is read
		stop string
	}{
		"beside what was read":  {stop: "0/n10"},
		"in a folder that came": {into: "new/deep", stop: "0/new/deep/n08"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			must(t, os.Mkdir(filepath.Join(root, "0"), 0o700))
			must(t, os.WriteFile(filepath.Join(root, "0/first"), nil, 0o600))
			must(t, os.Mkdir(filepath.Join(root, "y"), 0o700))
			must(t, os.WriteFile(filepath.Join(root, "y/z"), nil, 0o600))
			var gaps bytes.Buffer
			done := false
			var w *walker
			w, walk := newTestWalker(t, Options{Gaps: &gaps, Progress: func(Progress) {
				if done || string(w.here) != "0" {
					return
				}
				done = true
				into := filepath.Join(root, "0", test.into)
				must(t, os.MkdirAll(into, 0o700))
				for i := range came {
					must(t, os.WriteFile(filepath.Join(into, fmt.Sprintf("n%02d", i)), nil, 0o600))
				}
			}})
			w.came.room = room
			nameRoom := w.nameRoom
			if got, want := entries(t, walk(root)), before+room; got != want {
				t.Errorf("%d entries, want %d", got, want)
			}
			if diff := cmp.Diff([]string{test.stop}, gapPaths(t, gaps.Bytes(), GapTooManyNewNames)); diff != "" {
				t.Errorf("where new names end (-want +got):\n%s", diff)
			}
			if w.nameRoom != nameRoom || len(w.here) != 0 {
				t.Errorf("room %d was not given back (%d), or the walk is still in %q", w.nameRoom, nameRoom, w.here)
			}
		})
	}
}

// sameNames is the list of a folder in which names that were seen are moved to the end again and again.
type sameNames struct{ names []string }

func (sameNames) Seek(int64, int) (int64, error) { return 0, nil }

func (s sameNames) Readdirnames(int) ([]string, error) { return s.names, nil }

func TestAListOfSeenNamesThatNeverEndsIsLeft(t *testing.T) {
	var gaps bytes.Buffer
	w, _ := newTestWalker(t, Options{Gaps: &gaps})
	w.nameRoom = 1000
	seen := []string{"a", "b"}
	must(t, w.newNames(&object{}, sameNames{seen}, seen, 0))
	if diff := cmp.Diff([]string{"."}, gapPaths(t, gaps.Bytes(), GapTooManyNewNames)); diff != "" || w.nameRoom != 1000 {
		t.Errorf("room %d; gaps (-want +got):\n%s", w.nameRoom, diff)
	}
}

// TestAnInodeThatIsUsedAnewIsNotTakenForAMovedObject has a new file where the inode of one that is gone is.
func TestAnInodeThatIsUsedAnewIsNotTakenForAMovedObject(t *testing.T) {
	w, _ := newTestWalker(t, Options{})
	w.came.into = 0
	for name, stats := range map[string][2]unix.Statx_t{
		"born later": {
			{Ino: 7, Mask: unix.STATX_BTIME, Btime: unix.StatxTimestamp{Sec: 1}},
			{Ino: 7, Mask: unix.STATX_BTIME, Btime: unix.StatxTimestamp{Sec: 1, Nsec: 1}},
		},
		"written later, on a filesystem that knows no time of birth": {
			{Ino: 8, Mtime: unix.StatxTimestamp{Sec: 1}}, {Ino: 8, Mtime: unix.StatxTimestamp{Sec: 2}},
		},
	} {
		gone, again := &object{stat: stats[0]}, &object{stat: stats[1]}
		if w.cameBefore(gone) || w.cameBefore(again) {
			t.Errorf("%s: an object is said to have come before that had not", name)
		}
		if !w.cameBefore(gone) {
			t.Errorf("%s: an object that came before is not known", name)
		}
	}
}

// TestAListThatEndsAtTheBoundIsNotCalledEndless has no name but those that were seen.
func TestAListThatEndsAtTheBoundIsNotCalledEndless(t *testing.T) {
	var gaps bytes.Buffer
	w, _ := newTestWalker(t, Options{Gaps: &gaps})
	w.nameRoom = maxNames
	seen := []string{"a"}
	left := make([]string, len(seen)+maxCame)
	for i := range left {
		left[i] = "a"
	}
	must(t, w.newNames(&object{}, &ending{names: left}, seen, 0))
	if gaps.Len() > 0 {
		t.Errorf("gaps %s", gaps.Bytes())
	}
}

// ending is a list that is told chunk by chunk, and its end after the last.
type ending struct{ names []string }

func (*ending) Seek(int64, int) (int64, error) { return 0, nil }

func (e *ending) Readdirnames(n int) ([]string, error) {
	if len(e.names) == 0 {
		return nil, io.EOF
	}
	now := e.names[:min(n, len(e.names))]
	e.names = e.names[len(now):]
	return now, nil
}
