package order

import (
	"context"
	"errors"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
)

// reconnect spaces the attempts to watch again when the runtime's stream breaks, as when containerd restarts.
const reconnect = time.Second

// Tasks tells which containers start.
type Tasks interface {
	Started(ctx context.Context, started func(ctx context.Context, containerID string)) error
	PodOf(ctx context.Context, containerID string) (string, error)
}

// watcher contains every container that starts in a contained pod: the kubelet restarts what its probes believe dead. A
// new sandbox has a new network device, which is cut off as well. The runtime does not tell of what started while nobody
// watched, nor when a watch stands: each contained pod is looked at soon after a watch began, and when it begins again. When
// the first one begins, the keeper looks.
type watcher struct {
	node     Node
	restores *restores
	tasks    Tasks
	// settled is how long after its begin a watch is taken to stand.
	settled time.Duration
}

// Start watches until the context ends.
func (w *watcher) Start(ctx context.Context) error {
	for {
		soon := time.AfterFunc(w.settled, func() { w.missed(ctx) })
		err := w.tasks.Started(ctx, w.started)
		soon.Stop()
		if err != nil {
			log.FromContext(ctx).Error(err, "watch on starting containers ended")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnect):
			w.missed(ctx)
		}
	}
}

// missed brings every contained pod to what is wanted of it.
func (w *watcher) missed(ctx context.Context) {
	known, err := intents(ctx, w.node)
	if err != nil {
		log.FromContext(ctx).Error(err, "containers that started while nobody watched not looked for")
		return
	}
	for pod, wanted := range known {
		if wanted.contained || wanted.begun {
			w.restores.tell(ctx, pod)
		}
	}
}

func (w *watcher) started(ctx context.Context, containerID string) {
	if err := w.newcomer(ctx, containerID); err != nil {
		log.FromContext(ctx).Error(err, "container that started not contained", "containerID", containerID)
	}
}

// newcomer waits for no pod: it is called between two events.
func (w *watcher) newcomer(ctx context.Context, containerID string) error {
	known, err := intents(ctx, w.node)
	if err != nil || len(known) == 0 {
		return err
	}
	within, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	pod, err := w.tasks.PodOf(within, containerID)
	if err != nil || (!known[pod].contained && !known[pod].begun) {
		return err
	}
	w.restores.tell(ctx, pod)
	return nil
}

// restore brings a pod to what is wanted of it: every effect that is in place is adopted, every one that is missing is
// repeated. The caller has the pod's lock, under which what is wanted is read: a containment that is under way has ended, a
// release that began is seen. Containers that started since are held as well, for every incident.
func restore(ctx context.Context, node Node, podUID string) error {
	known, err := intents(ctx, node)
	if err != nil || !known[podUID].contained {
		return err
	}
	pod, err := find(ctx, node, podUID)
	if err != nil || len(pod.Processes) == 0 {
		return err
	}
	_, err = restoreTo(ctx, node, pod, known[podUID])
	return err
}

// restoreTo brings a pod that has processes to what is wanted of it, and says whether nothing of it may run or send any more.
func restoreTo(ctx context.Context, node Node, pod Pod, wanted intent) (still bool, err error) {
	began := node.Clock.Now()
	dropped, dropErr := node.Drop.Attach(ctx, pod, Cut{Running: !wanted.frozen})
	if fresh := attachedSince(dropped.Hooks, began); len(fresh) > 0 {
		log.FromContext(ctx).Info("hooks that a contained pod lacked attached", "podUID", pod.UID, "hooks", fresh)
	}
	if len(dropped.Shortfalls) > 0 {
		log.FromContext(ctx).Info("pod is cut off in part", "podUID", pod.UID, "level", dropped.Level, "shortfalls", dropped.Shortfalls)
	}
	var processErr error
	switch {
	case wanted.frozen:
		still, processErr = freezeAgain(ctx, node, pod)
	case wanted.thawed:
		processErr = errors.Join(thawAll(ctx, node, pod), node.Freeze.StartStrays(ctx, pod))
	}
	err = errors.Join(dropErr, processErr, holdAll(ctx, node, pod, wanted.incidents))
	return still && err == nil && len(dropped.Shortfalls) == 0, err
}

// attachedSince names the hooks that are no older than a moment.
func attachedSince(hooks []v1alpha1.Hook, begin time.Time) (fresh []string) {
	for _, hook := range hooks {
		if hook.AttachedAt != nil && !hook.AttachedAt.Time.Before(begin) {
			fresh = append(fresh, hook.ID)
		}
	}
	return fresh
}

// freezeAgain freezes whatever of the pod runs. That more may run than was found, since the pod shares a pid namespace with
// the node or with its sandbox, is on the record of the order that froze it.
func freezeAgain(ctx context.Context, node Node, pod Pod) (still bool, err error) {
	errs := besideEachOther(pod.Containers, func(i int) error {
		_, err := freezeOne(ctx, node, pod.Containers[i])
		return err
	})
	strays := stopStrays(ctx, node, pod, true)
	shared := errors.Is(strays.lookErr, ErrSharedNamespace) || errors.Is(strays.lookErr, ErrSandboxRuns)
	if shared {
		strays.lookErr = nil
	}
	err = errors.Join(append(errs, strays.lookErr, strays.stopErr)...)
	return err == nil && !shared && strays.found == strays.stopped, err
}

// holdAll holds every container of the pod for every incident that contains it.
func holdAll(ctx context.Context, node Node, pod Pod, incidents []string) error {
	var errs []error
	for _, incident := range incidents {
		held, err := node.Hold.Held(ctx, incident)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, container := range pod.Containers {
			if slices.Contains(held, container.ID) {
				continue
			}
			within, cancel := context.WithTimeout(ctx, holdWithin)
			if _, err := node.Hold.Hold(within, incident, container.ID); err != nil && !errors.Is(err, ErrNothingToHold) {
				errs = append(errs, err)
			}
			cancel()
		}
	}
	return errors.Join(errs...)
}
