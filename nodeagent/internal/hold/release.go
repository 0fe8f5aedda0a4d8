package hold

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// ErrLeaseKept is returned by Release when the container still exists on a containerd older than 2.2, which knows no
// other way to keep the files under a running container. Nothing is lost; release again once the container is gone.
var ErrLeaseKept = errors.New("lease is kept until the container is gone: containerd is older than 2.2")

// labelBackReference makes a snapshot live as long as the container that it names (containerd 2.2 and newer).
const labelBackReference = "containerd.io/gc.bref.container"

// Release ends the incident's hold. While the container exists its files stay, since it runs on them; when it is gone
// garbage collection takes them, unless another incident holds them too. Releasing what is not held is no error.
func (h *Holder) Release(ctx context.Context, incident, containerID string) error {
	snapshotter, name, err := h.held(ctx, incident, containerID)
	switch {
	case errors.Is(err, ErrNotHeld):
		return h.deleteLease(ctx, incident, containerID)
	case err != nil:
		return fmt.Errorf("release %s: %w", containerID, err)
	}
	service := h.client.SnapshotService(snapshotter)
	for _, view := range ours(incident, containerID) {
		if err := service.Remove(ctx, view); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove view %s: %w", view, err)
		}
	}
	if _, err := h.client.ContainerService().Get(ctx, containerID); err == nil {
		if err := h.bind(ctx, service, name, containerID); err != nil {
			return fmt.Errorf("release %s: %w", containerID, err)
		}
	} else if !errdefs.IsNotFound(err) {
		return fmt.Errorf("look up container %s: %w", containerID, err)
	}
	return h.deleteLease(ctx, incident, containerID)
}

// bind ties a snapshot to the life of its container, and makes sure of it: without that, the end of the lease would
// delete the root filesystem of a running container.
func (h *Holder) bind(ctx context.Context, service snapshots.Snapshotter, name, containerID string) error {
	server, err := h.client.Version(ctx)
	if err != nil {
		return fmt.Errorf("ask containerd for its version: %w", err)
	}
	if !knowsBackReferences(server.Version) {
		return fmt.Errorf("%w (%s)", ErrLeaseKept, server.Version)
	}
	info := snapshots.Info{Name: name, Labels: map[string]string{labelBackReference: containerID}}
	updated, err := service.Update(ctx, info, "labels."+labelBackReference)
	if err != nil {
		return fmt.Errorf("label snapshot %s: %w", name, err)
	}
	if got := updated.Labels[labelBackReference]; got != containerID {
		return fmt.Errorf("label snapshot %s: it says %q", name, got)
	}
	return nil
}

func (h *Holder) deleteLease(ctx context.Context, incident, containerID string) error {
	lease := leaseName(incident, containerID)
	err := h.client.LeasesService().Delete(ctx, leases.Lease{ID: lease})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete lease %s: %w", lease, err)
	}
	return nil
}

// knowsBackReferences takes a version that it cannot read for an old one: a kept lease loses nothing.
func knowsBackReferences(version string) bool {
	var major, minor int
	if len(version) > 0 && version[0] == 'v' {
		version = version[1:]
	}
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 2 || (major == 2 && minor >= 2)
}
