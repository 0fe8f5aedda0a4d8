package order

import (
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/nodeagent/internal/containers"
)

// keepEvery is how often pins and deadlines are looked at.
const keepEvery = 10 * time.Second

// keeper removes the drop of pods that are gone, and lets a pod go whose time is up when nobody is there to order it.
type keeper struct{ node Node }

// Start looks at once and then regularly, until the context ends.
func (k *keeper) Start(ctx context.Context) error {
	ticks := time.NewTicker(keepEvery)
	defer ticks.Stop()
	for {
		if err := k.look(ctx); err != nil {
			log.FromContext(ctx).Error(err, "pins and deadlines not kept")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

func (k *keeper) look(ctx context.Context) error {
	intents, err := intents(ctx, k.node)
	if err != nil {
		return err
	}
	pods, err := k.node.Drop.Pods()
	if err != nil {
		return err
	}
	var errs []error
	for _, uid := range pods {
		errs = append(errs, k.pod(ctx, uid, intents[uid]))
	}
	return errors.Join(errs...)
}

func (k *keeper) pod(ctx context.Context, uid string, wanted intent) error {
	pod, err := k.node.Containers.Pod(ctx, uid)
	if err != nil {
		return err
	}
	if len(pod.Sandboxes) == 0 && len(pod.Containers) == 0 {
		return k.orphan(ctx, uid, wanted)
	}
	if len(wanted.overdue) == 0 {
		return nil
	}
	return k.letGo(ctx, pod, wanted)
}

// orphan detaches the drop of a pod that the runtime no longer knows. While an order for it is open the pod may be about
// to start again under the same uid.
func (k *keeper) orphan(ctx context.Context, uid string, wanted intent) error {
	if wanted.contained {
		return nil
	}
	if err := k.node.Drop.Detach(uid); err != nil {
		return err
	}
	log.FromContext(ctx).Info("drop of a pod that is gone removed", "podUID", uid)
	return nil
}

// letGo does what podunfreeze does, without a record: the order that comes once the API server is back finds it done.
func (k *keeper) letGo(ctx context.Context, pod containers.Pod, wanted intent) error {
	for _, incident := range wanted.overdue {
		for _, container := range pod.Containers {
			if err := k.node.Hold.Release(ctx, incident, container.ID); err != nil && !errors.Is(err, ErrStillHeld) {
				return err
			}
		}
	}
	if wanted.contained {
		return nil
	}
	err := eachRunning(pod, func(container containers.Container) error {
		_, err := thawOne(ctx, k.node, container)
		return err
	})
	if err != nil {
		return err
	}
	if err := k.node.Drop.Detach(pod.UID); err != nil {
		return err
	}
	log.FromContext(ctx).Info("pod let go at its deadline without an order", "podUID", pod.UID, "incidents", wanted.overdue)
	return nil
}
