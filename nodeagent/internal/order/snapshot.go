package order

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// progressEvery spaces the writes of status.progress.
	progressEvery = 5 * time.Second
	// holdTries at containers that podfreeze held in most cases. The pause doubles with each: 15 s in all.
	holdTries      = 5
	firstHoldPause = time.Second
	// holdShare is the part of the time that is left that one try may take: a container of very many files takes minutes,
	// one that hangs leaves the rest to the others.
	holdShare = 4
)

// gapLate is the reason of a container that started after the pod was contained.
const gapLate = "StartedAfterContainment"

// complete tells the reasons of gaps that lack nothing: what could be read was stored, if otherwise than one would expect.
func complete(reason string) bool {
	switch reason {
	case gapLate, // it was frozen as it started; what it replaced was captured
		evidence.GapSocketNotArchived,     // an archive has no type for it; what the kernel says of it is in the gap
		evidence.GapHardLinkStoredAsFile,  // the content is there twice
		evidence.GapAttemptAbandoned,      // an earlier start's segments, stored again by a later one
		evidence.GapMemoryNotCaptured,     // the configuration does not ask for it
		evidence.GapRegistersNotRead,      // nobody reads them but a debugger, which the process would notice
		evidence.GapUpperLayerNotSeparate: // the root filesystem has what the container changed
		return true
	}
	return false
}

// snapshotStep captures every container that podfreeze recorded, their files from held snapshots: the pod may be gone by
// now.
type snapshotStep struct {
	node   Node
	record *record
	pods   *pods
	// mutex guards the record while a capture runs, which reports segments and progress from different goroutines.
	mutex        sync.Mutex
	lastProgress time.Time
	seen         *sight
	// holdPause in place of firstHoldPause, when it is not 0.
	holdPause time.Duration
	// wanted are the containers to capture.
	wanted []v1alpha1.ContainerFreeze
}

func (s *snapshotStep) run(ctx context.Context) (result, error) {
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

// hold holds every container, some times over where that fails. After that the others do not wait: the capture reads what
// is held. It returns the ids of the containers that are not held because of an error; and that error once everything else
// is stored. A late order holds no more.
func (s *snapshotStep) hold(ctx context.Context, incident string, list []v1alpha1.ContainerFreeze) (unheld []string, err error) {
	if s.seen.late {
		return nil, nil
	}
	pause := cmp.Or(s.holdPause, firstHoldPause)
	for try := 1; ; try++ {
		var again bool
		unheld, again, s.seen.unheld = s.holdAll(ctx, incident, list)
		switch {
		case len(unheld) == 0:
			return nil, nil
		case ctx.Err() != nil:
			return unheld, errors.Join(s.seen.unheld, ctx.Err())
		case again && try < holdTries:
		case slices.Equal(unheld, s.seen.waiting):
			return unheld, s.seen.unheld
		default:
			log.FromContext(ctx).Error(s.seen.unheld, "what is not held is captured as far as it is there")
			return unheld, nil
		}
		select {
		case <-ctx.Done():
			return unheld, errors.Join(s.seen.unheld, ctx.Err())
		case <-time.After(pause):
			pause *= 2
		}
	}
}

// holdAll holds side by side: one that hangs does not keep the others. Where one took all of the time that a try has, it is
// not tried again.
func (s *snapshotStep) holdAll(ctx context.Context, incident string, list []v1alpha1.ContainerFreeze) (unheld []string, again bool, err error) {
	within, cancel := share(ctx)
	defer cancel()
	errs := make([]error, len(list))
	var group sync.WaitGroup
	for i, container := range list {
		group.Go(func() {
			_, err := s.node.Hold.Hold(within, incident, container.ContainerID)
			// What is gone becomes a gap of the capture.
			if err != nil && !errors.Is(err, ErrNothingToHold) {
				errs[i] = fmt.Errorf("hold container %s: %w", container.Name, err)
			}
		})
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			unheld = append(unheld, list[i].ContainerID)
		}
	}
	return unheld, within.Err() == nil, errors.Join(errs...)
}

// share ends with the part of the time left that one try to hold may take.
func share(ctx context.Context) (context.Context, context.CancelFunc) {
	ends, limited := ctx.Deadline()
	if !limited {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(ends)/holdShare)
}

// lack says whether the root filesystem of a container is missing that could not be held. What could not be held anew and
// is stored all the same was held before.
func lack(artifacts []v1alpha1.Artifact, list []v1alpha1.ContainerFreeze, unheld []string) bool {
	missing := map[string]int{}
	for _, container := range list {
		missing[container.Name]++
	}
	for _, artifact := range artifacts {
		if artifact.Kind == v1alpha1.ArtifactRootFilesystem {
			missing[artifact.Container]--
		}
	}
	return slices.ContainsFunc(list, func(container v1alpha1.ContainerFreeze) bool {
		return slices.Contains(unheld, container.ContainerID) && missing[container.Name] > 0
	})
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
		Previous: Captured{Artifacts: status.Artifacts, Gaps: status.Gaps, GapsObject: status.GapsObject, Storing: status.Storing},
		Stored: func(captured Captured) error {
			s.mutex.Lock()
			defer s.mutex.Unlock()
			s.take(captured)
			err := s.record.write(ctx, fmt.Sprintf("%d artifacts of %d containers are stored", len(captured.Artifacts), len(list)))
			if errors.Is(err, errClosed) {
				stop(errClosed)
			}
			return err
		},
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

// progress is for people to watch: a write that does not succeed is logged, and the next one comes in any case.
func (s *snapshotStep) progress(ctx context.Context, progress v1alpha1.Progress) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	now := s.node.Clock.Now()
	if now.Sub(s.lastProgress) < progressEvery {
		return nil
	}
	s.lastProgress = now
	s.record.status().Progress = &progress
	return s.record.write(ctx, "capturing "+progress.CurrentArtifact)
}

func (s *snapshotStep) take(captured Captured) {
	status := s.record.status()
	status.Artifacts, status.Gaps, status.GapsObject, status.Storing = captured.Artifacts, captured.Gaps, captured.GapsObject, captured.Storing
}

// nameUnheld says of the containers that were not captured by the deadline why they could not be held: nothing is held of
// them, or there was no time to look.
func (s *snapshotStep) nameUnheld() {
	if !s.seen.late || s.seen.unheld == nil {
		return
	}
	status := s.record.status()
	gaps := slices.Clone(status.Gaps)
	for _, reason := range []string{evidence.GapContainerNotCaptured, evidence.GapArtifactNotStored} {
		at := slices.IndexFunc(gaps, func(gap v1alpha1.GapCount) bool { return gap.Reason == reason })
		if at >= 0 {
			// First: what the capture says is long where much is missing.
			gaps[at].Message = cut(s.seen.unheld.Error()+"; "+gaps[at].Message, v1alpha1.MaxGapMessage)
			status.Gaps = gaps
			return
		}
	}
}

// nameMissing counts what is missing where a late order is closed without a capture that could tell.
func (s *snapshotStep) nameMissing() {
	s.record.lack(v1alpha1.GapCount{
		Reason: evidence.GapCaptureNotEnded, Count: 1, Message: "what of the pod is neither stored nor counted is not known",
	})
	names := s.record.status().WithoutRootFilesystem(s.wanted)
	if len(names) == 0 {
		return
	}
	s.record.lack(v1alpha1.GapCount{
		Reason: evidence.GapArtifactNotStored, Count: int64(len(names)),
		Message: cut("no whole root filesystem is stored of: "+strings.Join(names, ", "), v1alpha1.MaxGapMessage),
	})
}

func (s *snapshotStep) nameLate(late []v1alpha1.ContainerFreeze) {
	if len(late) == 0 {
		return
	}
	names := make([]string, len(late))
	for i, container := range late {
		names[i] = container.Name + " " + container.ContainerID
	}
	status := s.record.status()
	for i := range status.Gaps {
		if status.Gaps[i].Reason == gapLate {
			return
		}
	}
	status.Gaps = append(status.Gaps, v1alpha1.GapCount{
		Reason: gapLate, Count: int64(len(late)),
		Message: "started after the pod was contained, frozen and not captured: " + strings.Join(names[:min(len(names), 8)], ", "),
	})
}

// thaw sets processes going again where the freeze was for the capture only, unless another incident wants them stopped.
// The drop stays. The keeper thaws as well, so a container that it froze from a cache that did not know of the end yet
// does not stay frozen.
func (s *snapshotStep) thaw(ctx context.Context, spec v1alpha1.EventResponseSpec) error {
	incident := new(v1alpha1.Incident)
	err := s.node.Client.Get(ctx, client.ObjectKey{Name: spec.IncidentName}, incident)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read incident %s: %w", spec.IncidentName, err)
	}
	if incident.Spec.Freeze.Processes != v1alpha1.FreezeDuringCapture {
		return nil
	}
	defer s.pods.lock(spec.PodRef.UID)()
	// This order is not closed yet: what its own incident wants would still be the freeze.
	others, err := othersIntents(ctx, s.node, spec.IncidentUID)
	if err != nil || others[spec.PodRef.UID].frozen {
		return err
	}
	pod, err := s.node.Containers.Pod(ctx, spec.PodRef.UID)
	if err != nil {
		return err
	}
	// First the programs that know running processes, so that the kubelet's first probe after the thaw gets through.
	_, dropErr := s.node.Drop.Attach(ctx, pod, Cut{Running: true})
	return errors.Join(dropErr, thawAll(ctx, s.node, pod), s.node.Freeze.StartStrays(ctx, pod))
}

func thawAll(ctx context.Context, node Node, pod Pod) error {
	return eachRunning(pod, func(container Container) error {
		_, err := thawOne(ctx, node, container)
		return err
	})
}

func eachRunning(pod Pod, act func(Container) error) error {
	var errs []error
	for _, container := range pod.Containers {
		if container.Process != 0 {
			errs = append(errs, act(container))
		}
	}
	return errors.Join(errs...)
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
