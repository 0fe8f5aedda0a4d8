package volatile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// FilesResult is what is known of the files that were found.
type FilesResult struct {
	// Files that were visited, and Bytes of their content that was read.
	Files, Bytes int64
	// Size and SHA256 of the archive, with WriteFiles alone.
	Size   int64
	SHA256 string
	Gaps   []evidence.Gap
	// Truncated is whether a limit left something out.
	Truncated bool
}

// File is a regular file that no name leads to, or that lives in memory alone: a deleted executable, a memfd, a deleted
// file that is open or mapped, shared memory, what is open or mapped of a mount that is in no list. It is held while it
// is visited.
type File struct {
	evidence.VolatileFile
	pinned pinned
	from   *fileReader
	// silent is set once the kernel did not answer for its content.
	silent error
	// ctx is that of the call to Files, which this value does not outlive.
	ctx context.Context
}

// fileKey names a file on this node.
type fileKey struct {
	major, minor uint32
	inode        uint64
}

// fileReader is the state of one call.
type fileReader struct {
	options Options
	guard   *guard
	gaps    *gapLog
	held    map[fileKey]*File
	mounted *mounted
	servers *servers
	// named are mounts that are in no list and that have a gap.
	named map[uint64]bool
	bytes int64
	files int64
}

func newFileReader(options Options) *fileReader {
	guard := newGuard(options.Limits)
	return &fileReader{
		options: options, guard: guard, gaps: newGapLog(options), held: map[fileKey]*File{}, mounted: newMounted(),
		servers: newServers(guard), named: map[uint64]bool{},
	}
}

// Files calls visit for each file of the processes that must be stored as one, each once, in the order of their names. All
// of them are held before the first is visited, so that they outlive their processes. An error of visit ends it.
//
// Only regular files are opened, without waiting; what cannot be read is a gap.
func Files(ctx context.Context, target Target, options Options, visit func(*File) error) (FilesResult, error) {
	options.Limits = options.Limits.withDefaults()
	options.NodeMounts = cmp.Or(options.NodeMounts, "/proc/1/mountinfo")
	r := newFileReader(options)
	defer r.close()
	if err := r.all(ctx, target, visit); err != nil {
		return FilesResult{}, fmt.Errorf("read the files in memory of pod %s: %w", target.PodUID, err)
	}
	return FilesResult{Files: r.files, Bytes: r.bytes, Gaps: r.gaps.Gaps(), Truncated: r.gaps.truncated}, nil
}

func (r *fileReader) close() {
	for _, file := range r.held {
		file.pinned.release()
	}
}

func (r *fileReader) all(ctx context.Context, target Target, visit func(*File) error) error {
	if err := r.findMounted(ctx, target); err != nil {
		return err
	}
	for _, process := range target.Processes {
		if err := r.find(ctx, process); err != nil {
			return err
		}
	}
	keys := make([]fileKey, 0, len(r.held))
	for key := range r.held {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b fileKey) int {
		return cmp.Or(cmp.Compare(a.major, b.major), cmp.Compare(a.minor, b.minor), cmp.Compare(a.inode, b.inode))
	})
	for _, key := range keys {
		file := r.held[key]
		file.ctx = ctx
		if err := r.plan(file); err != nil {
			return err
		}
		r.files++
		if err := visit(file); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// candidate is a link of a process to a file that must be stored.
type candidate struct {
	link, path string
	key        fileKey
}

// find holds the files of one process.
func (r *fileReader) find(ctx context.Context, process Process) error {
	folder := "/proc/" + strconv.Itoa(process.PID)
	h, err := open(process, r.options.Limits.Patience)
	if err != nil {
		return r.gaps.add(folder, reasonOf(err), err)
	}
	defer h.release()
	limits, known := r.options.Limits, r.mounted
	through, missing, err := watched(ctx, r.guard, h.shared, h.patience, func(found *findings) (string, error) {
		return findThrough(h, found)
	})
	if err == nil && through == "" {
		err = errEnded
	}
	var found listedFiles
	if err == nil {
		h.through = through
		found, missing, err = watched(ctx, r.guard, h.shared, h.patience, func(found *findings) (listedFiles, error) {
			return listFiles(h, limits, known, found)
		})
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		missing.add("files", reasonOf(err), err)
	}
	for _, gap := range missing {
		if err := r.gaps.add(folder+"/"+gap.part, gap.reason, gap.cause); err != nil {
			return err
		}
	}
	if err := r.detached(h, found.detached); err != nil {
		return err
	}
	for _, candidate := range found.candidates {
		if err := r.hold(ctx, h, candidate, found.mounts); err != nil {
			return err
		}
	}
	return nil
}

// listedFiles are those of one process.
type listedFiles struct {
	candidates []candidate
	mounts     []evidence.VolatileMount
	// known are the mounts of all processes, detached is what lies on others.
	known    *mounted
	detached []onDetached
}

var errNoMaps = errors.New("its main thread has ended: the kernel does not lead to what the other threads map")

// listFiles lists what must be stored of a process, and what it holds on mounts that are in no list. Its own mounts say only
// which filesystems need not be asked what they are: what could not be read of them hides no file.
func listFiles(h *handle, limits Limits, known *mounted, found *findings) (listedFiles, error) {
	seen, err := readMounts(h, limits.Mounts, found)
	if err != nil {
		found.add("mounts", reasonOf(err), err)
	}
	listed := listedFiles{mounts: seen.list, known: known}
	err = listed.links(h, limits, found)
	return listed, errors.Join(err, listed.confirm(h))
}

// links looks at the executable, the working folder and the root, at the descriptors of each table and at the mappings.
func (l *listedFiles) links(h *handle, limits Limits, found *findings) error {
	l.consider(h, "executable", h.through+"exe", found)
	l.consider(h, "folders", h.through+"cwd", found)
	l.consider(h, "folders", h.through+"root", found)
	tables, err := descriptorTables(h, limits.Threads, found)
	if err != nil {
		return err
	}
	for _, folder := range tables {
		if err := l.considerAll(h, "descriptors", folder+"fd", limits.Descriptors, found); err != nil {
			return err
		}
	}
	if main, err := h.stat("stat"); err == nil && main.state == "Z" {
		found.add("maps", GapUnreadable, errNoMaps)
		return nil
	}
	return l.considerAll(h, "maps", "map_files", limits.Maps, found)
}

// consider keeps a link that leads to a regular file without a name, or on a mount that is in no list. Namespaces and
// the like are regular files, too, but have no path.
func (l *listedFiles) consider(h *handle, part, name string, found *findings) {
	path, err := h.link(name)
	if errors.Is(err, unix.ENAMETOOLONG) {
		err = nil // what it is counts, not what it is called
	}
	var stat unix.Statx_t
	if err == nil {
		stat, err = h.look(name)
	}
	if gone(err) {
		return // it was closed meanwhile
	}
	if err != nil {
		found.once(part, reasonOf(err), err)
		return
	}
	kind := stat.Mode & unix.S_IFMT
	if (kind != unix.S_IFREG && kind != unix.S_IFDIR) || (path != "" && !strings.HasPrefix(path, "/")) {
		return
	}
	key := fileKey{stat.Dev_major, stat.Dev_minor, stat.Ino}
	switch link := (candidate{name, path, key}); {
	case stat.Nlink == 0 || markedDeleted(path):
		if kind == unix.S_IFREG {
			l.candidates = append(l.candidates, link)
		}
	case l.known.nowhere(&stat):
		l.detached = append(l.detached, onDetached{link, stat.Mnt_id, kind == unix.S_IFREG})
	}
}

func (l *listedFiles) considerAll(h *handle, part, folder string, limit int, found *findings) error {
	total := 0
	err := h.names(folder, func(name string) bool {
		if total++; total <= limit {
			l.consider(h, part, folder+"/"+name, found)
		}
		return true
	})
	if total > limit {
		found.add(part, GapLimit, limited(fmt.Sprintf("%d %s", total, part), int64(limit)))
	}
	if gone(err) {
		return nil
	}
	return err
}

// descriptorTables are the folders of threads with tables of their own, the one that is read first.
func descriptorTables(h *handle, limit int, found *findings) ([]string, error) {
	folders := []string{h.through}
	known := tables{h.reader()}
	total := 0
	err := h.names("task", func(name string) bool {
		tid, err := strconv.Atoi(name)
		if total++; total > limit || err != nil {
			return true
		}
		if state, err := h.stat(threadFolder(tid) + "stat"); err == nil && state.state != "Z" && state.state != "X" && known.first(tid, found) {
			folders = append(folders, threadFolder(tid))
		}
		return true
	})
	if total > limit {
		found.add("threads", GapLimit, limited(fmt.Sprintf("%d threads", total), int64(limit)))
	}
	return folders, err
}

// hold keeps a file, or adds a source to one that is held.
func (r *fileReader) hold(ctx context.Context, h *handle, candidate candidate, seen []evidence.VolatileMount) error {
	source := evidence.VolatileReference{PID: h.PID, Link: candidate.link}
	if file, ok := r.held[candidate.key]; ok {
		file.Sources = append(file.Sources, source)
		return nil
	}
	path := "/proc/" + strconv.Itoa(h.PID) + "/" + candidate.link
	if len(r.held) >= r.options.Limits.Files {
		return r.gaps.add(path, GapLimit, limited("more files", int64(r.options.Limits.Files)))
	}
	object, err := pinWatched(ctx, r.guard, h, candidate.link)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return r.gaps.add(path, reasonOf(err), err)
	}
	key := fileKey{object.stat.Dev_major, object.stat.Dev_minor, object.stat.Ino}
	if key == candidate.key {
		err = r.servers.refuse(ctx, object, seen, h)
	} else {
		err = fmt.Errorf("%s leads to another file now: %w", candidate.link, unix.ESTALE)
	}
	if ctx.Err() != nil {
		object.release()
		return ctx.Err()
	}
	if err != nil {
		object.release()
		return r.gaps.add(path, reasonOfContent(err), err)
	}
	r.held[key] = &File{VolatileFile: describeFile(object.stat, candidate.path, source), pinned: object, from: r}
	return nil
}

func describeFile(stat unix.Statx_t, path string, source evidence.VolatileReference) evidence.VolatileFile {
	return evidence.VolatileFile{
		Name: fmt.Sprintf("files/%d.%d-%d", stat.Dev_major, stat.Dev_minor, stat.Ino), Path: evidence.Text(path),
		Device: device(stat.Dev_major, stat.Dev_minor), Inode: stat.Ino, Links: stat.Nlink, Mode: uint32(stat.Mode & 0o7777),
		UID: stat.Uid, GID: stat.Gid, Size: stat.Size, ModTime: fmt.Sprintf("%d.%09d", stat.Mtime.Sec, stat.Mtime.Nsec),
		Sources: []evidence.VolatileReference{source}, Runs: []evidence.VolatileRun{},
	}
}
