package order

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// holdTries at containers that podfreeze held in most cases. The pause doubles with each: 15 s in all.
	holdTries      = 5
	firstHoldPause = time.Second
	// holdShare is the part of the time that is left that one try may take: a container of very many files takes minutes,
	// one that hangs leaves the rest to the others.
	holdShare = 4
)

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
