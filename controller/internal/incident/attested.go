package incident

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// attestedStep notices when everything up to the outcome event is sealed. Nothing waits for it: an acknowledgement and
// a release never depend on a signature. It owns the condition Attested.
type attestedStep struct {
	client client.Client
}

func (a *attestedStep) run(ctx context.Context, s *scene) (progress, error) {
	if s.is(v1alpha1.ConditionAttested) || s.incident.Status.CompletionEvent == nil {
		return finished(), nil
	}
	attested := append([]v1alpha1.Ref{*s.incident.Status.CompletionEvent}, s.incident.Status.Responses...)
	for _, ref := range attested {
		sealed, err := a.sealed(ctx, ref.UID)
		if err != nil || !sealed {
			return finished(), err
		}
	}
	s.set(v1alpha1.ConditionAttested, metav1.ConditionTrue, v1alpha1.ReasonSucceeded,
		fmt.Sprintf("%d responses and event %s are sealed", len(s.incident.Status.Responses), s.incident.Status.CompletionEvent.Name))
	return finished(), nil
}

func (a *attestedStep) sealed(ctx context.Context, uid string) (bool, error) {
	var bundle v1alpha1.AttestationBundle
	err := a.client.Get(ctx, client.ObjectKey{Name: v1alpha1.BundleName(uid)}, &bundle)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the bundle of %s: %w", uid, err)
	}
	return meta.IsStatusConditionTrue(bundle.Status.Conditions, v1alpha1.ConditionSealed), nil
}
