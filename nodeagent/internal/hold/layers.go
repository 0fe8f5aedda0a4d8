package hold

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// ErrNoUpper is returned by Upper when the snapshotter does not keep a container's changes in a folder of their own.
var ErrNoUpper = errors.New("snapshotter has no upper layer")

// ErrNoParent is returned by LowerView for a container whose image has no layers. It is an fs.ErrNotExist.
var ErrNoParent = fmt.Errorf("held snapshot has no parent: %w", fs.ErrNotExist)

const (
	// lowerPrefix and upperPrefix start the names of the views that LowerView and Upper make.
	lowerPrefix = "lower-"
	upperPrefix = "upper-"
)

// ours are the names of every view that an incident may have of a container.
func ours(incident, containerID string) []string {
	return []string{
		viewName(incident, containerID), lowerName(incident, containerID), upperName(incident, containerID),
	}
}

func lowerName(incident, containerID string) string {
	return lowerPrefix + incident + "-" + containerID
}

func upperName(incident, containerID string) string {
	return upperPrefix + incident + "-" + containerID
}

// Upper returns the folder with what a held container changed, in overlayfs's own form: whiteouts, opaque folders and
// redirects are not resolved. The path is containerd's; it stays as long as the hold. While the container runs it is
// written to. ErrNotHeld without a hold, ErrNoUpper with a snapshotter of another kind than overlayfs.
//
// The folder is taken from the mounts that containerd names for the held snapshot and for its parent: it is the one by
// which they differ.
func (h *Holder) Upper(ctx context.Context, incident, containerID string) (string, error) {
	snapshotter, evidence, err := h.held(ctx, incident, containerID)
	if err != nil {
		return "", fmt.Errorf("find the upper layer of %s: %w", containerID, err)
	}
	service := h.client.SnapshotService(snapshotter)
	info, err := service.Stat(ctx, evidence)
	if err != nil {
		return "", fmt.Errorf("describe snapshot %s: %w", evidence, err)
	}
	ctx = leases.WithLease(ctx, leaseName(incident, containerID))
	name := upperName(incident, containerID)
	all, err := folders(ctx, service, name, evidence)
	if err != nil {
		return "", fmt.Errorf("find the upper layer of %s: %w", containerID, err)
	}
	var below []string
	if info.Parent != "" {
		if below, err = folders(ctx, service, name, info.Parent); err != nil {
			return "", fmt.Errorf("find the lower layers of %s: %w", containerID, err)
		}
	}
	if len(all) != len(below)+1 || !slices.Equal(all[1:], below) {
		return "", fmt.Errorf("%s of %s: %w: folders %q on %q", evidence, snapshotter, ErrNoUpper, all, below)
	}
	if folder, err := os.Lstat(all[0]); err != nil || !folder.IsDir() {
		return "", errors.Join(fmt.Errorf("upper layer %s is no folder here", all[0]), err)
	}
	return all[0], nil
}

// folders returns the folders that a snapshot is made of, the uppermost first, by the mounts of a view that is removed
// again. Nothing is mounted.
func folders(ctx context.Context, service snapshots.Snapshotter, name, parent string) ([]string, error) {
	if err := service.Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("remove view %s: %w", name, err)
	}
	mounts, err := service.View(ctx, name, parent)
	if err != nil {
		return nil, fmt.Errorf("view snapshot %s: %w", parent, err)
	}
	if err := service.Remove(ctx, name); err != nil {
		return nil, fmt.Errorf("remove view %s: %w", name, err)
	}
	return foldersOf(mounts), nil
}

// foldersOf returns none for mounts of another shape than that of an overlay, or of the one folder that needs none.
func foldersOf(mounts []mount.Mount) []string {
	if len(mounts) != 1 {
		return nil
	}
	switch mounts[0].Type {
	case "bind":
		return []string{mounts[0].Source}
	case "overlay":
		for _, option := range mounts[0].Options {
			if list, ok := strings.CutPrefix(option, "lowerdir="); ok {
				return strings.Split(list, ":")
			}
		}
	}
	return nil
}

// LowerView mounts what a held container started from, its image's layers, in the way View mounts the whole.
func (h *Holder) LowerView(ctx context.Context, incident, containerID string) (*View, error) {
	snapshotter, evidence, err := h.held(ctx, incident, containerID)
	if err != nil {
		return nil, fmt.Errorf("view the lower layers of %s: %w", containerID, err)
	}
	info, err := h.client.SnapshotService(snapshotter).Stat(ctx, evidence)
	if err != nil {
		return nil, fmt.Errorf("describe snapshot %s: %w", evidence, err)
	}
	if info.Parent == "" {
		return nil, fmt.Errorf("view the lower layers of %s: %w", containerID, ErrNoParent)
	}
	ctx = leases.WithLease(ctx, leaseName(incident, containerID))
	return h.view(ctx, snapshotter, lowerName(incident, containerID), info.Parent)
}
