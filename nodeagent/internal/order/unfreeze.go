package order

import (
	"context"
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// unfreezeStep lets a pod go: first the snapshots, which become the runtime's own again, then the processes, then their
// packets. The pod need not exist any more.
type unfreezeStep struct {
	node   Node
	record *record
	notes  []string
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
	pod, err := u.node.Containers.Pod(ctx, spec.PodRef.UID)
	if err != nil {
		return result{}, err
	}
	containment.Containers = append(containment.Containers, unrecorded(pod, containment.Containers)...)
	if err := u.observe(&containment, spec.PodRef.UID); err != nil {
		return result{}, err
	}
	if err := u.release(ctx, spec.IncidentName, containment.Containers); err != nil {
		return result{}, err
	}
	switch {
	case spec.Action.PodUnfreeze.KeepContained:
		u.notes = append(u.notes, "another incident holds the pod: it stays contained")
	case spec.Action.PodUnfreeze.Disposition == v1alpha1.DispositionDelete:
		u.notes = append(u.notes, "the pod stays frozen and cut off until it is deleted")
	default:
		if err := u.resume(ctx, &containment, pod); err != nil {
			return result{}, err
		}
	}
	u.record.status().Containment = &containment
	return succeeded(strings.Join(append([]string{"the snapshots are let go"}, u.notes...), "; ")), nil
}

// observe brings the hooks' counts up to date. An earlier start that got past the detach left them in the record.
func (u *unfreezeStep) observe(containment *v1alpha1.Containment, podUID string) error {
	hooks, err := u.node.Drop.Observe(podUID)
	if err != nil {
		return err
	}
	if earlier := u.record.status().Containment; len(hooks) == 0 && earlier != nil {
		containment.Hooks = earlier.Hooks
		return nil
	}
	byID := make(map[string]v1alpha1.Hook, len(hooks))
	for _, hook := range hooks {
		byID[hook.ID] = hook
	}
	for i := range containment.Hooks {
		known := &containment.Hooks[i]
		if now, ok := byID[known.ID]; ok {
			known.Packets, known.Bytes, known.FirstDrop, known.LastDrop = now.Packets, now.Bytes, now.FirstDrop, now.LastDrop
		}
	}
	return nil
}

func (u *unfreezeStep) release(ctx context.Context, incident string, list []v1alpha1.ContainerFreeze) error {
	for _, container := range list {
		err := u.node.Hold.Release(ctx, incident, container.ContainerID)
		if errors.Is(err, ErrStillHeld) {
			u.notes = append(u.notes, fmt.Sprintf("the snapshot of container %s stays held until the container is gone", container.Name))
			continue
		}
		if err != nil {
			return fmt.Errorf("let the snapshot of container %s go: %w", container.Name, err)
		}
	}
	return nil
}

// resume thaws, writes the counts down while the kernel still has them, and detaches.
func (u *unfreezeStep) resume(ctx context.Context, containment *v1alpha1.Containment, pod Pod) error {
	thawed := map[string]*metav1.MicroTime{}
	err := eachRunning(pod, func(container Container) error {
		at, err := thawOne(ctx, u.node, container)
		thawed[container.ID] = at
		return err
	})
	if err != nil {
		return err
	}
	for i := range containment.Containers {
		containment.Containers[i].ThawedAt = thawed[containment.Containers[i].ContainerID]
	}
	u.record.status().Containment = containment.DeepCopy()
	if err := u.record.write(ctx, "thawed; letting packets pass"); err != nil {
		return err
	}
	if err := u.node.Drop.Detach(u.record.response.Spec.PodRef.UID); err != nil {
		return err
	}
	u.notes = append(u.notes, fmt.Sprintf("%d containers thawed", len(thawed)), "packets pass again")
	return nil
}
