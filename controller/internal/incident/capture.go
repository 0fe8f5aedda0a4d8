package incident

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// captureMargin is what a capture may take besides its artifacts: mounting, uploading the rest, closing.
	captureMargin = 5 * time.Minute
	// captureLongest bounds what many containers add up to: the pod is held for as long.
	captureLongest = 24 * time.Hour
	// ofContainer and ofPod are the artifacts that may each take as long as one may: a container's changes and its root
	// filesystem; the pod's processes, their files, files in memory, logs and volumes.
	ofContainer, ofPod = 2, 5
	// slotCheck is how often an incident that waits for its turn looks again.
	slotCheck = 5 * time.Second
)

// captureStep orders filesystem-snapshot when there is room for one more capture. It owns the condition Captured.
type captureStep struct {
	orders *orders
	slots  *slots
}

func (c *captureStep) run(ctx context.Context, s *scene) (progress, error) {
	if s.is(v1alpha1.ConditionFailed) || s.is(v1alpha1.ConditionCaptured) {
		return finished(), nil
	}
	freeze, err := c.orders.read(ctx, v1alpha1.ResponseName(s.incident.Name, v1alpha1.StepFreeze, 1))
	if err != nil {
		return progress{}, err
	}
	s.remember(freeze)
	name := v1alpha1.ResponseName(s.incident.Name, v1alpha1.StepSnapshot, 1)
	limit, err := c.slots.take(ctx, name)
	if err != nil {
		return progress{}, err
	}
	if limit > 0 {
		s.set(v1alpha1.ConditionCaptured, metav1.ConditionFalse, v1alpha1.ReasonWaiting,
			fmt.Sprintf("%d captures run already, as many as ForensicsConfig spec.maxConcurrentIncidents allows; the pod is contained meanwhile", limit))
		return waiting(slotCheck), nil
	}
	containers := 0
	if freeze.Status.Containment != nil {
		containers = len(freeze.Status.Containment.Containers)
	}
	action := s.incident.Spec.Snapshot.DeepCopy()
	response, err := c.orders.place(ctx, s, order{
		step: v1alpha1.StepSnapshot, attempt: 1, node: s.incident.Spec.Pod.NodeName,
		parent: &v1alpha1.Ref{Name: freeze.Name, UID: string(freeze.UID)},
		within: captureWithin(containers, s.incident.Spec.Freeze.Memory, action.MaxDuration.Duration),
		action: v1alpha1.Action{Type: v1alpha1.ActionFilesystemSnapshot, FilesystemSnapshot: action},
	})
	if err != nil {
		c.slots.giveBack(name)
		return progress{}, err
	}
	next, err := c.orders.await(ctx, response)
	if err != nil || !next.done {
		s.reflect(v1alpha1.ConditionCaptured, response)
		return next, err
	}
	conclude(s, response)
	return finished(), nil
}

// captureWithin is the time that a capture gets: maxDuration for each artifact that may take it, one more a container where
// memory is wanted, and a margin. A pod without containers on record gets the time of one. It is a bound, not what a capture
// takes: what a store that is away costs comes out of it.
func captureWithin(containers int, memory v1alpha1.MemoryCapture, maxDuration time.Duration) time.Duration {
	each := ofContainer
	if memory != v1alpha1.MemoryNone {
		each++
	}
	longest := captureLongest - captureMargin
	artifacts := time.Duration(ofPod + each*max(containers, 1))
	if maxDuration > longest/artifacts {
		return max(captureLongest, maxDuration+captureMargin)
	}
	return artifacts*maxDuration + captureMargin
}

func conclude(s *scene, response *v1alpha1.EventResponse) {
	reason, message := ending(response)
	stored := len(response.Status.Artifacts)
	switch {
	case response.Status.Phase == v1alpha1.ResponseSucceeded:
		s.set(v1alpha1.ConditionCaptured, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, fmt.Sprintf("%d artifacts are stored: %s", stored, message))
	case response.Status.Phase == v1alpha1.ResponsePartial && stored > 0:
		s.set(v1alpha1.ConditionCaptured, metav1.ConditionTrue, v1alpha1.ReasonPartial,
			fmt.Sprintf("%d artifacts are stored, others are missing: %s: %s", stored, reason, message))
	default:
		s.set(v1alpha1.ConditionCaptured, metav1.ConditionFalse, v1alpha1.ReasonFailed, message)
		s.fail(v1alpha1.StepSnapshot, reason, message)
	}
}
