package archive

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// maxCame bounds how many names are looked at that came into folders while they were read, with everything below them:
	// a process that runs on makes and moves names faster than they are archived. To remember their objects takes some
	// 10 MB.
	maxCame = 100_000
	// notAgain is where no folder is read again.
	notAgain = -1
)

var (
	// errTooManyCame unwinds the walk to the folder that is read again.
	errTooManyCame = errors.New("too many names came")
	errMoved       = errors.New("it was met before under another name that came while its folder was read")
)

// nameList is the list of an open folder.
type nameList interface {
	io.Seeker
	Readdirnames(n int) ([]string, error)
}

// origin tells an object from one that has its inode later. Where the filesystem knows no time of birth, one that was written
// to since is another one.
type origin struct {
	inode
	born, written unix.StatxTimestamp
	size          uint64
}

// arrivals are the names that came into folders while they were read, with everything below them.
type arrivals struct {
	// into is the length of the path of the folder that is read again, or notAgain.
	into int
	// room is how many names may still be looked at.
	room int
	// met are the files and folders among them.
	met map[origin]struct{}
}

// newNames walks the names that a folder has got since it was read: a log that was rotated has another name.
func (w *walker) newNames(parent *object, list nameList, seen []string, depth int) error {
	above := w.came.into
	w.came.into = len(w.here)
	err := w.readAgain(parent, list, seen, depth)
	w.came.into = above
	if errors.Is(err, errTooManyCame) {
		return nil
	}
	return err
}

func (w *walker) readAgain(parent *object, list nameList, seen []string, depth int) error {
	if _, err := list.Seek(0, io.SeekStart); err != nil {
		return w.lack(w.join(""), GapUnreadable, fmt.Errorf("read the folder again: %w", err), nil)
	}
	for room := len(seen) + maxCame; room >= 0; {
		names, held, done := w.readNames(list)
		room -= len(names)
		names = slices.DeleteFunc(names, func(name string) bool {
			_, is := slices.BinarySearch(seen, name)
			return is
		})
		err := w.names(parent, names, depth)
		w.nameRoom += held
		if err == nil && done != nil && !errors.Is(done, io.EOF) {
			err = w.lack(w.join(""), GapUnreadable, done, nil)
		}
		if err != nil || done != nil {
			return err
		}
	}
	cause := fmt.Errorf("the list did not end after %d names", len(seen)+maxCame)
	return w.lack(w.join(""), GapTooManyNewNames, cause, nil)
}

// countCame counts an object among those that came, and ends the walk of them when there are too many.
func (w *walker) countCame(o *object) error {
	if w.came.into == notAgain {
		return nil
	}
	if w.came.room == 0 {
		cause := fmt.Errorf("more than %d names came into folders while they were read: of what came into %q nothing follows",
			maxCame, "./"+string(w.here[:w.came.into]))
		if err := w.missing(o, GapTooManyNewNames, cause); err != nil {
			return err
		}
		return errTooManyCame
	}
	w.came.room--
	return nil
}

// cameBefore says whether an open file or folder that came was met among those before, and remembers it.
func (w *walker) cameBefore(o *object) bool {
	if w.came.into == notAgain {
		return false
	}
	id := origin{inode: identity(o), born: o.stat.Btime}
	if o.stat.Mask&unix.STATX_BTIME == 0 {
		id = origin{inode: identity(o), written: o.stat.Mtime, size: o.stat.Size}
	}
	_, before := w.came.met[id]
	w.came.met[id] = struct{}{}
	return before
}
