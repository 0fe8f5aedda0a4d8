package attestor

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
)

// A statement that is signed in two modes has two bundles. The first goes through its stages up to the store, where the
// first one stored wins; then the other, an object of its own with the same stages, signs the very bytes that lie there.
// The first is called sealed when the other is.

// countersign signs the statement of the first bundle as it is stored, and stages the envelope.
func (r *Reconciler) countersign(ctx context.Context, job *job) error {
	payload, err := r.statementOf(ctx, job)
	if err != nil {
		return err
	}
	return r.signPayload(ctx, job, payload)
}

// statementOf is the payload of the bundle that is countersigned, read from the store and verified. What was staged in an
// object is nobody's word; what a trusted signature is over, the attestor stated.
func (r *Reconciler) statementOf(ctx context.Context, job *job) ([]byte, error) {
	first, err := firstOf(ctx, r.Client, job.bundle)
	if err != nil {
		return nil, err
	}
	if first.Status.Object == nil {
		return nil, &waiting{message: "waits until bundle " + first.Name + ", which it countersigns, is stored", after: parentPoll}
	}
	if mode := job.bundle.Spec.Countersigns.Mode; !slices.Contains(further(first), mode) {
		err := fmt.Errorf("bundle %s is not, or not any more, to be countersigned in mode %s", first.Name, mode)
		return nil, &stageError{reason: v1alpha1.ReasonModeWithdrawn, err: err, final: true}
	}
	notary, err := r.notary(ctx, job)
	if err != nil {
		return nil, err
	}
	from, err := placeOf(ctx, r.Client, first, r.Clock.Now())
	if err != nil {
		return nil, placeFailure(err)
	}
	store, err := r.Store(ctx, from.bucket)
	if err != nil {
		return nil, failure(v1alpha1.ReasonConfigInvalid, err)
	}
	data, err := readSealed(ctx, store, from, first.Status.Object)
	if err != nil {
		return nil, storeFailure(err)
	}
	verified, err := notary.Verify(data)
	if err != nil {
		return nil, invalidBundle(err)
	}
	if digest := evidence.Digest(verified.Payload); digest != first.Status.StatementDigest {
		return nil, failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("bundle %s attests statement %s", first.Name, digest))
	}
	return verified.Payload, nil
}

// firstOf is the bundle that another one countersigns.
func firstOf(ctx context.Context, reader client.Reader, bundle *v1alpha1.AttestationBundle) (*v1alpha1.AttestationBundle, error) {
	of := bundle.Spec.Countersigns
	var first v1alpha1.AttestationBundle
	err := reader.Get(ctx, client.ObjectKey{Name: of.Name}, &first)
	if apierrors.IsNotFound(err) {
		return nil, &waiting{message: "waits until bundle " + of.Name + ", which it countersigns, is made again", after: recordPoll}
	}
	if err != nil {
		return nil, fmt.Errorf("read bundle %s: %w", of.Name, err)
	}
	same := first.Spec.Countersigns == nil && first.Spec.AttestedFor == bundle.Spec.AttestedFor &&
		first.Spec.IncidentUID == bundle.Spec.IncidentUID && first.Spec.Number == bundle.Spec.Number &&
		bundle.Name == v1alpha1.CountersignatureName(first.Name, of.Mode)
	if !same {
		gone := fmt.Errorf("bundle %s, which it countersigns, attests something else", of.Name)
		return nil, &stageError{reason: v1alpha1.ReasonSubjectGone, err: gone, final: true}
	}
	return &first, nil
}

// awaitCountersignatures ends when each further bundle of the statement is sealed, which it makes where it is not there.
func (r *Reconciler) awaitCountersignatures(ctx context.Context, job *job) error {
	for _, mode := range further(job.bundle) {
		beside, err := r.ensureCountersignature(ctx, job.bundle, mode)
		if err != nil {
			return err
		}
		switch {
		case withdrawn(beside):
			drop(&job.bundle.Status, mode)
		case !isTrue(v1alpha1.ConditionSealed)(&beside.Status):
			return &waiting{message: fmt.Sprintf("waits for the signature in mode %s: bundle %s is %s", mode, beside.Name, standing(beside)), after: recordPoll}
		case beside.Status.StatementDigest != job.bundle.Status.StatementDigest:
			return failure(v1alpha1.ReasonBundleInvalid,
				fmt.Errorf("bundle %s, in mode %s, attests statement %s", beside.Name, mode, beside.Status.StatementDigest))
		}
	}
	r.sealed(job.bundle)
	return nil
}

func (r *Reconciler) ensureCountersignature(
	ctx context.Context, first *v1alpha1.AttestationBundle, mode v1alpha1.SigningMode,
) (*v1alpha1.AttestationBundle, error) {
	bundle := &v1alpha1.AttestationBundle{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.CountersignatureName(first.Name, mode), Labels: first.Labels},
		Spec:       first.Spec,
	}
	bundle.Spec.Countersigns = &v1alpha1.Countersigned{Name: first.Name, Mode: mode}
	var there v1alpha1.AttestationBundle
	if found, err := r.find(ctx, bundle.Name, &there); err != nil {
		return nil, err
	} else if found {
		return &there, sameSpec(&there, bundle)
	}
	if err := r.Client.Create(ctx, bundle, fieldOwner); err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("create bundle that countersigns %s: %w", first.Name, err)
	}
	return bundle, nil
}

// sameSpec refuses a bundle that somebody else made under the name of one that countersigns.
func sameSpec(there, wanted *v1alpha1.AttestationBundle) error {
	if equality.Semantic.DeepEqual(there.Spec, wanted.Spec) {
		return nil
	}
	return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("bundle %s is not the one that countersigns %s in mode %s: find out who made it; then delete it, for which "+
		"the binding of the policy ugallu-chain-stays has to be taken away meanwhile, and the right one is made",
		there.Name, wanted.Spec.Countersigns.Name, wanted.Spec.Countersigns.Mode))
}

// keepCountersignatures makes those bundles of a sealed statement again that were deleted: custody records and the checker
// read all of them. What is stored already is adopted.
func (r *Reconciler) keepCountersignatures(ctx context.Context, first *v1alpha1.AttestationBundle) error {
	for _, mode := range further(first) {
		if _, err := r.ensureCountersignature(ctx, first, mode); err != nil {
			return err
		}
	}
	return nil
}

// abandoned is whether a bundle that countersigns ended without a signature and its first one was sealed without it, or is
// about to be: that its mode can be signed in again changes nothing.
func (r *Reconciler) abandoned(ctx context.Context, bundle *v1alpha1.AttestationBundle) (bool, error) {
	if bundle.Spec.Countersigns == nil || !withdrawn(bundle) {
		return false, nil
	}
	var first v1alpha1.AttestationBundle
	found, err := r.find(ctx, bundle.Spec.Countersigns.Name, &first)
	return found && !slices.Contains(further(&first), bundle.Spec.Countersigns.Mode), err
}

// standing is how far a bundle came, and what holds it up.
func standing(bundle *v1alpha1.AttestationBundle) string {
	at := bundle.Status.Phase
	if at == "" {
		at = v1alpha1.BundlePending
	}
	for _, name := range []string{v1alpha1.ConditionSigned, v1alpha1.ConditionLogged, v1alpha1.ConditionSealed} {
		condition := meta.FindStatusCondition(bundle.Status.Conditions, name)
		if condition != nil && condition.Status == metav1.ConditionFalse {
			return fmt.Sprintf("%s, not %s: %s: %s", at, name, condition.Reason, condition.Message)
		}
	}
	return string(at)
}

// sealed marks the first bundle of a statement, or one that countersigns it.
func (r *Reconciler) sealed(bundle *v1alpha1.AttestationBundle) {
	message := "stored as " + bundle.Status.Object.Key
	for _, mode := range further(bundle) {
		message += ", and beside it in mode " + string(mode)
	}
	for _, mode := range bundle.Status.WithdrawnModes {
		message += ", not in mode " + string(mode) + ", which AttestorConfig has no longer"
	}
	r.set(bundle, v1alpha1.ConditionSealed, conditionTrue(v1alpha1.ReasonSucceeded, message))
}

// countersigned maps a bundle that countersigns to the first one, which waits for it and says what holds it up.
func countersigned(_ context.Context, object client.Object) []reconcile.Request {
	bundle, ok := object.(*v1alpha1.AttestationBundle)
	if !ok || bundle.Spec.Countersigns == nil {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: bundle.Spec.Countersigns.Name}}}
}

// countersigns refuses a bundle that does not sign the statement's very bytes, or not in the mode that it stands for.
func countersigns(key string, mode v1alpha1.SigningMode, by attest.Verified, statement []byte) error {
	if !bytes.Equal(by.Payload, statement) {
		return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("%s attests another statement", key))
	}
	return inMode(key, mode, by)
}

// firstInMode refuses a first bundle that is not signed in the mode that its statement was begun in: it would be signed twice
// in one mode where the other countersigns. What an earlier version signed has no mode on record.
func firstInMode(key string, first *v1alpha1.AttestationBundle, by attest.Verified) error {
	if len(first.Status.SigningModes) == 0 {
		return nil
	}
	return inMode(key, first.Status.SigningModes[0], by)
}

func inMode(key string, mode v1alpha1.SigningMode, by attest.Verified) error {
	if keyless := by.Issuer != ""; keyless != (mode == v1alpha1.SigningFulcioKeyless) {
		return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("%s is signed by %s, not in mode %s", key, by.Signer, mode))
	}
	return nil
}
