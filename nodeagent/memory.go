package main

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/podfiles"
)

// memoryKeeper is podfiles.Keeper as the orders need it.
type memoryKeeper struct{ *podfiles.Keeper }

// Keep implements order.MemoryKeeper.
func (m memoryKeeper) Keep(ctx context.Context, ref v1alpha1.PodRef, processes []int) (int, error) {
	found, err := podfiles.Find(ctx, podfiles.Pod{
		Namespace: ref.Namespace, Name: ref.Name, UID: ref.UID, Processes: processes,
		// What has a folder on the node is found without the spec.
		Volumes: []corev1.Volume{},
	}, podfiles.Roots{Kept: m.Folder})
	if err != nil {
		return 0, err
	}
	kept, errs := 0, []error(nil)
	for _, source := range found.Sources {
		if !source.Memory {
			continue
		}
		folder, err := m.Clone(ctx, source)
		if err != nil {
			errs = append(errs, fmt.Errorf("keep %s: %w", source.Name, err))
			continue
		}
		kept++
		errs = append(errs, folder.Close())
	}
	return kept, errors.Join(errs...)
}
