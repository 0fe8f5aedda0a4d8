package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

const (
	// maxDepth is half of PATH_MAX: a deeper folder cannot be named in one call even with names of one byte. Each
	// level costs us one descriptor.
	maxDepth = 2048
	// maxPath bounds the path of an entry: twice that, a name and the first name of its object, leaves room in the 1 MiB
	// of an extended header.
	maxPath = 256 << 10
	// maxNames bounds the memory for names that were read and wait for their turn, over all levels of the descent. A
	// folder gets what the folders above it left: 100,000 names of 30 bytes.
	maxNames = 8 << 20
	// nameCost is what a name takes beside its bytes.
	nameCost = 48
	// chunk of names that every folder gets, however little room is left: 5 MB in the deepest tree of the longest names.
	chunk = 8
	// maxLinks bounds the number of first names of hard links, maxLinkNames their bytes.
	maxLinks     = 100_000
	maxLinkNames = 16 << 20
)

// errLimit unwinds the walk when a limit ends the archive.
var errLimit = errors.New("limit reached")

// inode identifies what hard links share.
type inode struct {
	major, minor uint32
	number       uint64
}

// firstName is where an object with several names was archived, and how many names may still come.
type firstName struct {
	path string
	left uint32
}

// counter counts the stream before compression.
type counter struct {
	out   io.Writer
	bytes int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	c.bytes += int64(n)
	return n, err
}

// walker archives one tree. It is used once.
type walker struct {
	// interrupted is the context's Err.
	interrupted func() error
	options     Options
	deadline    time.Time
	compressor  *compressor
	stream      *counter
	tar         tarWriter
	tree        evidence.MerkleTree
	gaps        gapLog
	links       map[inode]*firstName
	// linkRoom and nameRoom are what is left of maxLinkNames and maxNames.
	linkRoom, nameRoom int
	// here is the path of the folder that is walked, kept once for all levels: each level's own copy would take half of
	// the square of the longest path.
	here []byte

	entries, bytesRead int64
	// skipped is set when a file was left out because of MaxBytes, cut when the stream ends inside a file.
	skipped, cut bool

	content, attributes []byte
}

func newWalker(ctx context.Context, c *compressor, options Options) *walker {
	stream := &counter{out: c}
	w := &walker{
		interrupted: ctx.Err,
		options:     options,
		compressor:  c,
		stream:      stream,
		tar:         tarWriter{out: stream},
		gaps:        gapLog{artifact: options.Artifact, lines: options.Gaps, counts: map[string]*evidence.Gap{}},
		links:       map[inode]*firstName{},
		linkRoom:    maxLinkNames,
		nameRoom:    maxNames,
		content:     make([]byte, readSize),
		attributes:  make([]byte, attributeBuffer),
	}
	if options.MaxDuration > 0 {
		w.deadline = time.Now().Add(options.MaxDuration)
	}
	return w
}

// object is what the kernel said of a name, and where it is.
type object struct {
	folder int
	name   string
	path   string
	stat   unix.Statx_t
}

func (o *object) kind() uint16 { return o.stat.Mode & unix.S_IFMT }

// root archives an open folder as the root, and closes it.
func (w *walker) root(folder int) error {
	root := &object{folder: folder, path: "."}
	if err := describe(folder, "", &root.stat); err != nil {
		return errors.Join(fmt.Errorf("describe root: %w", err), unix.Close(folder))
	}
	return w.folder(root, folder, 0)
}

// folder writes an open folder and everything below it, and closes it. The path of o is not known any more afterwards.
func (w *walker) folder(o *object, fd, depth int) error {
	list := os.NewFile(uintptr(fd), o.name) // #nosec G115 -- descriptors are not negative
	err := w.folderEntry(o, attributesOf(fd))
	above := len(w.here)
	if depth > 0 {
		w.here = append(w.here[:0], o.path...)
	}
	o.path = "" // it stands in here while the levels below are walked
	for err == nil {
		names, held, done := w.readNames(list)
		for i := 0; i < len(names) && err == nil; i++ {
			err = w.name(&object{folder: fd, name: names[i], path: w.below(names[i])}, depth)
		}
		w.nameRoom += held
		if done != nil {
			if err == nil && !errors.Is(done, io.EOF) {
				err = w.gaps.add(w.below(""), GapUnreadable, done, nil)
			}
			break
		}
	}
	w.here = w.here[:above]
	if closed := list.Close(); err == nil {
		err = closed
	}
	return err
}

// readNames returns the next names of a folder, sorted, and how much of the room for names they took.
func (w *walker) readNames(list *os.File) (names []string, held int, err error) {
	for err == nil && (len(names) == 0 || w.nameRoom > 0) {
		var more []string
		more, err = list.Readdirnames(chunk)
		for _, name := range more {
			held += len(name) + nameCost
			w.nameRoom -= len(name) + nameCost
		}
		names = append(names, more...)
	}
	slices.Sort(names)
	return names, held, err
}

// below is the path of a name in the folder that is walked, or without a name that of the folder.
func (w *walker) below(name string) string { return path.Join(".", string(w.here), name) }

// name archives one name of a folder.
func (w *walker) name(o *object, depth int) error {
	if err := w.limits(o.path); err != nil {
		return err
	}
	if err := describe(o.folder, o.name, &o.stat); err != nil {
		return w.gaps.add(o.path, GapUnreadable, err, nil)
	}
	if o.kind() == unix.S_IFDIR {
		return w.enter(o, depth+1)
	}
	if linked, err := w.hardLink(o); linked || err != nil {
		return err
	}
	switch o.kind() {
	case unix.S_IFREG:
		return w.file(o)
	case unix.S_IFLNK:
		return w.symlink(o)
	case unix.S_IFCHR:
		return w.special(o, flagCharacter)
	case unix.S_IFBLK:
		return w.special(o, flagBlock)
	case unix.S_IFIFO:
		return w.special(o, flagFIFO)
	}
	return w.gaps.add(o.path, GapSocket, errors.New("tar has no type for it"), entryOf(o, nil))
}

// limits ends the walk at the object at path when a limit is reached.
func (w *walker) limits(path string) error {
	if err := w.interrupted(); err != nil {
		return err
	}
	if w.options.MaxEntries > 0 && w.entries >= w.options.MaxEntries {
		return w.stop(path, GapMaxEntries)
	}
	if w.late() {
		return w.stop(path, GapMaxDuration)
	}
	return nil
}

func (w *walker) late() bool { return !w.deadline.IsZero() && time.Now().After(w.deadline) }

func (w *walker) stop(path, reason string) error {
	cause := errors.New("nothing was archived from here on")
	if err := w.gaps.add(path, reason, cause, nil); err != nil {
		return err
	}
	return errLimit
}

// enter opens a folder and archives it.
func (w *walker) enter(o *object, depth int) error {
	if depth > maxDepth {
		cause := fmt.Errorf("deeper than %d levels", maxDepth)
		return w.gaps.add(o.path, GapTooDeep, cause, entryOf(o, nil))
	}
	if len(o.path)+len("/")+unix.NAME_MAX > maxPath {
		cause := fmt.Errorf("paths below exceed %d bytes", maxPath)
		return w.gaps.add(o.path, GapTooDeep, cause, entryOf(o, nil))
	}
	fd, err := open(o.folder, o.name, unix.O_DIRECTORY)
	if err != nil {
		reason := GapUnreadable
		if errors.Is(err, unix.EXDEV) {
			reason = GapMountPoint
		}
		// The folder itself is still archived: its name, owner, mode and times are evidence.
		return errors.Join(
			w.gaps.add(o.path, reason, err, nil),
			w.folderEntry(o, attributesAt(o.folder, o.name)),
		)
	}
	if err := describe(fd, "", &o.stat); err != nil {
		return errors.Join(w.gaps.add(o.path, GapUnreadable, err, nil), unix.Close(fd))
	}
	return w.folder(o, fd, depth)
}

// open opens one name of a folder for reading, through no link and onto no other mount, without touching its access
// time where we may.
func open(folder int, name string, flags uint64) (int, error) {
	how := &unix.OpenHow{
		Flags:   flags | unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(folder, name, how)
	if errors.Is(err, unix.EPERM) {
		how.Flags &^= unix.O_NOATIME
		fd, err = unix.Openat2(folder, name, how)
	}
	if err != nil {
		return -1, fmt.Errorf("open: %w", err)
	}
	return fd, nil
}

// describe fills stat for a name of a folder, or for the descriptor itself when the name is empty.
func describe(folder int, name string, stat *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err := unix.Statx(folder, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, stat)
	if err != nil {
		return fmt.Errorf("statx: %w", err)
	}
	return nil
}
