package attestor

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// publish tells an event that its bundle is sealed. It touches the attestor's three fields only, so that the other
// writers of the status need no turn.
func (r *Reconciler) publish(ctx context.Context, bundle *v1alpha1.AttestationBundle) error {
	if bundle.Spec.AttestedFor.Kind != v1alpha1.AttestedSecurityEvent || bundle.Spec.Countersigns != nil {
		return nil
	}
	event, err := r.event(ctx, bundle.Spec.AttestedFor.Ref)
	if gone, ok := errors.AsType[*stageError](err); ok && gone.final {
		return nil
	}
	if err != nil {
		return err
	}
	if event.Status.Phase == v1alpha1.EventAttested && event.Status.StatementDigest == bundle.Status.StatementDigest {
		return nil
	}
	before := event.DeepCopy()
	event.Status.Phase = v1alpha1.EventAttested
	event.Status.BundleRef = &v1alpha1.Ref{Name: bundle.Name, UID: string(bundle.UID)}
	event.Status.StatementDigest = bundle.Status.StatementDigest
	if err := r.Client.Status().Patch(ctx, event, client.MergeFrom(before), fieldOwner); err != nil {
		return fmt.Errorf("patch status of event %s: %w", event.Name, err)
	}
	return nil
}
