package attestor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"

	"ugallu.io/forensics/api/v1alpha1"
)

// ErrModeWithdrawn is returned by Notary.Sign where AttestorConfig neither lists the mode nor has the servers for it.
var ErrModeWithdrawn = errors.New("AttestorConfig has no such mode any more")

// further are the modes in which other bundles countersign the statement of this one.
func further(bundle *v1alpha1.AttestationBundle) []v1alpha1.SigningMode {
	if modes := bundle.Status.SigningModes; len(modes) > 1 {
		return modes[1:]
	}
	return nil
}

// fixModes records the modes of a statement before it is first signed. A custody record that an earlier version made says
// nothing of a countersignature and gets none.
func (r *Reconciler) fixModes(ctx context.Context, bundle *v1alpha1.AttestationBundle) error {
	status := &bundle.Status
	if len(status.SigningModes) > 0 {
		return nil
	}
	modes, err := r.Modes(ctx)
	if err != nil {
		return failure(v1alpha1.ReasonConfigInvalid, err)
	}
	if bundle.Spec.AttestedFor.Kind == v1alpha1.AttestedIncident && recordMade(status) {
		modes = modes[:1]
	}
	status.SigningModes = modes
	return nil
}

// mode that a bundle is signed in. Of one that an earlier version signed it is not on record: what is left to do for it is
// done in the first mode of today.
func (r *Reconciler) mode(ctx context.Context, bundle *v1alpha1.AttestationBundle) (v1alpha1.SigningMode, error) {
	if of := bundle.Spec.Countersigns; of != nil {
		return of.Mode, nil
	}
	status := &bundle.Status
	if len(status.SigningModes) == 0 && isTrue(v1alpha1.ConditionSigned)(status) {
		modes, err := r.Modes(ctx)
		if err != nil {
			return "", failure(v1alpha1.ReasonConfigInvalid, err)
		}
		return modes[0], nil
	}
	if err := r.fixModes(ctx, bundle); err != nil {
		return "", err
	}
	return status.SigningModes[0], nil
}

// withdraw is what becomes of a signature in a mode that is gone. The first bundle is signed as AttestorConfig says now. One
// that countersigns ends, and the first says so. What a custody record promises is made all the same: the record is
// stored, and nothing can be taken out of it. Its first bundle then waits as well, or both could be in the mode that is left.
func (r *Reconciler) withdraw(ctx context.Context, job *job, gone error) error {
	record, of := job.bundle.Spec.AttestedFor.Kind == v1alpha1.AttestedIncident, job.bundle.Spec.Countersigns
	switch {
	case record && of != nil:
		return promised(of.Mode, gone)
	case record && len(further(job.bundle)) > 0:
		return promised(job.bundle.Status.SigningModes[0], gone)
	case of != nil:
		return &stageError{reason: v1alpha1.ReasonModeWithdrawn, err: fmt.Errorf("mode %s: %w", of.Mode, gone), final: true}
	}
	modes, err := r.Modes(ctx)
	if err != nil {
		return failure(v1alpha1.ReasonConfigInvalid, err)
	}
	status := &job.bundle.Status
	if record {
		modes = slices.Clone(modes[:1])
	}
	for _, mode := range status.SigningModes {
		if !slices.Contains(modes, mode) {
			drop(status, mode)
		}
	}
	status.SigningModes, job.notary = modes, nil
	return errAgain
}

// promised is the failure of a signature that a stored custody record cannot go without.
func promised(mode v1alpha1.SigningMode, gone error) error {
	return failure(v1alpha1.ReasonConfigInvalid, fmt.Errorf("mode %s: %w: the custody record, which is stored, says that it is signed in two "+
		"modes, of which this is one: configure its servers in AttestorConfig until this bundle is sealed; the mode need not be listed", mode, gone))
}

// drop notes that a statement is not sealed in a mode that it was begun in.
func drop(status *v1alpha1.AttestationBundleStatus, mode v1alpha1.SigningMode) {
	status.SigningModes = slices.DeleteFunc(slices.Clone(status.SigningModes), func(m v1alpha1.SigningMode) bool { return m == mode })
	if !slices.Contains(status.WithdrawnModes, mode) {
		status.WithdrawnModes = append(slices.Clone(status.WithdrawnModes), mode)
	}
}

// withdrawn is whether a bundle that countersigns has ended without a signature.
func withdrawn(bundle *v1alpha1.AttestationBundle) bool {
	for _, name := range []string{v1alpha1.ConditionSigned, v1alpha1.ConditionLogged} {
		condition := meta.FindStatusCondition(bundle.Status.Conditions, name)
		if condition != nil && condition.Reason == v1alpha1.ReasonModeWithdrawn {
			return true
		}
	}
	return false
}
