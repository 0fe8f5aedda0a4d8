package attestor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

// The first bundle stored under a key counts, so that a statement's digest may be another one than that of what is signed
// now. The statement after it names the digest and can not be changed any more once it is stored. That is why the store is
// looked into before a statement is signed: its digest is settled, and given to the next one, where the key is free or where
// the bundle that lies there is taken. Otherwise the next one waits until this one is stored.

// lookWithin bounds the look into the store, which keeps no statement from being signed.
const lookWithin = 3 * time.Second

// settled is whether a statement that was signed keeps its digest.
func settled(status *v1alpha1.AttestationBundleStatus) bool {
	signed := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionSigned)
	return status.Object != nil || isTrue(v1alpha1.ConditionSigned)(status) && signed.Reason != v1alpha1.ReasonDigestOpen
}

// settle says that a statement is signed, and that its digest stays.
func (r *Reconciler) settle(bundle *v1alpha1.AttestationBundle) {
	r.set(bundle, v1alpha1.ConditionSigned, conditionTrue(v1alpha1.ReasonSucceeded, "signed by "+bundle.Status.Signer))
}

// leaveOpen says that a statement is signed, and why its digest may still change.
func (r *Reconciler) leaveOpen(bundle *v1alpha1.AttestationBundle, open error) {
	message := fmt.Sprintf("signed by %s; what is in the store under its key counts once it is sealed, and the statement after it waits until then: %s",
		bundle.Status.Signer, open)
	r.set(bundle, v1alpha1.ConditionSigned, conditionTrue(v1alpha1.ReasonDigestOpen, message))
}

// storedBefore is the payload of the bundle that lies under the key already; nil where the key is free. The error says why
// it can not be told, or not taken, which seal finds out once more.
func (r *Reconciler) storedBefore(ctx context.Context, job *job, statement []byte) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, lookWithin)
	defer stop()
	to, err := placeOf(ctx, r.Client, job.bundle, r.Clock.Now())
	if err != nil {
		return nil, err
	}
	store, err := r.Store(ctx, to.bucket)
	if err != nil {
		return nil, err
	}
	_, _, stored, err := newest(ctx, store, to.key, job.notary)
	if errors.Is(err, worm.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := fitsFirst(to.key, job.bundle, stored, statement); err != nil {
		return nil, err
	}
	return stored.Payload, nil
}

// newest is the newest version under a key, its bytes, and what they prove.
func newest(ctx context.Context, store worm.Reader, key string, notary Notary) (worm.Object, []byte, attest.Verified, error) {
	object, err := store.Stat(ctx, key, "")
	if err != nil {
		return worm.Object{}, nil, attest.Verified{}, err
	}
	data, err := readObject(ctx, store, key, object.VersionID)
	if err != nil {
		return worm.Object{}, nil, attest.Verified{}, err
	}
	stored, err := notary.Verify(data)
	if err != nil {
		return worm.Object{}, nil, attest.Verified{}, invalidBundle(fmt.Errorf("%s holds another object: %w", key, err))
	}
	return object, data, stored, nil
}
