package podfiles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// ErrNotKept is returned by Open for a source that is not kept. It is an fs.ErrNotExist.
var ErrNotKept = fmt.Errorf("source is not kept: %w", fs.ErrNotExist)

// Keeper keeps memory of pods beyond their end: as mounts of its own of the same file systems. A file system in memory
// lives as long as one mount of it does.
//
// The mounts live as long as the mount namespace that Folder is in, so in the agent's own they end with its container, and
// in the node's with the node's next start. They take memory until they are released.
type Keeper struct {
	// Folder below which the mounts are, in a folder for each pod. It is made when missing, and must be nobody else's.
	Folder string
	// Namespace is the file of the mount namespace that Folder is in, such as /proc/1/ns/mnt; empty for this process's own.
	Namespace string
}

// Kept is a source that is kept.
type Kept struct {
	PodUID string
	// Source is its name.
	Source string
}

// Open opens a source that is kept; ErrNotKept when it is not.
func (k *Keeper) Open(ctx context.Context, kept Kept) (*Folder, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd := -1
	err := k.within(func() (err error) {
		fd, err = openKept(k.path(kept))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s of pod %s: %w", kept.Source, kept.PodUID, err)
	}
	return newFolder(fd, kept.Source), nil
}

// List returns what is kept, of all pods: also what an earlier process kept.
func (k *Keeper) List(ctx context.Context) (list []Kept, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = k.within(func() (err error) {
		list, err = k.list()
		return err
	})
	return list, err
}

// Release ends what is kept of a pod. Releasing what is not kept is no error. What is open stays until it is closed.
func (k *Keeper) Release(ctx context.Context, podUID string) error {
	if !uidShape.MatchString(podUID) {
		return fmt.Errorf("uid %q %w", podUID, ErrBadName)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return k.within(func() error { return k.release(podUID) })
}

// Collect releases every pod that is not wanted any more.
func (k *Keeper) Collect(ctx context.Context, wanted func(podUID string) bool) error {
	list, err := k.List(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, kept := range list {
		if !wanted(kept.PodUID) {
			failed = append(failed, k.Release(ctx, kept.PodUID))
		}
	}
	return errors.Join(failed...)
}

// within works in the mount namespace of the folder.
func (k *Keeper) within(work func() error) error {
	if k.Namespace == "" {
		return work()
	}
	namespace, err := os.Open(k.Namespace)
	if err != nil {
		return fmt.Errorf("open the mount namespace to keep in: %w", err)
	}
	return errors.Join(proc.Within(int(namespace.Fd()), unix.CLONE_NEWNS, work), namespace.Close())
}

func (k *Keeper) path(kept Kept) string {
	return filepath.Join(k.Folder, kept.PodUID, url.PathEscape(kept.Source))
}

// attach mounts a clone in the pod's folder.
func (k *Keeper) attach(tree int, kept Kept) error {
	if err := k.prepare(); err != nil {
		return err
	}
	path := k.path(kept)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make the folder of the clone: %w", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the clone at %s: %w", path, err)
	}
	return nil
}

// prepare makes Folder a mount of its own that passes nothing on: else every container that gets the node's mounts
// would get these.
func (k *Keeper) prepare() error {
	if err := os.MkdirAll(k.Folder, 0o700); err != nil {
		return fmt.Errorf("make the folder of the clones: %w", err)
	}
	mounted, err := isMount(k.Folder)
	if err != nil {
		return err
	}
	if !mounted {
		if err := unix.Mount(k.Folder, k.Folder, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s on itself: %w", k.Folder, err)
		}
	}
	if err := unix.Mount("", k.Folder, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", k.Folder, err)
	}
	return nil
}

// isMount says whether a mount's root is at the path.
func isMount(path string) (bool, error) {
	var stat unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &stat); err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

func openKept(path string) (int, error) {
	mounted, err := isMount(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !mounted) {
		return -1, ErrNotKept
	}
	if err != nil {
		return -1, err
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

func (k *Keeper) list() ([]Kept, error) {
	pods, err := namesIn(k.Folder)
	if err != nil {
		return nil, err
	}
	var list []Kept
	for _, pod := range pods {
		names, err := namesIn(filepath.Join(k.Folder, pod))
		if err != nil {
			return nil, err
		}
		kept, err := k.mounted(pod, names)
		if err != nil {
			return nil, err
		}
		list = append(list, kept...)
	}
	return list, nil
}

// mounted returns those of a pod's names that are mounts. One that was released since it was listed is none.
func (k *Keeper) mounted(pod string, names []string) ([]Kept, error) {
	var list []Kept
	for _, name := range names {
		source, err := url.PathUnescape(name)
		if err != nil {
			return nil, fmt.Errorf("name of %s: %w", name, err)
		}
		mounted, err := isMount(filepath.Join(k.Folder, pod, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if mounted {
			list = append(list, Kept{pod, source})
		}
	}
	return list, nil
}

func (k *Keeper) release(podUID string) error {
	folder := filepath.Join(k.Folder, podUID)
	names, err := namesIn(folder)
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range names {
		path := filepath.Join(folder, name)
		mounted, err := isMount(path)
		// Two starts at the same time may have mounted one on the other.
		for mounted && err == nil {
			if err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err == nil {
				mounted, err = isMount(path)
			}
		}
		if err == nil {
			err = os.Remove(path)
		}
		// Somebody else may have released it meanwhile.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("release %s: %w", path, err))
		}
	}
	if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed = append(failed, fmt.Errorf("release pod %s: %w", podUID, err))
	}
	return errors.Join(failed...)
}

// namesIn lists a folder of ours, sorted; one that is missing has none.
func namesIn(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", folder, err)
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	slices.SortFunc(names, strings.Compare)
	return names, nil
}
