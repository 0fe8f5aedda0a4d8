package order

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// lookWithin bounds a question to the runtime about one pod, which takes milliseconds. A runtime that does not answer for
// one must not keep the others waiting.
const lookWithin = 5 * time.Second

// find returns what of the pod is on this node, or an error once lookWithin has passed.
func find(ctx context.Context, node Node, podUID string) (Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	return node.Containers.Pod(ctx, podUID)
}

// besideEachOther acts on every container of a list that runs, by its index, side by side: one that takes long does not keep
// the others. It returns what each came to.
func besideEachOther(list []Container, act func(i int) error) []error {
	errs := make([]error, len(list))
	var group sync.WaitGroup
	for i, container := range list {
		if container.Process != 0 {
			group.Go(func() { errs[i] = act(i) })
		}
	}
	group.Wait()
	return errs
}

// freezeOne returns when the freeze was confirmed, or nil when there was no process to stop.
func freezeOne(ctx context.Context, node Node, container Container) (*metav1.MicroTime, error) {
	frozen, err := node.Freeze.Freeze(ctx, container)
	if err != nil || !frozen {
		return nil, err
	}
	at := metav1.NewMicroTime(node.Clock.Now())
	return &at, nil
}

// thawOne returns when the thaw was confirmed, or nil when there was no process to set going.
func thawOne(ctx context.Context, node Node, container Container) (*metav1.MicroTime, error) {
	thawed, err := node.Freeze.Thaw(ctx, container)
	if err != nil || !thawed {
		return nil, err
	}
	at := metav1.NewMicroTime(node.Clock.Now())
	return &at, nil
}

// contained returns what the incident's podfreeze recorded of the same pod, or an empty record when there is none.
func contained(ctx context.Context, node Node, spec v1alpha1.EventResponseSpec) (v1alpha1.Containment, error) {
	response := new(v1alpha1.EventResponse)
	name := v1alpha1.ResponseName(spec.IncidentName, v1alpha1.StepFreeze, 1)
	err := node.Client.Get(ctx, client.ObjectKey{Name: name}, response)
	if client.IgnoreNotFound(err) != nil {
		return v1alpha1.Containment{}, err
	}
	if response.Status.Containment == nil || response.Spec.PodRef.UID != spec.PodRef.UID {
		return v1alpha1.Containment{Level: v1alpha1.LevelPolicyOnly, FreezeMethod: v1alpha1.FreezeNone}, nil
	}
	return *response.Status.Containment.DeepCopy(), nil
}

// memoryWanted is what the incident's podfreeze was ordered to say of memory; without that order none is wanted.
func memoryWanted(ctx context.Context, node Node, spec v1alpha1.EventResponseSpec) (v1alpha1.MemoryCapture, error) {
	response := new(v1alpha1.EventResponse)
	name := v1alpha1.ResponseName(spec.IncidentName, v1alpha1.StepFreeze, 1)
	err := node.Client.Get(ctx, client.ObjectKey{Name: name}, response)
	if client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("read the order to freeze: %w", err)
	}
	if response.Spec.Action.PodFreeze == nil {
		return v1alpha1.MemoryNone, nil
	}
	return response.Spec.Action.PodFreeze.Memory, nil
}

// unrecorded are the containers of the pod that the record does not name: they started after the pod was contained.
func unrecorded(pod Pod, recorded []v1alpha1.ContainerFreeze) []v1alpha1.ContainerFreeze {
	known := make(map[string]bool, len(recorded))
	for _, container := range recorded {
		known[container.ContainerID] = true
	}
	var fresh []v1alpha1.ContainerFreeze
	for _, container := range pod.Containers {
		if !known[container.ID] {
			fresh = append(fresh, v1alpha1.ContainerFreeze{ContainerID: container.ID, Name: container.Name})
		}
	}
	return fresh
}
