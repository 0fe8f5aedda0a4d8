package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

// View is a mounted root filesystem.
type View interface {
	// Root is the folder it is mounted on.
	Root() string
	io.Closer
}

// Capturer captures pods of this node.
type Capturer struct {
	// View mounts the held snapshot of a container. An error that is fs.ErrNotExist says that there is nothing to
	// capture any more, and becomes a gap; any other one may pass.
	View func(ctx context.Context, incident, containerID string) (View, error)
	// Open connects to the store that keeps a bucket.
	Open func(ctx context.Context, bucket string) (worm.Putter, error)
	// Frozen says whether a container stands still right now.
	Frozen func(containerID string) bool
}

// Container to capture.
type Container struct {
	// ID in the runtime.
	ID string
	// Name in the pod.
	Name string
}

// Order is what to capture. The same order must name the same containers each time it is given.
type Order struct {
	// Incident by name.
	Incident   string
	Containers []Container
	// Flows returns the flows that were dropped so far. May be nil.
	Flows  func() ([]evidence.Flow, error)
	Action *v1alpha1.FilesystemSnapshotAction
	// Previous is the last result that Stored was given: its artifacts are not captured again.
	Previous Result
	// Stored is called after each artifact with everything so far. The caller persists it before it returns, so that a
	// restart repeats one artifact at most. May be nil.
	Stored func(Result) error
}

// Result is what was captured, in the form of a response's status.
type Result struct {
	Artifacts []v1alpha1.Artifact
	Gaps      []v1alpha1.GapCount
	// GapsObject names every gap, one a line. With several such objects it is the newest, and its first line names the
	// one before.
	GapsObject *v1alpha1.StoredObject
}

// errMissing marks a container that has nothing to capture any more.
var errMissing = errors.New("nothing to capture")

// run is one call of Capture.
type run struct {
	*Capturer
	order    Order
	store    worm.Putter
	progress func(v1alpha1.Progress)
	result   Result
	// past is the progress of the artifacts before the current one.
	past v1alpha1.Progress
}

// Capture stores the dropped flows and then the root filesystem of every container, in the order of their names. What cannot be read is a gap. An
// error means that something is not captured yet and another call may do better; the result holds what is stored all
// the same. Nothing is ever put twice under one key.
func (c *Capturer) Capture(ctx context.Context, order Order, progress func(v1alpha1.Progress)) (Result, error) {
	store, err := c.Open(ctx, order.Action.Destination.Bucket)
	if err != nil {
		return order.Previous, fmt.Errorf("open bucket %s: %w", order.Action.Destination.Bucket, err)
	}
	r := &run{Capturer: c, order: order, store: store, progress: progress, result: order.Previous}
	r.result.Artifacts = slices.Clone(r.result.Artifacts)
	r.result.Gaps = slices.Clone(r.result.Gaps)
	var failed []error
	if err := r.flows(ctx); err != nil {
		failed = append(failed, err)
	}
	var missing []missingContainer
	for _, item := range plan(order) {
		if r.has(item.artifact) {
			continue
		}
		err := r.container(ctx, item)
		switch {
		case errors.Is(err, errMissing):
			missing = append(missing, missingContainer{item, err})
		case ctx.Err() != nil:
			return r.result, err
		case err != nil:
			// The others are still captured: what is left of this one can wait, they may not.
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return r.result, errors.Join(failed...)
	}
	// Missing containers come last and are not persisted before the end: each call finds them anew, and counts once.
	return r.result, r.recordMissing(ctx, missing)
}

// item is one container and the name of its artifact.
type item struct {
	Container
	artifact  string
	mediaType string
}

// plan names the artifacts and orders them by name. A container that was restarted appears twice under one name; then
// the artifact's name carries the id.
func plan(order Order) []item {
	extension, mediaType := "tar.zst", evidence.MediaTypeTarZstd
	if order.Action.Compression == v1alpha1.CompressionGzip {
		extension, mediaType = "tar.gz", evidence.MediaTypeTarGzip
	}
	count := map[string]int{}
	for _, container := range order.Containers {
		count[container.Name]++
	}
	items := make([]item, 0, len(order.Containers))
	for _, container := range order.Containers {
		folder := container.Name
		if count[container.Name] > 1 {
			folder += "-" + container.ID[:min(12, len(container.ID))]
		}
		items = append(items, item{container, folder + "/rootfs." + extension, mediaType})
	}
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.artifact, b.artifact) })
	return items
}

func (r *run) has(artifact string) bool {
	return slices.ContainsFunc(r.result.Artifacts, func(a v1alpha1.Artifact) bool { return a.Name == artifact })
}

func (r *run) target(name string) upload.Target {
	return targetIn(r.order.Action.Destination, name)
}

func targetIn(destination v1alpha1.Destination, name string) upload.Target {
	return upload.Target{
		Prefix: destination.Prefix,
		Name:   name,
		Lock:   worm.Lock{Mode: string(destination.LockMode), RetainUntil: destination.RetainUntil.Time},
	}
}

// container captures one container and has the caller persist it.
func (r *run) container(ctx context.Context, item item) error {
	view, err := r.View(ctx, r.order.Incident, item.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: view container %s: %w", errMissing, item.ID, err)
	}
	if err != nil {
		return fmt.Errorf("view container %s: %w", item.ID, err)
	}
	stored, err := r.attempts(ctx, item, view.Root())
	if closed := view.Close(); err == nil && closed != nil {
		err = fmt.Errorf("close view of container %s: %w", item.ID, closed)
	}
	if stored == nil {
		return err
	}
	// Stored evidence counts, whatever became of the mount.
	r.result.Artifacts = append(r.result.Artifacts, stored.artifact)
	r.merge(stored.gaps)
	if stored.gapsObject != nil {
		r.result.GapsObject = stored.gapsObject
	}
	if r.order.Stored != nil {
		if persisted := r.order.Stored(r.result); persisted != nil {
			return errors.Join(err, fmt.Errorf("persist %s: %w", item.artifact, persisted))
		}
	}
	return err
}
