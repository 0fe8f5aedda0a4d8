package volatile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// maxAsking is how many threads may be left waiting before no filesystem is asked any more what it is, no executable is opened,
// and no other file but in memory and on a plain disk: the rest is for what cannot be read in another way.
const maxAsking = maxAbandoned / 2

var (
	errNotRegular = errors.New("not a regular file")
	errServed     = errors.New("a server answers for this filesystem")
)

// servers tells the files apart that a server answers for: another machine, or a process of the pod, which is frozen.
type servers struct {
	guard *guard
	// answers are those of devices that were asked: what kept their files from being read, or nil.
	answers map[string]error
	// plain are devices that no server is behind: memory, and disks.
	plain map[string]bool
	// silent is the inode of the first file of a device that was given up.
	silent map[string]uint64
}

// newServers knows the filesystem of memfds and of shared memory, which is in no list of mounts: it is the agent's own, too,
// and need not be asked. Where it cannot be found, it is asked as others are.
func newServers(g *guard) *servers {
	s := &servers{guard: g, answers: map[string]error{}, plain: map[string]bool{}, silent: map[string]uint64{}}
	fd, err := unix.MemfdCreate("own", unix.MFD_CLOEXEC)
	if err != nil {
		return s
	}
	own := share(fd)
	defer own.release()
	var stat unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &stat); err == nil {
		on := device(stat.Dev_major, stat.Dev_minor)
		s.answers[on], s.plain[on] = nil, true
	}
	return s
}

// refuse says why a file must not be opened: it is no regular file, or a server answers for its filesystem. Where the mount is
// not in the list of its process, the filesystem is asked: the kernel may have to ask the server for that, so that a device is
// asked once, and is not asked again when it did not answer.
func (s *servers) refuse(ctx context.Context, file pinned, list []evidence.VolatileMount, h *handle) error {
	if file.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return errNotRegular
	}
	for _, mount := range list {
		if uint64(mount.ID) != file.stat.Mnt_id { // #nosec G115 -- ids are positive
			continue
		}
		if served(string(mount.Type)) {
			return fmt.Errorf("%s: %w", mount.Type, errServed)
		}
		if plain(string(mount.Type)) {
			s.plain[file.device()] = true
		}
		return nil
	}
	on := file.device()
	if answer, asked := s.answers[on]; asked {
		return answer
	}
	if s.guard.abandoned >= maxAsking {
		return fmt.Errorf("ask the filesystem %s for its type: %w", on, errNotBegun)
	}
	err := s.ask(ctx, file, h)
	if err == nil || errors.Is(err, errServed) || gaveUp(err) {
		s.answers[on] = err
	}
	return err
}

// ask has a file's filesystem tell its type.
func (s *servers) ask(ctx context.Context, file pinned, h *handle) error {
	kind, _, err := watched(ctx, s.guard, file.shared, h.patience, func(*findings) (int64, error) {
		var stat unix.Statfs_t
		err := unix.Fstatfs(file.fd, &stat)
		return stat.Type, err
	})
	switch {
	case err != nil:
		return fmt.Errorf("ask the filesystem %s for its type: %w", file.device(), err)
	case servedTypes[kind]:
		return fmt.Errorf("type %#x: %w", kind, errServed)
	case plainTypes[kind]:
		s.plain[file.device()] = true
	}
	return nil
}

// open reopens a file that was not refused. A server can be behind its filesystem all the same, such as below an overlay: one
// that did not answer for two files is not asked again.
func (s *servers) open(ctx context.Context, file pinned, patience time.Duration) (*content, error) {
	on := file.device()
	if answer := s.answers[on]; answer != nil {
		return nil, answer
	}
	if s.guard.abandoned >= maxAsking && !s.plain[on] {
		return nil, errNotBegun
	}
	opened, err := openContent(ctx, s.guard, file.shared, patience)
	return opened, s.heed(file, err)
}

// heed remembers of a file's filesystem that it did not answer for two files, and returns the error. One that is given up may
// have been slow. No server is behind plain filesystems: there a file that is given up says nothing of the others.
func (s *servers) heed(file pinned, err error) error {
	on := file.device()
	if s.plain[on] || !gaveUp(err) {
		return err
	}
	first, before := s.silent[on]
	switch {
	case !before:
		s.silent[on] = file.stat.Ino
	case first != file.stat.Ino:
		s.answers[on] = fmt.Errorf("the filesystem %s is not asked again, two files of it were given up: %w", on, errBlocked)
	}
	return err
}

// gaveUp says whether the kernel was asked and did not answer.
func gaveUp(err error) bool { return errors.Is(err, errBlocked) && !errors.Is(err, errNotBegun) }

func served(filesystem string) bool {
	kind, _, _ := strings.Cut(filesystem, ".")
	switch kind {
	case "fuse", "fuseblk", "nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "lustre", "gfs2", "ocfs2", "orangefs",
		"coda", "virtiofs", "autofs":
		return true
	}
	return false
}

// servedTypes are the types of such filesystems as statfs tells them, where a mount is in no list.
var servedTypes = map[int64]bool{
	unix.FUSE_SUPER_MAGIC: true, unix.NFS_SUPER_MAGIC: true, unix.CIFS_SUPER_MAGIC: true, unix.SMB_SUPER_MAGIC: true,
	unix.SMB2_SUPER_MAGIC: true, unix.V9FS_MAGIC: true, unix.CEPH_SUPER_MAGIC: true, unix.AFS_SUPER_MAGIC: true,
	unix.AFS_FS_MAGIC: true, unix.OCFS2_SUPER_MAGIC: true, unix.CODA_SUPER_MAGIC: true, unix.AUTOFS_SUPER_MAGIC: true,
}

// plain says whether a filesystem is memory, or lies on a disk.
func plain(filesystem string) bool {
	switch filesystem {
	case "tmpfs", "ramfs", "hugetlbfs", "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs":
		return true
	}
	return false
}

// plainTypes are the types of such filesystems as statfs tells them. Those of ext2, ext3 and ext4 are the same.
var plainTypes = map[int64]bool{
	unix.TMPFS_MAGIC: true, unix.RAMFS_MAGIC: true, unix.HUGETLBFS_MAGIC: true,
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true,
}
