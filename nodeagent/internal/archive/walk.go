package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
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

// firstName is where an object with several names was archived, how many names may still come, and the digest of its
// content.
type firstName struct {
	path   string
	left   uint32
	hashed bool
	sum    [sha256.Size]byte
}

// walker archives one tree. It is used once.
type walker struct {
	// interrupted is the context's Err.
	interrupted func() error
	options     Options
	deadline    time.Time
	compressor  *compressor
	tar         tarEncoder
	marks       marks
	gaps        *evidence.GapLog
	links       map[inode]*firstName
	// at and offset are where the current entry begins.
	at     *place
	offset int64
	// lower is the root of the layers below.
	lower int
	// came is what is known of names that came into folders while they were read.
	came arrivals
	// linkRoom and nameRoom are what is left of maxLinkNames and maxNames.
	linkRoom, nameRoom int
	// here is the path of the folder that is walked, kept once for all levels: each level's own copy would take half of
	// the square of the longest path.
	here, joined []byte

	entries, bytesRead int64
	// skipped is set when a file was left out because of MaxBytes, or ends in zeros because of MaxDuration.
	skipped bool
	// hashed is maxHashed, or less in a test.
	hashed int64

	// holeRoom is how many bytes of holes may still be hashed.
	holeRoom int64

	// attributes is where the kernel puts attributes, buffer the content of files of other layers.
	attributes, buffer []byte
}

func newWalker(ctx context.Context, c *compressor, options Options) *walker {
	w := &walker{
		interrupted: ctx.Err,
		options:     options,
		compressor:  c,
		marks:       marksOf(options),
		gaps:        evidence.NewGapLog(options.Artifact, options.Gaps),
		links:       map[inode]*firstName{},
		came:        arrivals{into: notAgain, room: maxCame, met: map[origin]struct{}{}},
		linkRoom:    maxLinkNames,
		nameRoom:    maxNames,
		lower:       unknownFolder,
		holeRoom:    maxHoles,
		attributes:  make([]byte, attributeBuffer),
		hashed:      maxHashed,
	}
	if options.MaxDuration > 0 {
		w.deadline = time.Now().Add(options.MaxDuration)
	}
	return w
}

// root archives an open folder as the root, and closes it.
func (w *walker) root(folder int) error {
	root := &object{folder: folder, path: ".", beside: layers{unknownFolder, unknownFolder}}
	if err := describe(folder, "", &root.stat); err != nil {
		return errors.Join(fmt.Errorf("describe root: %w", err), unix.Close(folder))
	}
	if w.options.Upper != "" || w.options.UpperLayer {
		root.layer = evidence.LayerUpper // its metadata are always those of the upper layer's root
	}
	return w.folder(root, folder, 0)
}

// folder writes an open folder and everything below it, and closes it. The path of o is not known any more afterwards.
func (w *walker) folder(o *object, fd, depth int) error {
	list := os.NewFile(uintptr(fd), o.name) // #nosec G115 -- descriptors are not negative
	beside := layers{unknownFolder, unknownFolder}
	err := w.folderEntry(o, attributesOf(fd))
	if err == nil {
		beside, err = w.below(o)
	}
	if depth == 0 {
		w.lower = beside.lower
	}
	if err == nil {
		err = w.content(o, list, beside, depth)
	}
	if closed := errors.Join(list.Close(), beside.close()); err == nil {
		err = closed
	}
	return err
}

// content walks everything below an open folder.
func (w *walker) content(o *object, list *os.File, beside layers, depth int) error {
	above := len(w.here)
	if depth > 0 {
		w.here = append(w.here[:0], o.path...)
	}
	o.path = "" // it stands in here while the levels below are walked
	parent := &object{folder: int(list.Fd()), beside: beside}
	parent.xwhiteouts = w.options.UpperLayer && w.marks.hasWhiteoutFiles(parent.folder)
	seen, err := w.batches(parent, list, depth)
	changed := false
	if err == nil {
		changed, err = w.folderChanges(o, parent)
	}
	if changed && seen.whole && err == nil {
		err = w.newNames(parent, list, seen.names, depth)
	}
	w.nameRoom += seen.held
	w.here = w.here[:above]
	return err
}

// seenNames are names of a folder, how much of the room for names they hold, and whether they are all there were.
type seenNames struct {
	names []string
	held  int
	whole bool
}

// batches walks the names of a folder. It returns the last ones, which hold their room on.
func (w *walker) batches(parent *object, list *os.File, depth int) (seenNames, error) {
	for whole := true; ; whole = false {
		names, held, done := w.readNames(list)
		err := w.names(parent, names, depth)
		if err == nil && done != nil && !errors.Is(done, io.EOF) {
			err = w.lack(w.join(""), GapUnreadable, done, nil)
		}
		if err != nil || done != nil {
			return seenNames{names, held, whole}, err
		}
		w.nameRoom += held
	}
}

func (w *walker) names(parent *object, names []string, depth int) error {
	for _, name := range names {
		child := *parent
		child.name, child.path = name, w.join(name)
		if err := w.name(&child, depth); err != nil {
			return err
		}
	}
	return nil
}

// folderChanges names a folder in which names came, went or were replaced while its content was archived.
func (w *walker) folderChanges(o, parent *object) (changed bool, err error) {
	var after unix.Statx_t
	if err := describe(parent.folder, "", &after); err != nil {
		return false, w.lack(w.join(""), GapUnreadable, err, nil)
	}
	if after.Mtime == o.stat.Mtime && after.Ctime == o.stat.Ctime {
		return false, nil
	}
	cause := fmt.Errorf("the folder was modified %s and %s, changed %s and %s",
		stamp(o.stat.Mtime), stamp(after.Mtime), stamp(o.stat.Ctime), stamp(after.Ctime))
	return true, w.lack(w.join(""), GapChangedWhileRead, cause, nil)
}

// readNames returns the next names of a folder, sorted, and how much of the room for names they took.
func (w *walker) readNames(list nameList) (names []string, held int, err error) {
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

// join is the path of a name in the folder that is walked, or without a name that of the folder.
func (w *walker) join(name string) string {
	switch {
	case len(w.here) == 0 && name == "":
		return "."
	case len(w.here) == 0:
		return name
	case name == "":
		return string(w.here)
	}
	w.joined = append(append(append(w.joined[:0], w.here...), '/'), name...)
	return string(w.joined)
}

// name archives one name of a folder.
func (w *walker) name(o *object, depth int) error {
	if err := w.limits(o); err != nil {
		return err
	}
	if err := describe(o.folder, o.name, &o.stat); err != nil {
		return w.missing(o, GapUnreadable, err)
	}
	if isMountPoint(&o.stat) {
		return w.missing(o, GapMountPoint, errMountPoint)
	}
	if err := w.findLayer(o); err != nil {
		return err
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
	return w.missing(o, evidence.GapSocketNotArchived, errors.New("tar has no type for it"))
}

// limits ends the walk, or that of the names that came into a folder, at an object when a limit is reached.
func (w *walker) limits(o *object) error {
	if err := w.interrupted(); err != nil {
		return err
	}
	if w.options.MaxEntries > 0 && w.entries >= w.options.MaxEntries {
		return w.stop(o, GapMaxEntries)
	}
	if w.late() {
		return w.stop(o, GapMaxDuration)
	}
	return w.countCame(o)
}

func (w *walker) late() bool { return !w.deadline.IsZero() && time.Now().After(w.deadline) }

var errNothingFollows = errors.New("nothing was archived from here on")

func (w *walker) stop(o *object, reason string) error {
	if err := w.missing(o, reason, errNothingFollows); err != nil {
		return err
	}
	return errLimit
}

// enter opens a folder and archives it.
func (w *walker) enter(o *object, depth int) error {
	if depth > maxDepth {
		return w.missing(o, GapTooDeep, fmt.Errorf("deeper than %d levels", maxDepth))
	}
	if len(o.path)+len("/")+unix.NAME_MAX > maxPath {
		return w.missing(o, GapTooDeep, fmt.Errorf("paths below exceed %d bytes", maxPath))
	}
	fd, err := open(o.folder, o.name, unix.O_DIRECTORY)
	if errors.Is(err, unix.EXDEV) {
		return w.missing(o, GapMountPoint, err)
	}
	if err != nil {
		// The folder itself is still archived: its name, owner, mode and times are evidence.
		if err := w.gap(o, GapUnreadable, err); err != nil {
			return err
		}
		return w.folderEntry(o, attributesAt(o.folder, o.name))
	}
	if err := describe(fd, "", &o.stat); err != nil {
		return errors.Join(w.missing(o, GapUnreadable, err), unix.Close(fd))
	}
	if w.cameBefore(o) {
		return errors.Join(w.missing(o, GapMovedWhileRead, errMoved), unix.Close(fd))
	}
	return w.folder(o, fd, depth)
}

// open opens a path below a folder for reading, through no link and onto no other mount, without touching its access
// time where we may.
func open(folder int, name string, flags uint64) (int, error) {
	how := &unix.OpenHow{
		Flags:   flags | unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
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

// openRoot opens a folder of the caller's choice, which is no link.
func openRoot(path string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Open(path, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(path, flags, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open: %w", err)
	}
	return fd, nil
}

var errMountPoint = errors.New("something is mounted on it, which was not looked into")

// isMountPoint says whether a name leads onto another mount. A kernel before 5.8 does not tell; opening it does.
func isMountPoint(stat *unix.Statx_t) bool {
	return stat.Attributes_mask&stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// describe fills stat for a name of a folder, or for the descriptor itself when the name is empty. A name can lead onto a
// mount whose server never answers: of a name the kernel tells what it has in memory, which is all on a local filesystem.
func describe(folder int, name string, stat *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	err := unix.Statx(folder, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, stat)
	if err != nil {
		return fmt.Errorf("statx: %w", err)
	}
	return nil
}
