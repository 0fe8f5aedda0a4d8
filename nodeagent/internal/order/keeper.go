package order

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// keepEvery is how often contained pods are looked at.
	keepEvery = 10 * time.Second
	// wholeEvery is how often everything of a frozen pod is looked at: its hooks, its processes wherever they are, its
	// hold. That takes tens of milliseconds. In between its freezers and its pins are: nothing of it runs that could
	// change the rest, and the watches tell of what starts and of new devices.
	wholeEvery = 5 * time.Minute
)

// keeper keeps contained pods contained, removes the drop of pods that are gone, and lets a pod go whose time is up when
// nobody is there to order it.
type keeper struct {
	node Node
	pods *pods
	// done names, by the uid of a pod, the incidents for whose end the pod was let go completely.
	done map[string]string
	// tidied are the releases, by name, that left nothing held.
	tidied map[string]bool
	// kept are the frozen pods, by uid, as they were found and left at the last look at everything.
	kept map[string]keptPod
	// mutex guards done and kept while pods are tended.
	mutex sync.Mutex
}

type keptPod struct {
	at  time.Time
	pod Pod
}

// Start looks at once and then regularly, until the context ends.
func (k *keeper) Start(ctx context.Context) error {
	ticks := time.NewTicker(keepEvery)
	defer ticks.Stop()
	for ctx.Err() == nil {
		if err := k.look(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "contained pods not kept")
		}
		select {
		case <-ctx.Done():
		case <-ticks.C:
		}
	}
	return nil
}

func (k *keeper) look(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, writeWithin)
	if err := k.node.Known.save(within); err != nil {
		log.FromContext(ctx).Error(err, "orders not remembered on the node's disk")
	}
	cancel()
	known, err := intents(ctx, k.node)
	if err != nil {
		return err
	}
	pinned, err := k.node.Drop.Pods()
	if err != nil {
		return err
	}
	errs := []error{k.leftovers(ctx), k.node.Memory.Collect(ctx, func(uid string) bool { return known[uid].contained || known[uid].open })}
	maps.DeleteFunc(k.done, func(uid, _ string) bool { return len(known[uid].overdue) == 0 })
	maps.DeleteFunc(k.kept, func(uid string, kept keptPod) bool {
		return !known[uid].frozen || !slices.Contains(pinned, uid) || k.node.Clock.Since(kept.at) >= wholeEvery || !k.still(kept.pod)
	})
	return errors.Join(append(errs, k.tendAll(ctx, known, pinned))...)
}

// tendAll tends pods side by side: one that takes long, such as one whose freeze does not end, does not keep the others.
func (k *keeper) tendAll(ctx context.Context, known map[string]intent, pinned []string) error {
	uids := slices.Compact(slices.Sorted(slices.Values(slices.AppendSeq(slices.Clone(pinned), maps.Keys(known)))))
	errs := make([]error, len(uids))
	var group errgroup.Group
	group.SetLimit(containments)
	for i, uid := range uids {
		group.Go(func() error {
			errs[i] = k.tend(ctx, uid, known[uid], slices.Contains(pinned, uid))
			return nil
		})
	}
	return errors.Join(append(errs, group.Wait())...)
}

// tend does what is wanted of a pod, and looks whether a pod that is cut off is still there.
func (k *keeper) tend(ctx context.Context, uid string, wanted intent, pinned bool) error {
	var err error
	switch {
	case wanted.contained:
		err = k.restore(ctx, uid)
	case len(wanted.overdue) > 0:
		err = k.letGo(ctx, uid)
	case wanted.free() && k.node.Known.synced.Load() && pinned:
		err = k.letGoAgain(ctx, uid)
	}
	if !pinned || k.isKept(uid) {
		return err
	}
	return errors.Join(err, k.orphan(ctx, uid))
}

func (k *keeper) isKept(uid string) bool {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	_, kept := k.kept[uid]
	return kept
}

func (k *keeper) keep(uid string, pod Pod) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if k.kept == nil {
		k.kept = map[string]keptPod{}
	}
	k.kept[uid] = keptPod{k.node.Clock.Now(), pod}
}

// isDone says whether a pod was let go completely for these incidents.
func (k *keeper) isDone(uid, incidents string) bool {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.done[uid] == incidents
}

func (k *keeper) noteDone(uid, incidents string) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if k.done == nil {
		k.done = map[string]string{}
	}
	k.done[uid] = incidents
}

// restore leaves out a pod that somebody else is at, as do orphan and letGo: whatever takes long about one pod does not
// keep the others, and the next look finds it.
func (k *keeper) restore(ctx context.Context, uid string) error {
	unlock, ok := k.pods.tryLock(uid)
	if !ok {
		return nil
	}
	defer unlock()
	if k.isKept(uid) {
		return nil
	}
	known, err := intents(ctx, k.node)
	if err != nil || !known[uid].contained {
		return err
	}
	pod, err := find(ctx, k.node, uid)
	if err != nil || len(pod.Processes) == 0 {
		return err
	}
	still, err := restoreTo(ctx, k.node, pod, known[uid])
	if err == nil && still {
		k.keep(uid, pod)
	}
	return err
}

// still says whether every container that ran at the last look stands still.
func (k *keeper) still(pod Pod) bool {
	for _, container := range pod.Containers {
		if container.Process != 0 && !k.node.Freeze.Still(container) {
			return false
		}
	}
	return true
}

// leftovers lets go what a release had to keep: containerd before 2.2 needs the lease for as long as the container runs.
func (k *keeper) leftovers(ctx context.Context) error {
	known, err := k.node.Known.read(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for i := range known.Responses {
		response := &known.Responses[i]
		if response.Spec.Action.Type == v1alpha1.ActionPodUnfreeze && response.Status.CompletedAt != nil && !k.tidied[response.Name] {
			held, err := k.node.Hold.Held(ctx, response.Spec.IncidentName)
			if err == nil && len(held) == 0 {
				if k.tidied == nil {
					k.tidied = map[string]bool{}
				}
				k.tidied[response.Name] = true
				continue
			}
			errs = append(errs, err, k.release(ctx, response.Spec.IncidentName))
		}
	}
	return errors.Join(errs...)
}

// orphan detaches the drop of a pod that the runtime no longer knows, unless an order for it is open. Should the pod get
// a sandbox again, the watch on its containers cuts it off anew.
func (k *keeper) orphan(ctx context.Context, uid string) error {
	unlock, ok := k.pods.tryLock(uid)
	if !ok {
		return nil
	}
	defer unlock()
	known, err := intents(ctx, k.node)
	if err != nil || known[uid].open {
		return err
	}
	pod, err := find(ctx, k.node, uid)
	if err != nil || pod.Sandboxes > 0 || len(pod.Containers) > 0 {
		return err
	}
	if err := k.node.Drop.Detach(uid); err != nil {
		return err
	}
	log.FromContext(ctx).Info("drop of a pod that is gone removed", "podUID", uid)
	return nil
}

// release lets every snapshot go that the incident holds.
func (k *keeper) release(ctx context.Context, incident string) error {
	ctx, cancel := context.WithTimeout(ctx, releasesWithin)
	defer cancel()
	held, err := k.node.Hold.Held(ctx, incident)
	errs := []error{err}
	for _, container := range held {
		if err := k.node.Hold.Release(ctx, incident, container); err != nil && !errors.Is(err, ErrStillHeld) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// letGo does what podunfreeze does, without a record: the order that comes once the API server is back finds it done. What
// fails of it does not keep the rest, and is tried again at the next look.
func (k *keeper) letGo(ctx context.Context, uid string) error {
	unlock, ok := k.pods.tryLock(uid)
	if !ok {
		return nil
	}
	defer unlock()
	known, err := intents(ctx, k.node)
	if err != nil || known[uid].contained || len(known[uid].overdue) == 0 {
		return err
	}
	overdue := slices.Sorted(slices.Values(known[uid].overdue))
	incidents := strings.Join(overdue, ", ")
	if k.isDone(uid, incidents) {
		return nil
	}
	pod, err := find(ctx, k.node, uid)
	if err != nil {
		return err
	}
	var errs []error
	for _, incident := range overdue {
		errs = append(errs, k.release(ctx, incident))
	}
	thawErr := errors.Join(thawAll(ctx, k.node, pod), k.node.Freeze.StartStrays(ctx, pod))
	if thawErr != nil && ctx.Err() != nil {
		return thawErr
	}
	if err := errors.Join(errors.Join(errs...), thawErr, k.node.Drop.Detach(uid)); err != nil {
		return err
	}
	k.noteDone(uid, incidents)
	log.FromContext(ctx).Info("pod let go at its deadline without an order", "podUID", uid, "incidents", overdue)
	return nil
}

// letGoAgain lets a pod go that was released and is cut off all the same: an agent that began without the API server
// contained it as it was last known. Any incident on the pod that is open by the API server's own word keeps it as it is,
// whatever came of its orders: they may be on their way, or have reached more than their record says.
func (k *keeper) letGoAgain(ctx context.Context, uid string) error {
	unlock, ok := k.pods.tryLock(uid)
	if !ok {
		return nil
	}
	defer unlock()
	known, err := intents(ctx, k.node)
	if err != nil || !known[uid].free() {
		return err
	}
	var open v1alpha1.IncidentList
	err = k.node.Live.List(ctx, &open, client.MatchingLabels{v1alpha1.LabelOpen: "true", v1alpha1.LabelPodUID: uid})
	if err != nil || len(open.Items) > 0 {
		return err
	}
	pod, err := find(ctx, k.node, uid)
	if err != nil {
		return err
	}
	hooks, err := k.node.Drop.Observe(uid)
	if err != nil {
		log.FromContext(ctx).Error(err, "what was dropped since the release is not known", "podUID", uid)
	}
	thawErr := errors.Join(thawAll(ctx, k.node, pod), k.node.Freeze.StartStrays(ctx, pod))
	if thawErr != nil && ctx.Err() != nil {
		return thawErr
	}
	if err := errors.Join(thawErr, k.node.Drop.Detach(uid)); err != nil {
		return err
	}
	log.FromContext(ctx).Info("pod that was contained after its release let go", "podUID", uid, "hooks", hooks)
	return nil
}
