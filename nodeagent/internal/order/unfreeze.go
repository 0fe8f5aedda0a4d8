package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// The node's disk knows of the release before the pod does: an agent that begins without the API server would contain it
	// again. A disk that cannot be written keeps nobody.
	within, cancel := context.WithTimeout(ctx, writeWithin)
	if err := u.node.Known.save(within, *u.record.response); err != nil {
		log.FromContext(ctx).Error(err, "release not remembered on the node's disk before it is carried out")
	}
	cancel()
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

const (
	// releasesWithin bounds what the runtime can cost of the time to the release.
	releasesWithin = 15 * time.Second
	// writeWithin bounds what an API server that is away can cost of it.
	writeWithin = 5 * time.Second
)

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
