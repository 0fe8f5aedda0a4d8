package drop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// ensureMounted mounts a bpf file system at the folder, in the node's mount namespace, when there is none.
//
// The file system and every pin in it end with its last mount. A mount made in this container's own namespace would end
// with the container, and the drop with it: so it is made in the node's, from where it propagates into this container
// (HostToContainer). systemd mounts it on every node that is a machine, but not where the node is itself a container.
// Joining the node's mount namespace takes CAP_SYS_CHROOT beside CAP_SYS_ADMIN.
func ensureMounted(folder, nodeMountns string) error {
	mounted, err := isBPF(folder)
	if mounted || err != nil {
		return err
	}
	node, err := os.Open(nodeMountns) // #nosec G304 -- the configured namespace file of process 1
	if err != nil {
		return fmt.Errorf("open the node's mount namespace: %w", err)
	}
	err = proc.Within(int(node.Fd()), unix.CLONE_NEWNS, func() error {
		if mounted, err := isBPF(folder); mounted || err != nil {
			return err
		}
		return unix.Mount("bpf", folder, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700")
	})
	if err := errors.Join(err, node.Close()); err != nil {
		return fmt.Errorf("mount a bpf file system on the node at %s: %w", folder, err)
	}
	if mounted, err = isBPF(folder); err != nil || mounted {
		return err
	}
	return fmt.Errorf("see the node's bpf file system at %s: it does not propagate into this container", folder)
}

func isBPF(folder string) (bool, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(folder, &stat); err != nil {
		return false, fmt.Errorf("look at the file system of %s: %w", folder, err)
	}
	return stat.Type == unix.BPF_FS_MAGIC, nil
}

// namespaces are the distinct network namespaces of some processes, by inode, held open.
type namespaces map[uint64]*os.File

// maxNamespaces of one pod are looked at: a pod can make them without end, and the freeze waits for the look.
const maxNamespaces = 64

// open opens those of every thread: one of a process can be in another namespace than the others. It says whether these are
// all, or others were left out because maxNamespaces are open. What is open is kept when it fails.
func (n namespaces) open(processes []int) (all bool, err error) {
	for path, err := range networksOf(processes) {
		if err == nil {
			err = n.add(path)
		}
		if errors.Is(err, errManyNamespaces) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// seek opens the namespace with this inode, beside the maxNamespaces, when a thread is in it. It looks at every thread until
// the context ends, which is an error.
func (n namespaces) seek(ctx context.Context, processes []int, inode uint64) error {
	for path, err := range networksOf(processes) {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		at, err := inodeAt(path)
		if gone(err) || (err == nil && at != inode) {
			continue
		}
		if err != nil {
			return err
		}
		if err := n.keep(path); err != nil || n[inode] != nil {
			return err
		}
	}
	return nil
}

// networksOf yields the file of the network namespace of every thread, and the error when threads cannot be listed.
func networksOf(processes []int) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, process := range processes {
			folder := fmt.Sprintf("/proc/%d/task", process)
			threads, err := os.ReadDir(folder)
			if err != nil && !gone(err) && !yield("", err) {
				return
			}
			for _, thread := range threads {
				if !yield(filepath.Join(folder, thread.Name(), "ns/net"), nil) {
					return
				}
			}
		}
	}
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// errManyNamespaces says that one was not opened because maxNamespaces are open.
var errManyNamespaces = errors.New("too many network namespaces")

// add opens a namespace unless it is open. One that is gone is left out. It fails with errManyNamespaces.
func (n namespaces) add(path string) error {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); gone(err) || (err == nil && n[stat.Ino] != nil) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if len(n) >= maxNamespaces {
		return errManyNamespaces
	}
	return n.keep(path)
}

// keep opens a namespace unless it is open or gone.
func (n namespaces) keep(path string) error {
	file, inode, err := openNamespace(path)
	switch {
	case gone(err):
		return nil
	case err != nil:
		return err
	case n[inode] != nil: // the thread changed it between the two looks
		return file.Close()
	}
	n[inode] = file
	return nil
}

// own opens one that is mounted at a path under root, unless it is open or the node's, and tells its inode.
func (n namespaces) own(root, path string, node uint64) (uint64, error) {
	file, inode, err := proc.Namespace(root, path)
	if err != nil {
		return 0, err
	}
	if inode == node || n[inode] != nil {
		_ = file.Close() // was only looked at
		return inode, nil
	}
	n[inode] = file
	return inode, nil
}

func openNamespace(path string) (*os.File, uint64, error) {
	file, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, 0, err
	}
	inode, err := inodeOf(file)
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, inode, nil
}

func inodeAt(path string) (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return 0, fmt.Errorf("look at %s: %w", path, err)
	}
	return stat.Ino, nil
}

func inodeOf(file *os.File) (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return 0, fmt.Errorf("look at %s: %w", file.Name(), err)
	}
	return stat.Ino, nil
}

func (n namespaces) close() error {
	var errs []error
	for _, file := range n {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}
