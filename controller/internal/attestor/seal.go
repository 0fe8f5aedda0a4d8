package attestor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

// maxBundle is more than a bundle can have, whose packed form fits into an API object.
const maxBundle = maxRecord

// seal stores the staged bundle, locked, and records the version. It is sealed by that where no other bundle is to
// countersign it.
func (r *Reconciler) seal(ctx context.Context, job *job) error {
	notary, err := r.notary(ctx, job)
	if err != nil {
		return err
	}
	status := &job.bundle.Status
	bundle, err := unpack(status.Staged)
	if err != nil {
		return err
	}
	if err := stageBundle(status, notary, bundle); err != nil {
		return err
	}
	to, err := placeOf(ctx, r.Client, job.bundle, r.Clock.Now())
	if err != nil {
		return placeFailure(err)
	}
	store, err := r.Store(ctx, to.bucket)
	if err != nil {
		return failure(v1alpha1.ReasonConfigInvalid, err)
	}
	object, err := store.Put(ctx, to.key, bytes.NewReader(bundle), to.lock)
	switch {
	case errors.Is(err, worm.ErrExists):
		object, err = adopt(ctx, store, to, &adoption{of: job.bundle, notary: notary, bundle: bundle})
	case err == nil:
		err = checkStored(ctx, store, object, to.lock.Mode)
	}
	if err != nil {
		return storeFailure(err)
	}
	status.Object = &v1alpha1.StoredObject{
		Key:         object.Key,
		VersionID:   object.VersionID,
		SHA256:      object.SHA256,
		Size:        object.Size,
		RetainUntil: metav1.NewTime(object.Lock.RetainUntil),
	}
	status.Staged = nil
	r.settle(job.bundle)
	if len(further(job.bundle)) == 0 {
		r.sealed(job.bundle)
	}
	return nil
}

// storeFailure is a StoreNotLocked or a StoreUnreachable, where the error has no reason of its own.
func storeFailure(err error) error {
	if errors.Is(err, worm.ErrNotLocked) {
		return reasoned(err, v1alpha1.ReasonStoreNotLocked)
	}
	return reasoned(err, v1alpha1.ReasonStoreUnreachable)
}

// reasoned gives an error a reason, unless it has one or is a wait.
func reasoned(err error, reason string) error {
	if _, ok := errors.AsType[*stageError](err); ok {
		return err
	}
	if _, ok := errors.AsType[*waiting](err); ok {
		return err
	}
	return failure(reason, err)
}

// checkStored asks the store what it kept before anybody claims that it is sealed.
func checkStored(ctx context.Context, store worm.Reader, put worm.Object, mode string) error {
	kept, err := store.Stat(ctx, put.Key, put.VersionID)
	if err != nil {
		return err
	}
	if kept.Size != put.Size || kept.Lock.Mode != mode || kept.Lock.RetainUntil.Before(put.Lock.RetainUntil) {
		return fmt.Errorf("%s: store kept %d bytes, %q until %s: %w", put.Key, kept.Size, kept.Lock.Mode,
			kept.Lock.RetainUntil.Format(time.RFC3339), worm.ErrNotLocked)
	}
	return nil
}

type adoption struct {
	of     *v1alpha1.AttestationBundle
	notary Notary
	// bundle that was to be stored.
	bundle []byte
}

// adopt takes the bundle that is stored under the key already: a crash lost the answer to its put, or the bundle
// object was deleted and made again. The first bundle stored wins, if this attestor makes the same statement of the same
// moment, and if it stays long enough.
func adopt(ctx context.Context, store worm.Reader, at place, a *adoption) (worm.Object, error) {
	object, data, stored, err := newest(ctx, store, at.key, a.notary)
	if err != nil {
		return worm.Object{}, err
	}
	if err := fits(at.key, stored, a); err != nil {
		return worm.Object{}, err
	}
	if err := at.keeps(object); err != nil {
		return worm.Object{}, err
	}
	status := &a.of.Status
	status.StatementDigest = evidence.Digest(stored.Payload)
	if err := stageBundle(status, a.notary, data); err != nil {
		return worm.Object{}, err
	}
	object.SHA256 = evidence.Digest(data)
	return object, nil
}

// fits refuses a bundle whose statement is not, byte by byte, the one that this attestor makes. Whoever stole one mode and
// put a bundle there first must not have it countersigned in the other. A countersignature is over the same bytes, in its
// mode.
func fits(key string, stored attest.Verified, a *adoption) error {
	own, err := a.notary.Verify(a.bundle)
	if err != nil {
		return invalidBundle(err)
	}
	of := a.of.Spec.Countersigns
	if of == nil {
		return fitsFirst(key, a.of, stored, own.Payload)
	}
	return countersigns(key, of.Mode, stored, own.Payload)
}

// fitsFirst refuses what is not the first bundle of this attestor's own statement. Once its digest is settled, another moment
// makes it another statement: the one after it names the digest.
func fitsFirst(key string, bundle *v1alpha1.AttestationBundle, stored attest.Verified, statement []byte) error {
	if err := firstInMode(key, bundle, stored); err != nil {
		return fmt.Errorf("%w: where signingModes was reordered since, put the former order back; else find out who put it there, then hide it behind a delete marker in the store, and the attestor's own bundle is stored", err)
	}
	digest, own, moment := evidence.Digest(stored.Payload), bundle.Status.StatementDigest, "signed, and gave to the statement after it"
	if digest == own {
		return nil // it made this one, and the answer to the put was lost
	}
	if !settled(&bundle.Status) {
		again, err := atMoment(statement, stored.Payload)
		if err != nil {
			return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("%s: %w", key, err))
		}
		if bytes.Equal(again, stored.Payload) {
			return nil
		}
		own, moment = evidence.Digest(again), "makes of the same moment"
	}
	return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("%s holds a signed bundle over another statement, sha256 %s, than this attestor "+
		"%s, sha256 %s: find out who signed it and take whoever it was out of the trusted-root ConfigMap if it was not "+
		"this attestor; then hide it behind a delete marker in the store, and the attestor's own bundle is stored", key, digest, moment, own))
}

// readObject reads a bundle into memory.
func readObject(ctx context.Context, store worm.Reader, key, versionID string) ([]byte, error) {
	return readAtMost(ctx, store, key, versionID, maxBundle)
}
