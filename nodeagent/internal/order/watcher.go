package order

import (
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/nodeagent/internal/containers"
	"ugallu.io/forensics/nodeagent/internal/drop"
)

// reconnect spaces the attempts to watch again when the runtime's stream breaks, as when containerd restarts.
const reconnect = time.Second

// Tasks tells which containers start.
type Tasks interface {
	Started(ctx context.Context, started func(ctx context.Context, containerID string)) error
	PodOf(ctx context.Context, containerID string) (string, error)
}

// watcher freezes every container that starts in a contained pod: the kubelet restarts what its probes believe dead. A
// new sandbox has a new network device, which is cut off as well.
type watcher struct {
	node  Node
	tasks Tasks
}

// Start watches until the context ends.
func (w *watcher) Start(ctx context.Context) error {
	logger := log.FromContext(ctx).WithName("watcher")
	for {
		// What started while nobody watched is caught up with.
		if err := w.all(ctx); err != nil {
			logger.Error(err, "contained pods not checked")
		}
		if err := w.tasks.Started(ctx, w.started); err != nil {
			logger.Error(err, "watch on starting containers ended")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnect):
		}
	}
}

func (w *watcher) all(ctx context.Context) error {
	intents, err := intents(ctx, w.node)
	if err != nil {
		return err
	}
	var errs []error
	for pod, wanted := range intents {
		errs = append(errs, w.contain(ctx, pod, wanted))
	}
	return errors.Join(errs...)
}

func (w *watcher) started(ctx context.Context, containerID string) {
	if err := w.newcomer(ctx, containerID); err != nil {
		log.FromContext(ctx).Error(err, "container that started not contained", "containerID", containerID)
	}
}

func (w *watcher) newcomer(ctx context.Context, containerID string) error {
	intents, err := intents(ctx, w.node)
	if err != nil || len(intents) == 0 {
		return err
	}
	pod, err := w.tasks.PodOf(ctx, containerID)
	if err != nil || pod == "" {
		return err
	}
	return w.contain(ctx, pod, intents[pod])
}

// contain repeats what podfreeze does to a running pod, where every effect that is in place is adopted.
func (w *watcher) contain(ctx context.Context, podUID string, wanted intent) error {
	if !wanted.contained {
		return nil
	}
	pod, err := w.node.Containers.Pod(ctx, podUID)
	if err != nil || len(pod.Processes) == 0 {
		return err
	}
	_, dropErr := w.node.Drop.Attach(ctx, drop.Target{PodUID: podUID, Cgroup: pod.Cgroup, Processes: pod.Processes})
	if !wanted.frozen {
		return dropErr
	}
	freezeErr := eachRunning(pod, func(container containers.Container) error {
		_, err := freezeOne(ctx, w.node, container)
		return err
	})
	return errors.Join(dropErr, freezeErr)
}
