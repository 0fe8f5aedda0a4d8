package proc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NodeRoot is the node's root folder, that of process 1.
const NodeRoot = "/proc/1/root"

// maxRaces with other mounts and renames before an open is given up: the kernel asks to try again.
const maxRaces = 100

// errNotMounted says that a file is there, and no namespace on it.
var errNotMounted = errors.New("no namespace is mounted there")

// Namespace opens a namespace by the path under root where it is mounted, and tells its inode. Links lead to nothing outside
// of root. Where there is no such file the error is fs.ErrNotExist.
func Namespace(root, path string) (*os.File, uint64, error) {
	file, err := openIn(root, path)
	if err != nil {
		return nil, 0, fmt.Errorf("open namespace %s of %s: %w", path, root, err)
	}
	inode, err := namespaceOf(file)
	if err != nil {
		return nil, 0, fmt.Errorf("look at namespace %s of %s: %w", path, root, errors.Join(err, file.Close()))
	}
	return file, inode, nil
}

func openIn(root, path string) (file *os.File, err error) {
	folder, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Close(folder)) }()
	how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	for range maxRaces {
		opened, err := unix.Openat2(folder, path, how)
		if err == nil {
			return os.NewFile(uintptr(opened), path), nil // #nosec G115 -- a descriptor
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
	return nil, unix.EAGAIN
}

func namespaceOf(file *os.File) (inode uint64, err error) {
	var system unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &system); err != nil {
		return 0, err
	}
	if system.Type != unix.NSFS_MAGIC {
		return 0, errNotMounted
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return 0, err
	}
	return stat.Ino, nil
}
