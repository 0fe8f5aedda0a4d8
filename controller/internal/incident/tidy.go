package incident

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// tidyStep takes the label of open incidents off one that is released.
type tidyStep struct {
	client client.Client
}

func (t *tidyStep) run(ctx context.Context, s *scene) (progress, error) {
	if _, open := s.incident.Labels[v1alpha1.LabelOpen]; !open || !s.is(v1alpha1.ConditionReleased) {
		return finished(), nil
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"`+v1alpha1.LabelOpen+`":null}}}`))
	// A copy, so that the answer does not replace the scene.
	if err := t.client.Patch(ctx, s.incident.DeepCopy(), patch, client.FieldOwner(fieldOwner)); err != nil {
		return progress{}, fmt.Errorf("close: %w", err)
	}
	return finished(), nil
}
