package order

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

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
