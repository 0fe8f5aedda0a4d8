package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// holdWithin bounds one hold of podfreeze, which takes milliseconds unless the container has very many files. The
// snapshot step holds again and waits longer.
const holdWithin = 10 * time.Second

// rounds in which containers that start meanwhile are looked for. One that starts after the last is found by the watch
// on task events.
const rounds = 3

// freezeStep cuts a pod off, freezes it, stops what escaped the freeze and holds its files, in this order: what leaves the
// pod cannot be taken back, what it still does inside can be seen, and what it deletes before the hold is the least.
//
// Nothing is written until the end: a start that dies is repeated from the beginning, where every effect is found in
// place and adopted. The record is kept up to date all the same, for the end may be that of the deadline.
type freezeStep struct {
	node       Node
	record     *record
	mutex      sync.Mutex
	shortfalls []string
	// empty are the containers, by id, whose freezer had nothing to stop.
	empty map[string]bool
}

func (f *freezeStep) run(ctx context.Context) (result, error) {
	spec := f.record.response.Spec
	f.record.begin()
	pod, found, err := f.look(ctx, spec)
	if refusal, ok := errors.AsType[refused](err); ok {
		return result{v1alpha1.ReasonOrderRefused, refusal.why}, nil
	}
	if err != nil {
		return result{}, err
	}
	// From here on the record says what was reached, however this start ends.
	containment := &v1alpha1.Containment{Level: v1alpha1.LevelPolicyOnly, FreezeMethod: v1alpha1.FreezeNone}
	f.record.status().Containment = containment
	before := f.sample(found)
	still, err := f.contain(ctx, containment, pod, found)
	if err != nil {
		return result{}, err
	}
	f.stray(ctx, containment, pod, still)
	for i := range containment.Containers {
		explainKill(pod, &containment.Containers[i])
	}
	f.hold(ctx, containment.Containers)
	f.keepMemory(ctx, found)
	after := f.sample(found)
	f.flows(containment)
	containment.SocketsBefore, containment.SocketsAfter = f.sockets(before), f.sockets(after)
	return f.conclude(containment, found), nil
}

// contain cuts the pod off and then freezes it. A pod in the node's network is frozen at once, beside that: raw frames of
// it pass until it stands still. It returns what of the pod there is then.
func (f *freezeStep) contain(ctx context.Context, containment *v1alpha1.Containment, pod *corev1.Pod, found Pod) (Pod, error) {
	wanted := f.record.response.Spec.Action.PodFreeze.Processes
	if wanted == v1alpha1.FreezeNever {
		f.fallShort("the processes run: open exec, attach and port-forward streams bypass the network")
	} else {
		containment.FreezeMethod = f.node.Freeze.Method()
	}
	var beside errgroup.Group
	if pod.Spec.HostNetwork && wanted != v1alpha1.FreezeNever {
		beside.Go(func() error {
			// Whatever comes of it, the freeze below finds it done or does it again.
			f.freezeAll(ctx, found.Containers, true)
			return nil
		})
	}
	takeDrop(containment, f.drop(ctx, found, Cut{Running: wanted == v1alpha1.FreezeNever, Probe: true}))
	still, err := f.freeze(ctx, containment, found)
	return still, errors.Join(beside.Wait(), err)
}

func takeDrop(containment *v1alpha1.Containment, dropped Dropped) {
	containment.Level, containment.Hooks = dropped.Level, dropped.Hooks
	if !dropped.ContainedAt.IsZero() {
		at := metav1.NewMicroTime(dropped.ContainedAt)
		containment.ContainedAt = &at
	}
}

func (f *freezeStep) flows(containment *v1alpha1.Containment) {
	flows, err := f.node.Drop.Flows(f.record.response.Spec.PodRef.UID)
	if err != nil {
		f.fallShort("flows: %v", err)
		f.record.lack(v1alpha1.GapCount{Reason: evidence.GapFlowsNotRead, Count: 1, Message: cut(err.Error(), v1alpha1.MaxGapMessage)})
		return
	}
	f.record.has(evidence.GapFlowsNotRead)
	containment.Flows = &flows.Counts
}

// look asks the API server and the runtime side by side.
func (f *freezeStep) look(ctx context.Context, spec v1alpha1.EventResponseSpec) (*corev1.Pod, Pod, error) {
	if err := checkOrder(f.node.Name, spec); err != nil {
		return nil, Pod{}, err
	}
	var pod *corev1.Pod
	var found Pod
	var podErr, foundErr error
	var group errgroup.Group
	group.Go(func() error {
		pod, podErr = livePod(ctx, f.node.Live, f.node.Name, spec.PodRef)
		return nil
	})
	group.Go(func() error {
		found, foundErr = f.node.Containers.Pod(ctx, spec.PodRef.UID)
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, Pod{}, err
	}
	return pod, found, errors.Join(podErr, foundErr)
}

// drop tries twice: an error is either of the moment, such as a device that vanished while it was looked at, or here to
// stay, and then the freeze must not wait for it.
func (f *freezeStep) drop(ctx context.Context, found Pod, cut Cut) Dropped {
	dropped, err := f.node.Drop.Attach(ctx, found, cut)
	if err != nil {
		dropped, err = f.node.Drop.Attach(ctx, found, cut)
	}
	if err != nil {
		f.fallShort("drop: %v", err)
		dropped.Level = v1alpha1.LevelPolicyOnly
		if !dropped.ContainedAt.IsZero() {
			dropped.Level = v1alpha1.LevelPartial
		}
	}
	for _, shortfall := range dropped.Shortfalls {
		f.fallShort("drop: %s", shortfall)
	}
	return dropped
}

// freeze freezes every container, and again those that started meanwhile, of which some had been created before. It returns
// what the last look found.
func (f *freezeStep) freeze(ctx context.Context, containment *v1alpha1.Containment, found Pod) (Pod, error) {
	ran := map[string]bool{}
	for range rounds {
		var fresh []Container
		for _, container := range found.Containers {
			if before, seen := ran[container.ID]; !seen || (!before && container.Process != 0) {
				ran[container.ID] = container.Process != 0
				fresh = append(fresh, container)
			}
		}
		if len(fresh) == 0 {
			break
		}
		f.enter(containment, f.freezeAll(ctx, fresh, containment.FreezeMethod != v1alpha1.FreezeNone))
		again, err := f.node.Containers.Pod(ctx, found.UID)
		if err != nil {
			return found, err
		}
		found = again
	}
	f.nameElsewhere(found)
	return found, nil
}

// enter puts what was done to containers on record, in place of what was before.
func (f *freezeStep) enter(containment *v1alpha1.Containment, done []v1alpha1.ContainerFreeze) {
	for _, one := range done {
		same := func(other v1alpha1.ContainerFreeze) bool { return other.ContainerID == one.ContainerID }
		if at := slices.IndexFunc(containment.Containers, same); at >= 0 {
			containment.Containers[at] = one
			continue
		}
		containment.Containers = append(containment.Containers, one)
	}
}

// nameElsewhere names the containers that run although their freezer had nothing to stop: one that had ended does not.
func (f *freezeStep) nameElsewhere(found Pod) {
	for _, container := range found.Containers {
		if container.Process != 0 && f.empty[container.ID] {
			f.fallShort("freeze: nothing is in the cgroup of container %s, and its process %d is elsewhere", container.Name, container.Process)
		}
	}
}

// freezeAll freezes side by side. What fails for one container does not keep the others.
func (f *freezeStep) freezeAll(ctx context.Context, list []Container, wanted bool) []v1alpha1.ContainerFreeze {
	done := make([]v1alpha1.ContainerFreeze, len(list))
	for i, container := range list {
		done[i] = v1alpha1.ContainerFreeze{ContainerID: container.ID, Name: container.Name}
	}
	if !wanted {
		return done
	}
	errs := besideEachOther(list, func(i int) (err error) {
		done[i].FrozenAt, err = freezeOne(ctx, f.node, list[i])
		f.tell(list[i].ID, done[i].FrozenAt == nil && err == nil)
		return err
	})
	for _, err := range errs {
		if err != nil {
			f.fallShort("freeze: %v", err)
		}
	}
	return done
}

// tell keeps whether a container's freezer had nothing to stop.
func (f *freezeStep) tell(containerID string, empty bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.empty == nil {
		f.empty = map[string]bool{}
	}
	f.empty[containerID] = empty
}

// hold holds every container. What fails for one, or takes too long, does not keep the others.
func (f *freezeStep) hold(ctx context.Context, list []v1alpha1.ContainerFreeze) {
	for i := range list {
		within, cancel := context.WithTimeout(ctx, holdWithin)
		heldAt, err := f.node.Hold.Hold(within, f.record.response.Spec.IncidentName, list[i].ContainerID)
		cancel()
		if err != nil {
			f.fallShort("hold: container %s: %v", list[i].Name, err)
			continue
		}
		at := metav1.NewMicroTime(heldAt)
		list[i].HeldAt = &at
	}
}

// keepMemory keeps file systems in memory, which go with the pod. A frozen pod that stays has them as well.
func (f *freezeStep) keepMemory(ctx context.Context, found Pod) {
	within, cancel := context.WithTimeout(ctx, holdWithin)
	defer cancel()
	if _, err := f.node.Memory.Keep(within, f.record.response.Spec.PodRef, found.Processes); err != nil {
		f.fallShort("hold: files in memory: %v", err)
	}
}

// fallShort says a thing once: a second drop falls short of the same as the first.
func (f *freezeStep) fallShort(format string, args ...any) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if shortfall := fmt.Sprintf(format, args...); !slices.Contains(f.shortfalls, shortfall) {
		f.shortfalls = append(f.shortfalls, shortfall)
	}
}

// conclude is Failed only when nothing holds a pod that runs.
func (f *freezeStep) conclude(containment *v1alpha1.Containment, found Pod) result {
	frozen, held := 0, 0
	for _, container := range containment.Containers {
		if container.FrozenAt != nil {
			frozen++
		}
		if container.HeldAt != nil {
			held++
		}
	}
	message := fmt.Sprintf("%d hooks, %d of %d containers frozen, %d held", len(containment.Hooks), frozen, len(containment.Containers), held)
	if len(f.shortfalls) > 0 {
		message += "; " + strings.Join(f.shortfalls, "; ")
	}
	if containment.Level == v1alpha1.LevelFull && len(f.shortfalls) > 0 {
		containment.Level = v1alpha1.LevelPartial
	}
	switch {
	case len(f.shortfalls) == 0 && containment.Level == v1alpha1.LevelFull:
		return succeeded(message)
	case containment.Level == v1alpha1.LevelPolicyOnly && frozen == 0 && len(found.Processes) > 0:
		return failed(message)
	}
	return partial(message)
}
