package volatile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxMounted bounds the mounts of all namespaces together: the kernel lets one have 100,000 by default. 20 MiB.
const maxMounted = 250_000

// mounted are the mounts that a path leads to: those of the mount namespaces that threads of the pod are in, and of the
// node's own.
type mounted struct {
	ids map[uint64]bool
	// whole are the devices of filesystems that are mounted from their root on: a path leads to every file of them that has
	// a name.
	whole map[string]bool
	// views were read.
	views map[view]bool
	// partial says that a list is missing, so that of no mount it can be said that it is in none.
	partial bool
	// left is how much text is still read, of all lists together.
	left int64
}

// view is what decides which mounts the kernel lists for a thread: its mount namespace, and its root in it.
type view struct {
	namespace, mount uint64
	root             fileKey
}

func newMounted() *mounted {
	return &mounted{ids: map[uint64]bool{}, whole: map[string]bool{}, views: map[view]bool{}, left: maxMountinfo}
}

// nowhere says whether what was looked at lies on a mount that is in no list, of a filesystem that no list has from its root
// on: the mount was taken away while it was in use, or never attached, or is of a namespace that only a descriptor holds, or
// is newer than the lists.
func (m *mounted) nowhere(stat *unix.Statx_t) bool {
	return !m.partial && stat.Mask&unix.STATX_MNT_ID != 0 && !m.lead(stat.Mnt_id, stat.Dev_major, stat.Dev_minor)
}

// lead says whether a path leads to what was reached through a mount, on a device.
func (m *mounted) lead(through uint64, major, minor uint32) bool {
	return m.ids[through] || m.whole[device(major, minor)]
}

// findMounted reads the lists of mounts of the node and of the target's threads.
func (r *fileReader) findMounted(ctx context.Context, target Target) error {
	if err := r.mounted.node(r.options.NodeMounts); err != nil {
		reason := reasonOf(err)
		if reason == GapEnded {
			reason = GapUnreadable // it is no process's
		}
		if err := r.mountsUnknown(r.options.NodeMounts, reason, err); err != nil {
			return err
		}
	}
	for _, process := range target.Processes {
		h, err := open(process, r.options.Limits.Patience)
		if err != nil {
			continue // find names it
		}
		err = r.mountsOf(ctx, h)
		h.release()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			continue
		}
		if err := r.mountsUnknown("/proc/"+strconv.Itoa(process.PID)+"/mountinfo", reasonOf(err), err); err != nil {
			return err
		}
	}
	return nil
}

// mountsUnknown names a list of mounts that could not be read.
func (r *fileReader) mountsUnknown(path, reason string, err error) error {
	r.mounted.partial = true
	cause := fmt.Errorf("files on mounts that are in no list are not told apart: %w", err)
	return r.gaps.add(path, reason, cause)
}

// node adds the mounts of the node.
func (m *mounted) node(mountinfo string) error {
	file, err := os.Open(mountinfo)
	if err != nil {
		return fmt.Errorf("open the node's list of mounts: %w", err)
	}
	return errors.Join(m.list(file, maxMounted), file.Close())
}

// mountsOf adds the mounts that the threads of a process see.
func (r *fileReader) mountsOf(ctx context.Context, h *handle) error {
	list := newMounted()
	list.views, list.left = maps.Clone(r.mounted.views), r.mounted.left
	threads, room := r.options.Limits.Threads, maxMounted-len(r.mounted.ids)
	more, _, err := watched(ctx, r.guard, h.shared, h.patience, func(*findings) (*mounted, error) {
		return list, list.read(h, threads, room)
	})
	if more != nil {
		r.mounted.left = more.left
	}
	if err != nil {
		return err
	}
	maps.Copy(r.mounted.ids, more.ids)
	maps.Copy(r.mounted.whole, more.whole)
	r.mounted.views = more.views
	return nil
}

// read adds the mounts of each view that a process's threads have and that was not read before.
func (m *mounted) read(h *handle, threads, room int) error {
	var failed error
	total := 0
	err := h.names("task", func(name string) bool {
		if total++; total > threads {
			return false // find names it
		}
		folder := "task/" + name + "/"
		at, err := viewOf(h, folder)
		if err == nil && !m.views[at] {
			err = m.thread(h, folder+"mountinfo", room)
			m.views[at] = err == nil
		}
		// A thread that has ended has no namespace: EINVAL.
		if err != nil && !gone(err) && !errors.Is(err, unix.EINVAL) {
			failed = err
		}
		return failed == nil
	})
	if gone(err) {
		err = nil
	}
	return errors.Join(err, failed)
}

func viewOf(h *handle, folder string) (view, error) {
	link, err := h.link(folder + "ns/mnt")
	if err != nil {
		return view{}, err
	}
	namespace, err := inodeOf(link)
	if err != nil {
		return view{}, err
	}
	root, err := h.look(folder + "root")
	return view{namespace, root.Mnt_id, fileKey{root.Dev_major, root.Dev_minor, root.Ino}}, err
}

func (m *mounted) thread(h *handle, name string, room int) error {
	file, err := h.file(name)
	if err != nil {
		return err
	}
	return errors.Join(m.list(file, room), file.Close())
}

func (m *mounted) list(from io.Reader, room int) error {
	var failed error
	err := scanMounts(from, &m.left, func(line string, _ bool) bool {
		mount, err := parseReached(line)
		switch {
		case err != nil:
			failed = fmt.Errorf("read mountinfo: %q: %w", line, err)
		case len(m.ids) >= room:
			failed = errLimit{limited("more mounts", maxMounted)}
		default:
			m.ids[mount.id] = true
			m.whole[mount.device] = m.whole[mount.device] || mount.whole
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

// onDetached is a link to something on a mount that is in no list.
type onDetached struct {
	candidate
	mount   uint64
	regular bool
}

// confirm reads the mounts of the process again, of which the lists may be older than a mount that is in use: a pod that is
// not frozen mounts what it likes. A regular file of what lies on none of them must be stored. The lists of other processes
// are not read again: a mount that is newer than they are is in no list that was read, though a path may lead to it.
func (l *listedFiles) confirm(h *handle) error {
	if len(l.detached) == 0 {
		return nil
	}
	detached, own := l.detached, newMounted()
	l.detached = nil
	err := own.thread(h, h.through+"mountinfo", maxMounted)
	for _, link := range detached {
		if err == nil && own.lead(link.mount, link.key.major, link.key.minor) {
			continue
		}
		l.detached = append(l.detached, link)
		if link.regular {
			l.candidates = append(l.candidates, link.candidate)
		}
	}
	if err != nil {
		return fmt.Errorf("tell the files apart that are on mounts that are in no list: %w", err)
	}
	return nil
}

var errDetached = errors.New("this mount is in no list of mounts that was read: of its files those that are open or mapped are stored")

// detached names each mount that is in no list, once: files that nobody holds may lie on it.
func (r *fileReader) detached(h *handle, list []onDetached) error {
	for i := range list {
		mount := list[i].mount
		if r.named[mount] {
			continue
		}
		r.named[mount] = true
		if err := r.gaps.add("/proc/"+strconv.Itoa(h.PID)+"/"+list[i].link, GapDetached, errDetached); err != nil {
			return err
		}
	}
	return nil
}
