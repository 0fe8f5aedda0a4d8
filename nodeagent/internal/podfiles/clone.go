package podfiles

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNotMemory is returned by Clone for a source that is on disk.
var ErrNotMemory = errors.New("source is not in memory")

// Clone keeps a source and opens what is kept: read-only, without devices, setuid or execution, and with access times left
// alone. What is mounted below the source is not part of it. It is idempotent, also after a restart of this process, and
// works on what is kept already when the pod is gone.
func (k *Keeper) Clone(ctx context.Context, source Source) (*Folder, error) {
	if !source.Memory {
		return nil, fmt.Errorf("keep %s of pod %s: %w", source.Name, source.PodUID, ErrNotMemory)
	}
	kept, err := k.Open(ctx, Kept{source.PodUID, source.Name})
	if !errors.Is(err, ErrNotKept) {
		return kept, err
	}
	tree, err := source.take(ctx, cloneTree)
	if err != nil {
		return nil, fmt.Errorf("clone %s of pod %s: %w", source.Name, source.PodUID, err)
	}
	err = k.within(func() error { return k.attach(tree, Kept{source.PodUID, source.Name}) })
	if err := errors.Join(err, unix.Close(tree)); err != nil {
		return nil, fmt.Errorf("keep %s of pod %s: %w", source.Name, source.PodUID, err)
	}
	return k.Open(ctx, Kept{source.PodUID, source.Name})
}

// cloneTree makes a mount of its own, attached to nothing, of the one that a folder is on.
func cloneTree(fd int) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	tree, err := unix.OpenTree(fd, "", flags)
	if err != nil {
		return -1, fmt.Errorf("clone the mount: %w", err)
	}
	attributes := &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOATIME,
		Attr_clr:    unix.MOUNT_ATTR__ATIME,
		Propagation: unix.MS_PRIVATE,
	}
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attributes)
	if errors.Is(err, unix.EPERM) {
		// The access time setting of a mount that came from another user namespace is locked; read-only does the same.
		attributes.Attr_set &^= unix.MOUNT_ATTR_NOATIME
		attributes.Attr_clr = 0
		err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attributes)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("make the clone read-only: %w", err), unix.Close(tree))
	}
	return tree, nil
}
