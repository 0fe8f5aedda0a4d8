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

// How many threads may be left waiting before less is begun: the rest is for what cannot be read in another way.
const (
	// maxAsking, before no filesystem is asked any more what it is, no executable is hashed, and no other file is opened but on a
	// plain disk and in memory.
	maxAsking = maxAbandoned / 2
	// maxOnDisk, before no file is opened but in memory: what a disk lies on may be silent, too.
	maxOnDisk = maxAbandoned * 3 / 4
)

var (
	errNotRegular = errors.New("not a regular file")
	errServed     = errors.New("a server answers for this filesystem")
)

// servers tells the files apart that a server answers for: another machine, or a process of the pod, which is frozen.
type servers struct {
	guard *guard
	// answers are those of devices that were asked: what kept their files from being read, or nil.
	answers map[string]error
	// kinds are those of devices that no server is behind.
	kinds map[string]kind
	// silent is the inode of the first file of a device that was given up.
	silent map[string]uint64
}

// kind is what a filesystem without a server lies on.
type kind int

const (
	unknown kind = iota
	onDisk
	inMemory
)

// enough threads that wait for no file of a kind to be opened any more.
var enough = map[kind]int{unknown: maxAsking, onDisk: maxOnDisk, inMemory: maxAbandoned}

// newServers knows the filesystem of memfds and of shared memory, which is in no list of mounts: it is the agent's own, too,
// and need not be asked. Where it cannot be found, it is asked as others are.
func newServers(g *guard) *servers {
	s := &servers{guard: g, answers: map[string]error{}, kinds: map[string]kind{}, silent: map[string]uint64{}}
	fd, err := unix.MemfdCreate("own", unix.MFD_CLOEXEC)
	if err != nil {
		return s
	}
	own := share(fd)
	defer own.release()
	var stat unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &stat); err == nil {
		s.know(device(stat.Dev_major, stat.Dev_minor), inMemory)
	}
	return s
}

// know remembers what a device lies on. That it did not answer before, when it was asked, says nothing of its files then.
func (s *servers) know(on string, lies kind) {
	if lies != unknown {
		s.answers[on], s.kinds[on] = nil, lies
	}
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
		s.know(file.device(), kindOfType(string(mount.Type)))
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
	magic, _, err := watched(ctx, s.guard, file.shared, h.patience, func(*findings) (int64, error) {
		var stat unix.Statfs_t
		err := unix.Fstatfs(file.fd, &stat)
		return stat.Type, err
	})
	switch {
	case err != nil:
		return fmt.Errorf("ask the filesystem %s for its type: %w", file.device(), err)
	case servedTypes[magic]:
		return fmt.Errorf("type %#x: %w", magic, errServed)
	}
	s.know(file.device(), plainTypes[magic])
	return nil
}

// open reopens a file that was not refused. A server can be behind its filesystem all the same, such as below an overlay: one
// that did not answer for two files is not asked again.
func (s *servers) open(ctx context.Context, file pinned, patience time.Duration) (*content, error) {
	on := file.device()
	if answer := s.answers[on]; answer != nil {
		return nil, answer
	}
	if s.guard.abandoned >= enough[s.kinds[on]] {
		return nil, errNotBegun
	}
	opened, err := openContent(ctx, s.guard, file.shared, patience)
	return opened, s.heed(file, err)
}

// heed remembers of a file's filesystem that it did not answer for two files, and returns the error. One that is given up may
// have been slow. No server is behind plain filesystems: there a file that is given up says nothing of the others.
func (s *servers) heed(file pinned, err error) error {
	on := file.device()
	if s.kinds[on] != unknown || !gaveUp(err) {
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

func kindOfType(filesystem string) kind {
	switch filesystem {
	case "tmpfs", "ramfs", "hugetlbfs":
		return inMemory
	case "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs":
		return onDisk
	}
	return unknown
}

// plainTypes are the types of such filesystems as statfs tells them. Those of ext2, ext3 and ext4 are the same.
var plainTypes = map[int64]kind{
	unix.TMPFS_MAGIC: inMemory, unix.RAMFS_MAGIC: inMemory, unix.HUGETLBFS_MAGIC: inMemory,
	unix.EXT4_SUPER_MAGIC: onDisk, unix.XFS_SUPER_MAGIC: onDisk, unix.BTRFS_SUPER_MAGIC: onDisk, unix.F2FS_SUPER_MAGIC: onDisk,
}
