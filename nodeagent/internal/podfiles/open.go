package podfiles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Folder is an open folder.
type Folder struct{ file *os.File }

// Root is a path to the folder that holds as long as it is open, in this process only. Its last element is no link.
func (f *Folder) Root() string { return fmt.Sprintf("/proc/self/fd/%d/.", f.file.Fd()) }

// Close lets the folder go. What a Keeper keeps of it stays. A second call does nothing.
func (f *Folder) Close() error {
	if err := f.file.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("close folder: %w", err)
	}
	return nil
}

func newFolder(fd int, name string) *Folder {
	return &Folder{os.NewFile(uintptr(fd), name)} // #nosec G115 -- descriptors are not negative
}

// Open opens the source where it is, after making sure that it is still the one that was found.
func (s Source) Open(ctx context.Context) (*Folder, error) {
	opened, err := s.take(ctx, func(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }) // #nosec G115
	if err != nil {
		return nil, fmt.Errorf("open %s of pod %s: %w", s.Name, s.PodUID, err)
	}
	return newFolder(opened, s.Name), nil
}

// take opens the source in its mount namespace and has something made of it.
func (s Source) take(ctx context.Context, of func(fd int) (int, error)) (made int, err error) {
	if err := ctx.Err(); err != nil {
		return -1, err
	}
	look := func(scene *scene) error {
		fd, at, err := scene.folder(string(s.Path))
		if err != nil {
			return err
		}
		if err = s.same(scene, fd, at); err == nil {
			made, err = of(fd)
		}
		return errors.Join(err, unix.Close(fd))
	}
	if s.namespace.inode == 0 {
		err = here(ctx, look)
	} else {
		err = s.namespace.look(ctx, look)
	}
	return made, err
}

func (s Source) same(scene *scene, fd, at int) error {
	if scene.fsTypes[at] != s.Filesystem {
		return fmt.Errorf("it %w", errReplaced)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fmt.Errorf("look at the folder: %w", err)
	}
	if device(&stat) != s.Device || stat.Ino != s.inode {
		return fmt.Errorf("it %w", errReplaced)
	}
	return nil
}
