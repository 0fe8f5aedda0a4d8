package order

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
)

// unfreezeStep lets a pod go: first the snapshots, which become the runtime's own again, then the processes, then their
// packets. The pod need not exist any more. What fails of one does not keep the others: the order is repeated for what is
// missing.
type unfreezeStep struct {
	node   Node
	record *record
	notes  []string
	// shortfalls are why the pod is not known to go on.
	shortfalls []string
}

func (u *unfreezeStep) run(ctx context.Context) (result, error) {
	spec := u.record.response.Spec
	if refusal, ok := errors.AsType[refused](checkOrder(u.node.Name, spec)); ok {
		return result{v1alpha1.ReasonOrderRefused, refusal.why}, nil
	}
	u.record.begin()
	containment, err := contained(ctx, u.node, spec)
	if err != nil {
		return result{}, fmt.Errorf("read what podfreeze recorded: %w", err)
	}
	pod, err := find(ctx, u.node, spec.PodRef.UID)
	if err != nil {
		return result{}, err
	}
	containment.Containers = append(containment.Containers, unrecorded(pod, containment.Containers)...)
	u.observe(ctx, &containment)
	err = u.release(ctx, spec.IncidentName, containment.Containers)
	if err := errors.Join(err, u.letGo(ctx, &containment, pod)); err != nil {
		return result{}, err
	}
	u.record.status().Containment = &containment
	notes := append([]string{"the snapshots are let go"}, u.notes...)
	if len(u.shortfalls) > 0 {
		return partial(strings.Join(append(notes, u.shortfalls...), "; ")), nil
	}
	return succeeded(strings.Join(notes, "; ")), nil
}

// letGo does what the order and the other incidents leave to do. The controller knew of those that held the pod when it
// gave the order; this agent knows of those that do now.
func (u *unfreezeStep) letGo(ctx context.Context, containment *v1alpha1.Containment, pod Pod) error {
	action := u.record.response.Spec.Action.PodUnfreeze
	if action.Disposition == v1alpha1.DispositionDelete {
		u.notes = append(u.notes, "the pod stays frozen and cut off until it is deleted")
		u.releaseMemory(ctx)
		return nil
	}
	known, err := othersIntents(ctx, u.node, u.record.response.Spec.IncidentUID)
	if err != nil {
		return err
	}
	others := known[u.record.response.Spec.PodRef.UID]
	switch {
	case others.contained && !others.frozen:
		u.notes = append(u.notes, "another incident holds the pod: it stays cut off")
		_, dropErr := u.node.Drop.Attach(ctx, pod, Cut{Running: true})
		return errors.Join(dropErr, u.thaw(ctx, containment, pod))
	case others.contained, action.KeepContained:
		u.notes = append(u.notes, "another incident holds the pod: it stays contained")
		return nil
	}
	u.releaseMemory(ctx)
	return u.resume(ctx, containment, pod)
}

// releaseMemory does not keep the pod: what is left the keeper lets go of.
func (u *unfreezeStep) releaseMemory(ctx context.Context) {
	if err := u.node.Memory.Release(ctx, u.record.response.Spec.PodRef.UID); err != nil {
		u.notes = append(u.notes, fmt.Sprintf("files in memory are still kept: %v", err))
	}
}

// observe brings the hooks' and flows' counts up to date. An earlier start that got past the detach left them in the record.
// What cannot be observed does not keep the pod: it is noted.
func (u *unfreezeStep) observe(ctx context.Context, containment *v1alpha1.Containment) {
	podUID := u.record.response.Spec.PodRef.UID
	hooks, err := u.node.Drop.Observe(podUID)
	if err != nil {
		u.notes = append(u.notes, fmt.Sprintf("the last counts of the drop are lost: %v", err))
	}
	if earlier := u.record.status().Containment; len(hooks) == 0 && earlier != nil {
		containment.Hooks, containment.Flows, containment.FlowsObject = earlier.Hooks, earlier.Flows, earlier.FlowsObject
		return
	}
	byID := make(map[string]v1alpha1.Hook, len(hooks))
	for _, hook := range hooks {
		byID[hook.ID] = hook
	}
	for i := range containment.Hooks {
		known := &containment.Hooks[i]
		if now, ok := byID[known.ID]; ok {
			known.Packets, known.Bytes, known.FirstDrop, known.LastDrop = now.Packets, now.Bytes, now.FirstDrop, now.LastDrop
			delete(byID, known.ID)
		}
	}
	// Hooks of devices that came later.
	for _, hook := range hooks {
		if _, later := byID[hook.ID]; later && len(containment.Hooks) < v1alpha1.MaxHooks {
			containment.Hooks = append(containment.Hooks, hook)
		}
	}
	u.keepFlows(ctx, containment)
}

const (
	// flowsWithin bounds what a store that is away can cost of the time to the release.
	flowsWithin = 5 * time.Second
	// releasesWithin bounds what the runtime can cost of it.
	releasesWithin = 15 * time.Second
	// writeWithin bounds what an API server that is away can cost of it.
	writeWithin = 5 * time.Second
)

// keepFlows stores the list of flows as it stands at the end.
func (u *unfreezeStep) keepFlows(ctx context.Context, containment *v1alpha1.Containment) {
	spec := u.record.response.Spec
	flows, err := u.node.Drop.Flows(spec.PodRef.UID)
	if err != nil {
		u.notes = append(u.notes, fmt.Sprintf("the list of dropped flows is lost: %v", err))
		return
	}
	containment.Flows = &flows.Counts
	snapshot := new(v1alpha1.EventResponse)
	err = u.node.Client.Get(ctx, client.ObjectKey{Name: v1alpha1.ResponseName(spec.IncidentName, v1alpha1.StepSnapshot, 1)}, snapshot)
	if err != nil || snapshot.Spec.Action.FilesystemSnapshot == nil || len(flows.List) == 0 {
		u.notes = append(u.notes, fmt.Sprintf("%d dropped flows", len(flows.List)))
		return
	}
	within, cancel := context.WithTimeout(ctx, flowsWithin)
	defer cancel()
	stored, err := u.node.Capture.StoreFlows(within, FlowsTarget{
		Destination: snapshot.Spec.Action.FilesystemSnapshot.Destination, Name: "flows-at-release.ndjson.zst",
	}, flows.List)
	if err != nil {
		u.notes = append(u.notes, fmt.Sprintf("the list of %d dropped flows is not stored: %v", len(flows.List), err))
		return
	}
	containment.FlowsObject = &stored
	u.nameTaken(stored.Key)
}

// nameTaken counts the keys that others had taken before the list of flows found a free one. The last element of a key is
// a number; those below it were taken by somebody else, or by an earlier start of this order.
func (u *unfreezeStep) nameTaken(key string) {
	taken, err := strconv.ParseInt(path.Base(key), 10, 32)
	if err != nil || taken <= 0 {
		return
	}
	gap := v1alpha1.GapCount{
		Reason: gapTaken, Count: taken,
		Message: fmt.Sprintf("%d keys before %s were taken; what was stored there stays locked", taken, key),
	}
	status := u.record.status()
	status.Gaps = append(slices.DeleteFunc(status.Gaps, func(other v1alpha1.GapCount) bool { return other.Reason == gapTaken }), gap)
}

// release lets every snapshot of the incident go that it can, those of containers that are gone and on no record as well.
func (u *unfreezeStep) release(ctx context.Context, incident string, list []v1alpha1.ContainerFreeze) error {
	ctx, cancel := context.WithTimeout(ctx, releasesWithin)
	defer cancel()
	held, err := u.node.Hold.Held(ctx, incident)
	errs := []error{err}
	names := make(map[string]string, len(list))
	for _, container := range list {
		names[container.ContainerID] = container.Name
		if !slices.Contains(held, container.ContainerID) {
			held = append(held, container.ContainerID)
		}
	}
	for _, id := range held {
		err := u.node.Hold.Release(ctx, incident, id)
		if errors.Is(err, ErrStillHeld) {
			u.notes = append(u.notes, fmt.Sprintf("the snapshot of container %s stays held until the container is gone", names[id]))
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("let the snapshot of container %s %s go: %w", names[id], id, err))
		}
	}
	return errors.Join(errs...)
}

// resume thaws, writes the counts down while the kernel still has them, and detaches. A container that cannot be thawed
// does not keep the others cut off; only without the time to try are they left as they are.
func (u *unfreezeStep) resume(ctx context.Context, containment *v1alpha1.Containment, pod Pod) error {
	thawErr := u.thaw(ctx, containment, pod)
	if thawErr != nil && ctx.Err() != nil {
		return thawErr
	}
	u.record.status().Containment = containment.DeepCopy()
	within, cancel := context.WithTimeout(ctx, writeWithin)
	writeErr := u.record.write(within, "thawed; letting packets pass")
	cancel()
	if writeErr != nil {
		log.FromContext(ctx).Error(writeErr, "counts of the drop not written", "hooks", containment.Hooks)
	}
	detachErr := u.node.Drop.Detach(u.record.response.Spec.PodRef.UID)
	if detachErr == nil {
		u.notes = append(u.notes, "packets pass again")
	}
	return errors.Join(thawErr, writeErr, detachErr)
}

// thaw sets every container going that it can, and notes when each went. What an earlier start noted stays.
func (u *unfreezeStep) thaw(ctx context.Context, containment *v1alpha1.Containment, pod Pod) error {
	thawed := map[string]*metav1.MicroTime{}
	if earlier := u.record.status().Containment; earlier != nil {
		for _, container := range earlier.Containers {
			thawed[container.ContainerID] = container.ThawedAt
		}
	}
	count := 0
	err := eachRunning(pod, func(container Container) error {
		at, err := thawOne(ctx, u.node, container)
		if at != nil {
			count++
		}
		if thawed[container.ID] == nil {
			thawed[container.ID] = at
		}
		return err
	})
	err = errors.Join(err, u.node.Freeze.StartStrays(ctx, pod))
	for i := range containment.Containers {
		containment.Containers[i].ThawedAt = thawed[containment.Containers[i].ContainerID]
	}
	u.notes = append(u.notes, fmt.Sprintf("%d containers thawed", count))
	u.nameFrozen(ctx, containment.Containers, pod)
	return err
}

// nameFrozen names the containers that podfreeze froze and that run without being known to go on. What a container froze
// of itself is left to it, and keeps nobody: the record has no time of its thaw.
func (u *unfreezeStep) nameFrozen(ctx context.Context, recorded []v1alpha1.ContainerFreeze, pod Pod) {
	frozen := map[string]bool{}
	for _, container := range recorded {
		if container.FrozenAt != nil && container.ThawedAt == nil {
			frozen[container.ContainerID] = true
		}
	}
	if len(frozen) == 0 {
		return
	}
	// One that ended since the pod was looked at has nothing that could go on.
	if now, err := find(ctx, u.node, pod.UID); err == nil {
		pod = now
	}
	for _, container := range pod.Containers {
		switch {
		case !frozen[container.ID] || container.Process == 0:
		case freezer(u.node, container) == "":
			u.shortfalls = append(u.shortfalls, fmt.Sprintf("container %s was frozen, and its cgroup is not known any more", container.Name))
		case u.node.Freeze.Still(container):
			u.shortfalls = append(u.shortfalls, fmt.Sprintf("container %s was frozen, and nothing is in its cgroup any more", container.Name))
		default:
			u.notes = append(u.notes, fmt.Sprintf("container %s is set going, but what it froze of itself is not", container.Name))
		}
	}
}

// freezer is the container's folder in the tree that this node freezes in, empty when it is not known.
func freezer(node Node, container Container) string {
	if node.Freeze.Method() == v1alpha1.FreezeCgroupV1 {
		return container.Freezer
	}
	return container.Cgroup
}
