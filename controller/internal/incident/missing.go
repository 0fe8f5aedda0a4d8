package incident

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// missing counts what the executor of a response would have named, had it closed it. Messages may be longer than a gap's.
func (o *orders) missing(ctx context.Context, response *v1alpha1.EventResponse) ([]v1alpha1.GapCount, error) {
	switch response.Spec.Action.Type {
	case v1alpha1.ActionFilesystemSnapshot:
		return o.notCaptured(ctx, response)
	case v1alpha1.ActionPodUnfreeze:
		return flowsLost(&response.Status), nil
	case v1alpha1.ActionPodFreeze, v1alpha1.ActionEvidenceUpload: // what they did not reach stands in the record as nothing
	}
	return nil, nil
}

// notCaptured counts what a capture that nobody ended lacks of what podfreeze recorded, and that there may be more.
func (o *orders) notCaptured(ctx context.Context, response *v1alpha1.EventResponse) ([]v1alpha1.GapCount, error) {
	status := &response.Status
	gaps := []v1alpha1.GapCount{{
		Reason: evidence.GapCaptureNotEnded, Count: 1, Message: "what of the pod is neither stored nor counted is not known",
	}}
	if storing := status.Storing; storing != nil {
		gaps = append(gaps, v1alpha1.GapCount{
			Reason: evidence.GapArtifactNotCompleted, Count: 1,
			Message: fmt.Sprintf("%s: %d segments are stored, and no more is recorded", storing.Artifact, len(storing.Segments)),
		})
	}
	freeze, err := o.read(ctx, v1alpha1.ResponseName(response.Spec.IncidentName, v1alpha1.StepFreeze, 1))
	if apierrors.IsNotFound(err) {
		return gaps, nil
	}
	if err != nil {
		return nil, err
	}
	if freeze.Status.Containment == nil {
		return gaps, nil
	}
	if names := status.WithoutRootFilesystem(freeze.Status.Containment.Containers); len(names) > 0 {
		gaps = append(gaps, v1alpha1.GapCount{
			Reason: evidence.GapArtifactNotStored, Count: int64(len(names)),
			Message: "no whole root filesystem is stored of: " + strings.Join(names, ", "),
		})
	}
	return gaps, nil
}

// flowsLost is the gap of a release on which the node reported nothing.
func flowsLost(status *v1alpha1.EventResponseStatus) []v1alpha1.GapCount {
	told := slices.ContainsFunc(status.Gaps, func(gap v1alpha1.GapCount) bool { return gap.Reason == evidence.GapFlowsNotRead })
	if told || status.Containment != nil {
		return nil
	}
	return []v1alpha1.GapCount{{
		Reason: evidence.GapFlowsNotRead, Count: 1, Message: "what the drop had counted by the release, and of which flows, was not read",
	}}
}

// withGaps adds gaps to those that an executor reported, the message of each first. One for which the executor left no room
// stands in the response's condition alone.
func withGaps(reported, missing []v1alpha1.GapCount) []v1alpha1.GapCount {
	gaps := slices.Clone(reported)
	for _, gap := range missing {
		at := slices.IndexFunc(gaps, func(other v1alpha1.GapCount) bool { return other.Reason == gap.Reason })
		switch {
		case at >= 0:
			gaps[at].Count += gap.Count
			gaps[at].Message = gapMessage(gap.Message + "; " + gaps[at].Message)
		case len(gaps) < v1alpha1.MaxGaps:
			gap.Message = gapMessage(gap.Message)
			gaps = append(gaps, gap)
		}
	}
	return gaps
}

// gapMessage cuts a message to the length that the API server takes.
func gapMessage(message string) string {
	return strings.ToValidUTF8(message[:min(len(message), v1alpha1.MaxGapMessage)], "")
}

// withMessages lists the messages of gaps behind another one.
func withMessages(message string, gaps []v1alpha1.GapCount) string {
	for _, gap := range gaps {
		message += "; " + gap.Message
	}
	return message
}
