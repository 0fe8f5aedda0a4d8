package podfiles

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxThreads of a namespace by which it is found again.
const maxThreads = 16

// namespace is a mount namespace and some threads that are in it. No descriptor of it is kept: that would keep all its
// mounts.
type namespace struct {
	inode uint64
	// files of threads, /proc/PID/task/TID/ns/mnt.
	files []string
}

// label is what the kernel calls it.
func (n namespace) label() string { return fmt.Sprintf("mnt:[%d]", n.inode) }

// namespaces returns the mount namespaces of processes, in the order of their inodes: threads of a process can be in
// several. Threads that are gone are left out.
func namespaces(processes []int) ([]namespace, error) {
	found := map[uint64]*namespace{}
	for _, process := range processes {
		folder := filepath.Join("/proc", strconv.Itoa(process), "task")
		threads, err := os.ReadDir(folder)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the threads of process %d: %w", process, err)
		}
		for _, thread := range threads {
			file := filepath.Join(folder, thread.Name(), "ns/mnt")
			var stat unix.Stat_t
			if err := unix.Stat(file, &stat); gone(err) {
				continue
			} else if err != nil {
				return nil, fmt.Errorf("look at %s: %w", file, err)
			}
			if found[stat.Ino] == nil {
				found[stat.Ino] = &namespace{inode: stat.Ino}
			}
			if one := found[stat.Ino]; len(one.files) < maxThreads {
				one.files = append(one.files, file)
			}
		}
	}
	list := make([]namespace, 0, len(found))
	for _, one := range found {
		list = append(list, *one)
	}
	slices.SortFunc(list, func(a, b namespace) int {
		return strings.Compare(fmt.Sprintf("%020d", a.inode), fmt.Sprintf("%020d", b.inode))
	})
	return list, nil
}

// look shows the namespace as long as one of its threads is still in it.
func (n namespace) look(ctx context.Context, look func(*scene) error) error {
	for _, file := range n.files {
		open, err := os.Open(file)
		if gone(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open a mount namespace: %w", err)
		}
		var stat unix.Stat_t
		err = unix.Fstat(int(open.Fd()), &stat)
		if err == nil && stat.Ino != n.inode {
			if err := open.Close(); err != nil {
				return fmt.Errorf("close %s: %w", file, err)
			}
			continue
		}
		if err == nil {
			err = inside(ctx, int(open.Fd()), look)
		}
		return errors.Join(err, open.Close())
	}
	return errGone
}

// nodeNamespace is the inode of the node's own mount namespace, beside the list of its mounts.
func nodeNamespace(mountinfo string) (uint64, error) {
	file := filepath.Join(filepath.Dir(mountinfo), "ns/mnt")
	var stat unix.Stat_t
	if err := unix.Stat(file, &stat); err != nil {
		return 0, fmt.Errorf("look at the node's mount namespace: %w", err)
	}
	return stat.Ino, nil
}
