package podfiles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

var (
	// errUntrusted says that a path leads through a file system that somebody may serve.
	errUntrusted = errors.New("lies on a file system that a process or a server may answer for")
	// errReplaced says that a name stands for something else than when it was found.
	errReplaced = errors.New("is another one than was found")
	// errGone says that no process is in a mount namespace any more.
	errGone = errors.New("no process is in the mount namespace any more")
)

// scene is a mount namespace, seen from a thread that is in it. Every look goes through its root's descriptor and its list
// of mounts, and asks no file system that a frozen process could keep waiting.
type scene struct {
	root int
	// proc is this process's own /proc: the namespace may have another one, or a fake.
	proc int
	*mounts
	// wholes says of a device whether its file system is to be seen from its root on.
	wholes map[string]bool
}

// here shows the mount namespace of this process.
func here(ctx context.Context, look func(*scene) error) error {
	own, err := openProc()
	if err != nil {
		return err
	}
	return errors.Join(see(ctx, own, look), unix.Close(own))
}

// inside shows another mount namespace, from its root, whatever roots the processes in it have. The thread that enters it
// ends with the look.
func inside(ctx context.Context, namespace int, look func(*scene) error) error {
	own, err := openProc()
	if err != nil {
		return err
	}
	err = proc.Within(namespace, unix.CLONE_NEWNS, func() error { return see(ctx, own, look) })
	return errors.Join(err, unix.Close(own))
}

func openProc() (int, error) {
	own, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /proc: %w", err)
	}
	return own, nil
}

func see(ctx context.Context, own int, look func(*scene) error) error {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the root of the mount namespace: %w", err)
	}
	list, err := readProc(own, "thread-self/mountinfo", func(file *os.File) (*mounts, error) {
		return readMounts(timed{ctx, file}, maxMemoryMounts)
	})
	if err == nil {
		err = look(&scene{root: root, proc: own, mounts: list, wholes: map[string]bool{}})
	}
	return errors.Join(err, unix.Close(root))
}

func readProc[T any](own int, name string, read func(*os.File) (T, error)) (found T, err error) {
	fd, err := unix.Openat(own, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return found, fmt.Errorf("open %s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), name) // #nosec G115 -- descriptors are not negative
	found, err = read(file)
	return found, errors.Join(err, file.Close())
}

// folder opens a folder as a place, name by name: through no link, and through no file system that is not local. The
// caller closes it.
func (s *scene) folder(path string) (fd int, at int, err error) {
	fd, err = unix.FcntlInt(uintptr(s.root), unix.F_DUPFD_CLOEXEC, 0) // #nosec G115 -- descriptors are not negative
	if err != nil {
		return -1, 0, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		next, err := s.step(fd, name)
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return -1, 0, fmt.Errorf("open %.200q: %w", path, err)
		}
		fd = next
	}
	at, err = s.mountOf(fd)
	if err != nil {
		return -1, 0, errors.Join(err, unix.Close(fd))
	}
	return fd, at, nil
}

// step opens one folder in another.
func (s *scene) step(fd int, name string) (int, error) {
	at, err := s.mountOf(fd)
	if err != nil {
		return -1, err
	}
	if !local[s.fsTypes[at]] {
		return -1, fmt.Errorf("%q %w: %q", name, errUntrusted, s.fsTypes[at])
	}
	return unix.Openat2(fd, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// mountOf returns the id of the mount that a descriptor is on. The kernel knows it without asking the file system.
func (s *scene) mountOf(fd int) (int, error) {
	return readProc(s.proc, "self/fdinfo/"+strconv.Itoa(fd), func(file *os.File) (int, error) {
		content := make([]byte, 4096)
		n, err := file.Read(content)
		if err != nil {
			return 0, fmt.Errorf("read the descriptor's mount: %w", err)
		}
		for line := range strings.Lines(string(content[:n])) {
			if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
				return strconv.Atoi(strings.TrimSpace(id))
			}
		}
		return 0, errors.New("the kernel does not tell the descriptor's mount")
	})
}

// inMemory says whether a folder lies on a file system in memory, and describes the folder.
func (s *scene) inMemory(fd, at int) (stat unix.Stat_t, ok bool, err error) {
	if !inMemory(s.fsTypes[at]) {
		return stat, false, nil
	}
	var system unix.Statfs_t
	if err := unix.Fstatfs(fd, &system); err != nil {
		return stat, false, fmt.Errorf("look at the file system: %w", err)
	}
	switch system.Type {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.HUGETLBFS_MAGIC:
	default:
		return stat, false, nil
	}
	if err := unix.Fstat(fd, &stat); err != nil {
		return stat, false, fmt.Errorf("look at the folder: %w", err)
	}
	return stat, true, nil
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// reason tells why something could not be opened.
func reason(err error) string {
	switch {
	case errors.Is(err, errUntrusted):
		return GapUntrusted
	case errors.Is(err, errReplaced):
		return GapChanged
	}
	return GapUnreadable
}
