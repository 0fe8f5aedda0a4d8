package hold

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// closeTimeout bounds the removal of a view, which also runs after the caller's context has ended.
const closeTimeout = 30 * time.Second

// View is a held snapshot, mounted read-only.
type View struct {
	root        string
	name        string
	snapshotter snapshots.Snapshotter
	ctx         context.Context
}

// View mounts what the incident holds of a container in a folder of its own under os.TempDir, in the mount namespace of
// this process: read-only, without devices, setuid or execution. It works while the container runs and after it is
// gone. A view that an earlier process left behind is used again. ErrNotHeld without a hold.
func (h *Holder) View(ctx context.Context, incident, containerID string) (*View, error) {
	snapshotter, evidence, err := h.held(ctx, incident, containerID)
	if err != nil {
		return nil, fmt.Errorf("view %s: %w", containerID, err)
	}
	ctx = leases.WithLease(ctx, leaseName(incident, containerID))
	return h.view(ctx, snapshotter, viewName(incident, containerID), evidence)
}

// view mounts a view of a committed snapshot, under the lease that ctx carries.
func (h *Holder) view(ctx context.Context, snapshotter, name, parent string) (*View, error) {
	v := &View{name: name, snapshotter: h.client.SnapshotService(snapshotter), ctx: context.WithoutCancel(ctx)}
	mounts, err := v.snapshotter.View(ctx, v.name, parent)
	if errdefs.IsAlreadyExists(err) {
		mounts, err = v.snapshotter.Mounts(ctx, v.name)
	}
	if err != nil {
		return nil, fmt.Errorf("view snapshot %s: %w", parent, err)
	}
	if err := v.mount(mounts); err != nil {
		//nolint:contextcheck // what is undone must be undone when the context has ended, too
		return nil, errors.Join(fmt.Errorf("mount snapshot %s: %w", parent, err), v.Close())
	}
	return v, nil
}

// Root is the folder of the root filesystem.
func (v *View) Root() string { return v.root }

// Close unmounts and removes the view; the hold stays.
func (v *View) Close() error {
	ctx, cancel := context.WithTimeout(v.ctx, closeTimeout)
	defer cancel()
	var failed []error
	if v.root != "" {
		failed = append(failed, v.unmount())
	}
	if err := v.snapshotter.Remove(ctx, v.name); err != nil && !errdefs.IsNotFound(err) {
		failed = append(failed, fmt.Errorf("remove view %s: %w", v.name, err))
	}
	return errors.Join(failed...)
}

func (v *View) mount(mounts []mount.Mount) error {
	if err := os.MkdirAll(os.TempDir(), 0o700); err != nil {
		return fmt.Errorf("make temporary folder: %w", err)
	}
	root, err := os.MkdirTemp("", "ugallu-view-")
	if err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	v.root = root
	safe := mount.RemoveVolatileOption(mounts)
	for i := range safe {
		safe[i].Options = append(append([]string{}, safe[i].Options...), "ro", "nosuid", "nodev", "noexec")
	}
	return mount.All(safe, root)
}

// unmount detaches, so that it cannot hang on a descriptor that is still open somewhere.
func (v *View) unmount() error {
	if err := mount.UnmountAll(v.root, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", v.root, err)
	}
	if err := os.Remove(v.root); err != nil {
		return fmt.Errorf("remove mount point: %w", err)
	}
	return nil
}
