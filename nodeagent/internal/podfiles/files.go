package podfiles

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

const (
	// maxFiles of a volume that are described, and maxLevels of folders: a Secret's total is 1 MiB, and the kubelet makes
	// two levels of folders and those that a key's path has.
	maxFiles  = 10_000
	maxLevels = 32
	// maxHashed bounds the bytes of a file that are read for its hash; no object of the API server is larger than 3 MiB.
	maxHashed = 64 << 20
	// maxHosts bounds the recorded content of /etc/hosts, which the pod may have written to.
	maxHosts = 1 << 20
)

// describer lists the files of one volume.
type describer struct {
	scene  *scene
	volume describedVolume
	hashed bool
	write  func(evidence.PodFile) error
	gaps   *gaps
	left   int
}

// folder describes what is in an open folder. Folders are entered and files are opened only on the volume's own mount, and
// through no link. Only errors of write are returned.
func (d *describer) folder(fd int, path string, level int) error {
	names, err := d.names(fd)
	if err != nil {
		d.gaps.add(filepath.Join(d.volume.folder, path), GapUnreadable, err)
	}
	for _, name := range names {
		below := filepath.Join(path, name)
		if d.left == 0 || level > maxLevels {
			cause := fmt.Errorf("more than %d files or %d levels", maxFiles, maxLevels)
			d.gaps.add(filepath.Join(d.volume.folder, below), GapTooMany, cause)
			return nil
		}
		d.left--
		if err := d.entry(fd, name, below, level); err != nil {
			return err
		}
	}
	return nil
}

func (d *describer) names(fd int) ([]string, error) {
	list, err := listFolder(fd)
	if err != nil {
		return nil, err
	}
	names, err := list.Readdirnames(d.left + 1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.Sort(names)
	return names, errors.Join(err, list.Close())
}

var errMountPoint = errors.New("something is mounted on it, which was not looked into")

// entry describes a name of a folder, and what is below it.
func (d *describer) entry(fd int, name, path string, level int) error {
	full := filepath.Join(d.volume.folder, path)
	var stat unix.Statx_t
	// A server of something mounted here may never answer: the kernel tells what it has in memory.
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	if err := unix.Statx(fd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stat); err != nil {
		d.gaps.add(full, GapUnreadable, fmt.Errorf("look at it: %w", err))
		return nil
	}
	if stat.Attributes_mask&stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		d.gaps.add(full, GapMountPoint, errMountPoint)
		return nil
	}
	file := describeFile(&stat)
	file.Volume, file.Path = d.volume.name, evidence.Text(path)
	if file.Type == evidence.EntrySymlink {
		file.Link = d.link(fd, name, full)
	}
	if file.Type == evidence.EntryFile && d.hashed {
		file.SHA256 = d.hash(fd, name, full)
	}
	if err := d.write(file); err != nil || file.Type != evidence.EntryDirectory {
		return err
	}
	child, err := openBelow(fd, name, unix.O_DIRECTORY)
	if err != nil {
		d.gaps.add(full, GapUnreadable, err)
		return nil
	}
	err = d.folder(child, path, level+1)
	return errors.Join(err, unix.Close(child))
}

// link returns the target of a link.
func (d *describer) link(fd int, name, full string) evidence.Text {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, name, target)
	if err != nil {
		d.gaps.add(full, GapUnreadable, fmt.Errorf("read the link: %w", err))
		return ""
	}
	return evidence.Text(target[:n])
}

// hash returns the sha256 of a file; empty when it could not be read to its end.
func (d *describer) hash(fd int, name, full string) string {
	file, err := openFile(fd, name)
	if err != nil {
		d.gaps.add(full, GapUnreadable, err)
		return ""
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(file, maxHashed+1))
	if err == nil && n > maxHashed {
		err = fmt.Errorf("more than %d bytes: no hash", maxHashed)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		d.gaps.add(full, GapUnreadable, err)
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// openBelow opens a name of a folder for reading: no link, and nothing that is mounted there.
func openBelow(fd int, name string, flags uint64) (int, error) {
	how := &unix.OpenHow{
		Flags: flags | unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS |
			unix.RESOLVE_NO_XDEV,
	}
	opened, err := unix.Openat2(fd, name, how)
	if errors.Is(err, unix.EPERM) {
		how.Flags &^= unix.O_NOATIME
		opened, err = unix.Openat2(fd, name, how)
	}
	if err != nil {
		return -1, fmt.Errorf("open: %w", err)
	}
	return opened, nil
}

// openFile opens a regular file, and nothing else: what a device or a FIFO does on opening is not wanted.
func openFile(fd int, name string) (*os.File, error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, fmt.Errorf("look at it: %w", err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("is no regular file")
	}
	opened, err := openBelow(fd, name, 0)
	if err != nil {
		return nil, err
	}
	inode := stat.Ino
	if err = unix.Fstat(opened, &stat); err == nil && (stat.Ino != inode || stat.Mode&unix.S_IFMT != unix.S_IFREG) {
		err = errReplaced
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(opened))
	}
	return os.NewFile(uintptr(opened), name), nil // #nosec G115 -- descriptors are not negative
}

// readBelow reads a small file of a folder on a local file system.
func readBelow(s *scene, fd int, name string, limit int64) ([]byte, error) {
	at, err := s.mountOf(fd)
	if err != nil {
		return nil, err
	}
	if !local[s.fsTypes[at]] {
		return nil, fmt.Errorf("%q %w: %q", name, errUntrusted, s.fsTypes[at])
	}
	file, err := openFile(fd, name)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, limit))
	return content, errors.Join(err, file.Close())
}

func describeFile(stat *unix.Statx_t) evidence.PodFile {
	file := evidence.PodFile{
		Type: evidence.TypeOfMode(stat.Mode), Mode: uint32(stat.Mode) & 0o7777, UID: stat.Uid, GID: stat.Gid,
		Size:       int64(stat.Size), // #nosec G115 -- the kernel bounds sizes to 63 bits
		AccessTime: stamp(stat.Atime), ModTime: stamp(stat.Mtime), ChangeTime: stamp(stat.Ctime),
	}
	if stat.Mask&unix.STATX_BTIME != 0 {
		file.BirthTime = stamp(stat.Btime)
	}
	return file
}

func stamp(t unix.StatxTimestamp) string { return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec) }
