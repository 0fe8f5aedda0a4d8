package hold

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"

	"ugallu.io/forensics/api/evidence"
)

// maxSnapshots bounds the length of a chain: overlayfs takes 500 layers.
const maxSnapshots = 1000

// Describe returns what containerd knows of a container, its snapshots and its image. Of a container that is gone it
// describes the snapshots that the incident holds. What is missing, such as blobs that were discarded, is named in the
// description; an error means that containerd could not be asked, or that there is neither.
func (h *Holder) Describe(ctx context.Context, incident, containerID string) (evidence.ContainerDescription, error) {
	description := evidence.ContainerDescription{ID: containerID}
	container, err := h.client.ContainerService().Get(ctx, containerID)
	switch {
	case errdefs.IsNotFound(err):
		description.Missing = append(description.Missing, "the runtime has the container no more: its specification and image are not known")
	case err != nil:
		return description, fmt.Errorf("look up container %s: %w", containerID, err)
	default:
		describeContainer(&description, container)
	}
	if err := h.describeSnapshots(ctx, incident, container, &description); err != nil {
		return description, err
	}
	if container.Image == "" {
		return description, nil
	}
	image, err := h.client.ImageService().Get(ctx, container.Image)
	if errdefs.IsNotFound(err) {
		description.Missing = append(description.Missing, "the runtime has no image "+container.Image+" any more")
		return description, nil
	}
	if err != nil {
		return description, fmt.Errorf("look up image %s: %w", container.Image, err)
	}
	d := imageDescriber{store: h.client.ContentStore(), out: &description}
	if err := d.describe(ctx, containerd.NewImage(h.client, image)); err != nil {
		return description, fmt.Errorf("describe image %s: %w", container.Image, err)
	}
	return description, nil
}

func describeContainer(out *evidence.ContainerDescription, container containers.Container) {
	out.Image, out.Labels, out.Runtime = container.Image, container.Labels, container.Runtime.Name
	out.SandboxID, out.Snapshotter = container.SandboxID, container.Snapshotter
	out.CreatedAt, out.UpdatedAt = container.CreatedAt, container.UpdatedAt
	if container.Spec == nil || !json.Valid(container.Spec.GetValue()) {
		out.Missing = append(out.Missing, "the container's specification is not JSON")
		return
	}
	out.Spec = container.Spec.GetValue()
}

// describeSnapshots walks from what the container runs on, or what is held of it, to the first layer.
func (h *Holder) describeSnapshots(
	ctx context.Context, incident string, container containers.Container, out *evidence.ContainerDescription,
) error {
	snapshotter, name, err := h.held(ctx, incident, out.ID)
	switch {
	case err == nil:
		out.Snapshotter = snapshotter
	case !errors.Is(err, ErrNotHeld):
		return err
	case container.ID == "":
		return fmt.Errorf("describe %s: %w", out.ID, ErrContainerNotFound)
	default:
		name = container.SnapshotKey
	}
	service := h.client.SnapshotService(out.Snapshotter)
	for name != "" {
		if len(out.Snapshots) == maxSnapshots {
			out.Missing = append(out.Missing, fmt.Sprintf("snapshots below %s: the chain is longer than %d", name, maxSnapshots))
			return nil
		}
		info, err := service.Stat(ctx, name)
		if errdefs.IsNotFound(err) {
			out.Missing = append(out.Missing, "snapshot "+name+" is gone")
			return nil
		}
		if err != nil {
			return fmt.Errorf("describe snapshot %s: %w", name, err)
		}
		out.Snapshots = append(out.Snapshots, evidence.ContainerSnapshot{
			Name: info.Name, Parent: info.Parent, Kind: info.Kind.String(), Labels: info.Labels,
			CreatedAt: info.Created, UpdatedAt: info.Updated,
		})
		name = info.Parent
	}
	return nil
}
