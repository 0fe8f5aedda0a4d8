package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// Capturer captures pods of this node.
type Capturer struct {
	// Containers shows what is held of containers.
	Containers Containers
	// Look finds what else there is of a pod. May be nil.
	Look func(ctx context.Context, order Order) (Look, error)
	// Open connects to the store. maxBandwidth in bytes a second is no limit when it is 0.
	Open func(ctx context.Context, destination v1alpha1.Destination, maxBandwidth int64) (worm.Putter, error)
	// Frozen says whether a container stands still right now.
	Frozen func(containerID string) bool
	// FirstSegment is the size after which the first segments of an archive end; 0 is upload.FirstSegment.
	FirstSegment int64
}

// Container to capture.
type Container struct {
	// ID in the runtime.
	ID string
	// Name in the pod.
	Name string
	// Ran says that it was frozen, so that it had processes; Dies, that a probe of it will have it killed.
	Ran, Dies bool
}

// Order is what to capture. The same order must name the same containers each time it is given.
type Order struct {
	// Incident by name.
	Incident   string
	Pod        v1alpha1.PodRef
	Containers []Container
	// Flows returns the flows that were dropped so far. May be nil.
	Flows func() ([]evidence.Flow, error)
	// Memory says of which processes the memory is wanted.
	Memory v1alpha1.MemoryCapture
	Action *v1alpha1.FilesystemSnapshotAction
	// Previous is the last result that Stored was given: its artifacts are not captured again.
	Previous Result
	// Stored is called after each artifact, and after each segment of one, with everything so far. The caller persists it
	// before it returns, so that a restart repeats one segment at most. May be nil.
	Stored func(Result) error
}

// Result is what was captured, in the form of a response's status.
type Result struct {
	Artifacts []v1alpha1.Artifact
	Gaps      []v1alpha1.GapCount
	// GapsObject names every gap, one a line. With several such objects it is the newest, and its first line names the
	// one before.
	GapsObject *v1alpha1.StoredObject
	// Storing is the artifact that was being stored.
	Storing *v1alpha1.Storing
}

// run is one call of Capture.
type run struct {
	*Capturer
	order    Order
	store    worm.Putter
	seal     sealer
	progress func(v1alpha1.Progress)
	result   Result
	// past is the progress of the artifacts before the current one.
	past v1alpha1.Progress
}

// Capture stores everything of a pod, the most volatile first: the dropped flows, the state of its processes, files in
// memory, memory where it is wanted, what each container changed, logs and volumes, and each whole root filesystem. What
// cannot be read is a gap. An error means that something is not captured yet and another call may do better; the result
// holds what is stored all the same. Nothing is ever put twice under one key.
func (c *Capturer) Capture(ctx context.Context, order Order, progress func(v1alpha1.Progress)) (Result, error) {
	r, err := c.begin(ctx, order, progress)
	if err != nil {
		return order.Previous, err
	}
	parts, gaps, failed := r.plan(ctx)
	var missing []missingPart
	for i := range parts {
		part := &parts[i]
		if r.has(part.Name) || (part.Kind == v1alpha1.ArtifactPodDescription && len(failed) > 0) {
			// A description names what is missing: it is made when nothing is left to be tried again.
			continue
		}
		err := r.part(ctx, part)
		lost, isLost := errors.AsType[Lost](err)
		switch {
		case isLost:
			missing = append(missing, missingPart{part.Name, lost})
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
	// What is missing comes last and is not persisted before the end: each call finds it anew, and counts it once.
	if storing := r.result.Storing; storing != nil {
		// Its segments stay on record: what it was made from is gone.
		message := fmt.Sprintf("%s: %d segments are stored and nothing is left to make the others from", storing.Artifact, len(storing.Segments))
		gaps = append(gaps, evidence.Gap{Reason: GapNotCompleted, Message: message, Count: 1})
	}
	return r.result, r.recordMissing(ctx, missing, gaps)
}

func (c *Capturer) begin(ctx context.Context, order Order, progress func(v1alpha1.Progress)) (*run, error) {
	seal, err := newSealer(order.Action.Destination)
	if err != nil {
		return nil, err
	}
	var bandwidth int64
	if limit := order.Action.MaxBandwidth; limit != nil {
		bandwidth = limit.Value()
	}
	store, err := c.Open(ctx, order.Action.Destination, bandwidth)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", order.Action.Destination.Bucket, err)
	}
	r := &run{Capturer: c, order: order, store: store, seal: seal, progress: progress, result: order.Previous}
	r.result.Artifacts = slices.Clone(r.result.Artifacts)
	r.result.Gaps = slices.Clone(r.result.Gaps)
	return r, nil
}

func (r *run) has(artifact string) bool {
	return slices.ContainsFunc(r.result.Artifacts, func(a v1alpha1.Artifact) bool { return a.Name == artifact })
}

// stored has the caller persist everything so far.
func (r *run) stored(what string) error {
	if r.order.Stored == nil {
		return nil
	}
	if err := r.order.Stored(r.result); err != nil {
		return fmt.Errorf("persist %s: %w", what, err)
	}
	return nil
}
