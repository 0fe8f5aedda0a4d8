package incident

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// dryRunStep ends a dry run at once: its conditions say what would have been done, and nothing is.
type dryRunStep struct{}

func (*dryRunStep) run(_ context.Context, s *scene) (progress, error) {
	if !s.incident.Spec.DryRun {
		return finished(), nil
	}
	pod := s.incident.Spec.Pod
	s.set(v1alpha1.ConditionContained, metav1.ConditionFalse, v1alpha1.ReasonDryRun,
		fmt.Sprintf("dry run: pod %s/%s on node %s would be labelled, cut off and frozen", pod.Namespace, pod.Name, pod.NodeName))
	s.set(v1alpha1.ConditionCaptured, metav1.ConditionFalse, v1alpha1.ReasonDryRun, "dry run: every container would be captured")
	s.set(v1alpha1.ConditionUploaded, metav1.ConditionFalse, v1alpha1.ReasonDryRun,
		fmt.Sprintf("dry run: the manifest would be stored under s3://%s/%s", s.incident.Spec.Snapshot.Destination.Bucket, s.incident.Spec.Snapshot.Destination.Prefix))
	s.set(v1alpha1.ConditionReleased, metav1.ConditionTrue, v1alpha1.ReasonDryRun, "dry run: the pod was never held")
	// The label is taken off in the next pass, when the condition is on record.
	return waiting(conflictDelay), nil
}
