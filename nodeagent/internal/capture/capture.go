package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

// Capturer captures pods of this node.
type Capturer struct {
	// Containers shows what is held of containers.
	Containers Containers
	// Look finds what else there is of a pod. May be nil.
	Look func(ctx context.Context, order Order) (Look, error)
	// Open connects to the store. maxBandwidth in bytes a second is no limit when it is 0.
	Open func(ctx context.Context, destination v1alpha1.Destination, maxBandwidth int64) (worm.Putter, error)
	// Frozen says whether a container stands still right now. It may be called by several goroutines at a time.
	Frozen func(containerID string) bool
	// FirstSegment is the size after which the first segments of an archive end; 0 is upload.FirstSegment.
	FirstSegment int64
	// Pause before a part that failed is tried again, which doubles with each try; 0 is a second.
	Pause time.Duration
	// claims are those that the next call can use, of captures under way.
	claims upload.Claims
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
	// Again says that there was an earlier call, which may have stored what is not in Previous: an agent can be killed between
	// the two.
	Again bool
	// Stored is called after each artifact, and after each segment of one, with everything so far. The caller persists it
	// before it returns, so that a restart repeats one segment at most. May be nil.
	Stored func(Result) error
	// Begun is called before an artifact is begun that Stored was not told of as the next. The caller writes it down if that
	// takes but a moment: evidence does not wait for it. May be nil.
	Begun func(Result)
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
	// Begun are the artifacts that were begun, or come next, and are not stored.
	Begun []string
}

// run is one call of Capture.
type run struct {
	*Capturer
	order Order
	store worm.Putter
	seal  sealer
	// shut is why the store is not open.
	shut     error
	progress func(v1alpha1.Progress)
	result   Result
	window   window
	// memory is the time that the memory of processes may still take.
	memory share
	// past is the progress of the artifacts before the current one, watching the looks at what could change that one.
	past     v1alpha1.Progress
	watching *watch
	// found is what the looks found, parts and gaps the plan of it; planned says that one look found everything.
	planned bool
	found   Look
	parts   []Part
	gaps    []evidence.Gap
	strays  func() bool
	// missing are the parts that are lost. By name, why holds the last error of each other one, left the keys that tries took
	// which did not succeed, and waited the parts for which a round was ended early.
	missing []missingPart
	why     map[string]error
	left    map[string][]string
	waited  map[string]bool
}

// Capture stores everything of a pod, the most volatile first: the dropped flows, the state of its processes, files in
// memory, memory where it is wanted, what each container changed, logs and volumes, and each whole root filesystem. What
// cannot be read is a gap. An error means that something is not captured yet and another call may do better; the result
// holds what is stored all the same. Nothing is ever put twice under one key.
//
// A part that fails for a reason of its own is tried some times more when the others are done, and is then a gap. The store
// is waited for by calls until the context's deadline: shortly before it the stream that is being stored is ended, and what
// is not stored by then is a gap.
func (c *Capturer) Capture(ctx context.Context, order Order, progress func(v1alpha1.Progress)) (Result, error) {
	result, err := c.carryOut(ctx, order, progress)
	if err == nil || ctx.Err() != nil {
		// No call follows, or one for the end alone.
		c.claims.Forget(order.Action.Destination.Bucket, artifacts(order.Action.Destination))
	}
	return result, err
}

func (c *Capturer) carryOut(ctx context.Context, order Order, progress func(v1alpha1.Progress)) (Result, error) {
	r := &run{
		Capturer: c, order: order, progress: progress, result: order.Previous, window: newWindow(ctx),
		why: map[string]error{}, left: map[string][]string{}, waited: map[string]bool{},
	}
	r.memory = r.window.half()
	r.result.Artifacts = slices.Clone(r.result.Artifacts)
	r.result.Gaps = slices.Clone(r.result.Gaps)
	within, cancel := until(ctx, r.window.stops)
	defer cancel()
	if r.shut = r.open(within); r.shut != nil && !r.window.over() {
		return r.result, r.shut
	}
	pause := cmp.Or(c.Pause, firstPause)
	for round := 1; ; round++ {
		failed, early := r.round(within)
		for early {
			failed, early = r.round(within)
		}
		switch {
		case ctx.Err() != nil:
			return r.result, errors.Join(joined(failed), ctx.Err())
		case len(failed) == 0, r.window.over():
			return r.result, r.finish(ctx, within, failed)
		case slices.ContainsFunc(failed, failure.waits):
			return r.result, joined(failed)
		case round == rounds:
			return r.result, r.finish(ctx, within, failed)
		}
		r.window.wait(within, pause)
		pause *= 2
	}
}

// open connects to the store.
func (r *run) open(ctx context.Context) error {
	destination := r.order.Action.Destination
	seal, err := newSealer(destination)
	if err != nil {
		return err
	}
	var bandwidth int64
	if limit := r.order.Action.MaxBandwidth; limit != nil {
		bandwidth = limit.Value()
	}
	store, err := r.Open(ctx, destination, bandwidth)
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", destination.Bucket, err)
	}
	r.store, r.seal = store, seal
	return nil
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
		return notPersisted{fmt.Errorf("persist %s: %w", what, err)}
	}
	return nil
}
