package order

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// progressEvery spaces the writes of status.progress.
	progressEvery = 5 * time.Second
	// begunWithin bounds how long evidence waits for the record that it is begun.
	begunWithin = time.Second
	// progressWithin bounds a write of status.progress, for which a reader waits. It is longer: where the API server is slow, this
	// puts on record what is begun.
	progressWithin = 5 * time.Second
	// progressPause is the longest time between two of them while they do not succeed.
	progressPause = time.Minute
)

// snapshotStep captures every container that podfreeze recorded, their files from held snapshots: the pod may be gone by
// now.
type snapshotStep struct {
	node   Node
	record *record
	pods   *pods
	// mutex guards the record while a capture runs, which reports segments and progress from different goroutines.
	mutex        sync.Mutex
	lastProgress time.Time
	// pause is how long progress is not written from then on.
	pause time.Duration
	// stalled is why the last write during a capture did not succeed.
	stalled error
	seen    *sight
	// holdPause in place of firstHoldPause, when it is not 0.
	holdPause time.Duration
	// wanted are the containers to capture.
	wanted []v1alpha1.ContainerFreeze
}

func (s *snapshotStep) run(ctx context.Context) (result, error) {
	if kept := s.seen.unwritten; kept != nil && len(kept.Artifacts) >= len(s.record.status().Artifacts) {
		s.take(*kept)
	}
	ended, err := s.carryOut(ctx)
	if err != nil && s.seen.late {
		s.nameMissing()
	}
	return ended, err
}

func (s *snapshotStep) carryOut(ctx context.Context) (result, error) {
	spec := s.record.response.Spec
	if refusal, ok := errors.AsType[refused](checkOrder(s.node.Name, spec)); ok {
		return result{v1alpha1.ReasonOrderRefused, refusal.why}, nil
	}
	list, late, err := s.containers(ctx, spec)
	if refusal, ok := errors.AsType[refused](err); ok {
		return result{v1alpha1.ReasonOrderRefused, refusal.why}, nil
	}
	if err != nil {
		return result{}, err
	}
	if len(list) == 0 {
		return failed("the pod has no container on this node, and none is held"), nil
	}
	s.wanted = list
	// The first write also finds out what an earlier start stored, should the cache not know it yet.
	if err := s.record.write(ctx, fmt.Sprintf("capturing %d containers", len(list))); err != nil {
		return result{}, err
	}
	s.seen.unwritten = nil
	unheld, err := s.hold(ctx, spec.IncidentName, list)
	if err != nil {
		return result{}, err
	}
	captured, err := s.capture(ctx, spec, list)
	if err != nil {
		s.take(captured)
		return result{}, err
	}
	if lack(captured.Artifacts, list, unheld) {
		// What was stored is on record, and what is missing is not final.
		s.seen.waiting = unheld
		return result{}, s.seen.unheld
	}
	if err := s.thaw(ctx, spec); err != nil {
		if !s.seen.late {
			return result{}, err
		}
		log.FromContext(ctx).Error(err, "pod not thawed at the end of its capture")
	}
	// Not before the end: what is missing is found anew by each start, and counted once.
	s.take(captured)
	s.nameUnheld()
	s.nameLate(late)
	return s.conclude(len(list)), nil
}

// containers returns what podfreeze recorded, which is the same at every start, and what started since. Without a record
// it returns the pod's containers of now, after the pod has been checked.
func (s *snapshotStep) containers(ctx context.Context, spec v1alpha1.EventResponseSpec) (list, late []v1alpha1.ContainerFreeze, err error) {
	freeze, err := contained(ctx, s.node, spec)
	if err != nil {
		return nil, nil, fmt.Errorf("read the containers that podfreeze recorded: %w", err)
	}
	pod, err := s.node.Containers.Pod(ctx, spec.PodRef.UID)
	if err != nil {
		return nil, nil, err
	}
	fresh := unrecorded(pod, freeze.Containers)
	if len(freeze.Containers) == 0 {
		_, err := livePod(ctx, s.node.Live, s.node.Name, spec.PodRef)
		return fresh, nil, err
	}
	return freeze.Containers, fresh, nil
}

// capture stops as soon as the record is closed by somebody else.
func (s *snapshotStep) capture(ctx context.Context, spec v1alpha1.EventResponseSpec, list []v1alpha1.ContainerFreeze) (Captured, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	status := s.record.status()
	memory, err := memoryWanted(ctx, s.node, spec)
	if err != nil {
		return Captured{}, err
	}
	order := Capture{
		Incident: spec.IncidentName, Pod: spec.PodRef, Containers: list, Memory: memory, Action: spec.Action.FilesystemSnapshot,
		Flows: func() ([]evidence.Flow, error) {
			flows, err := s.node.Drop.Flows(spec.PodRef.UID)
			return flows.List, err
		},
		Again: status.Attempts > 1,
		Previous: Captured{
			Artifacts: status.Artifacts, Gaps: status.Gaps, GapsObject: status.GapsObject, Storing: status.Storing, Begun: status.Begun,
		},
	}
	order.Stored = func(captured Captured) error {
		err := s.persist(ctx, captured, len(list))
		if errors.Is(err, errClosed) {
			stop(errClosed)
		}
		return err
	}
	order.Begun = func(captured Captured) {
		if err := s.begun(ctx, captured, len(list)); errors.Is(err, errClosed) {
			stop(errClosed)
		} else if err != nil {
			log.FromContext(ctx).Error(err, "what is begun is not on record yet")
		}
	}
	captured, err := s.node.Capture.Capture(ctx, order, func(progress v1alpha1.Progress) {
		if err := s.progress(ctx, progress); errors.Is(err, errClosed) {
			stop(errClosed)
		} else if err != nil {
			log.FromContext(ctx).Error(err, "progress not written")
		}
	})
	if err != nil && errors.Is(context.Cause(ctx), errClosed) {
		return captured, errClosed
	}
	return captured, err
}

// persist writes down everything so far.
func (s *snapshotStep) persist(ctx context.Context, captured Captured, wanted int) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.take(captured)
	err := s.record.write(ctx, fmt.Sprintf("%d artifacts of %d containers are stored", len(captured.Artifacts), wanted))
	s.seen.keep(captured, err)
	s.stalled = err
	if err == nil {
		s.pause = min(s.pause, progressEvery)
	}
	return err
}

// begun writes down what is begun, if that takes but a moment. After one write that did not succeed evidence waits for none until
// another did, of progress or of what was stored: however many parts are begun until then, they cost begunWithin once.
func (s *snapshotStep) begun(ctx context.Context, captured Captured, wanted int) error {
	s.mutex.Lock()
	stalled := s.stalled != nil
	if stalled {
		s.take(captured)
		s.seen.keep(captured, s.stalled)
	}
	s.mutex.Unlock()
	if stalled {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, begunWithin)
	defer cancel()
	return s.persist(ctx, captured, wanted)
}

// progress is for people to watch, and a reader waits for it: not while another write is under way, no longer than progressWithin,
// and after a write that did not succeed not for twice the time. It also writes down what is begun, and finds out that an outage
// is over.
func (s *snapshotStep) progress(ctx context.Context, progress v1alpha1.Progress) error {
	if !s.mutex.TryLock() {
		return nil
	}
	defer s.mutex.Unlock()
	if s.node.Clock.Now().Sub(s.lastProgress) < s.pause {
		return nil
	}
	s.record.status().Progress = &progress
	ctx, cancel := context.WithTimeout(ctx, progressWithin)
	defer cancel()
	err := s.record.write(ctx, "capturing "+progress.CurrentArtifact)
	s.stalled, s.lastProgress = err, s.node.Clock.Now()
	if s.pause = min(2*s.pause, progressPause); err == nil || s.pause == 0 {
		s.pause = progressEvery
	}
	return err
}

func (s *snapshotStep) take(captured Captured) {
	status := s.record.status()
	status.Artifacts, status.Gaps, status.GapsObject, status.Storing = captured.Artifacts, captured.Gaps, captured.GapsObject, captured.Storing
	status.Begun = captured.Begun
}

func (s *snapshotStep) conclude(wanted int) result {
	status := s.record.status()
	bytes, gaps, roots, lacking := int64(0), int64(0), 0, false
	for _, artifact := range status.Artifacts {
		bytes += artifact.Size
		lacking = lacking || artifact.Truncated
		if artifact.Kind == v1alpha1.ArtifactRootFilesystem {
			roots++
		}
	}
	lacking = lacking || roots < wanted
	for _, gap := range status.Gaps {
		gaps += gap.Count
		lacking = lacking || !complete(gap.Reason)
	}
	message := fmt.Sprintf("%d artifacts of %d containers, %d bytes stored, %d gaps", len(status.Artifacts), wanted, bytes, gaps)
	switch {
	case roots == 0:
		return failed(message)
	case lacking:
		return partial(message)
	}
	return succeeded(message)
}
