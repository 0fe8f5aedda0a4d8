package incident

import (
	"context"

	"ugallu.io/forensics/api/v1alpha1"
)

// failStep announces an incident whose way to the manifest ended. The condition Failed is set by the step that failed.
type failStep struct {
	announcer *announcer
}

func (f *failStep) run(ctx context.Context, s *scene) (progress, error) {
	if !s.is(v1alpha1.ConditionFailed) || s.incident.Status.CompletionEvent != nil {
		return finished(), nil
	}
	return finished(), f.announcer.announce(ctx, s, v1alpha1.EventCaptureFailed, nil)
}
