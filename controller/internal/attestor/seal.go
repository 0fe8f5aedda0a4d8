package attestor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
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
		return failure(v1alpha1.ReasonConfigInvalid, err)
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
	if len(further(job.bundle)) == 0 {
		r.sealed(job.bundle)
	}
	return nil
}

func storeFailure(err error) error {
	if _, ok := errors.AsType[*stageError](err); ok {
		return err
	}
	return failure(v1alpha1.ReasonStoreUnreachable, err)
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
// object was deleted and made again. The first bundle stored wins, if it attests the same subject and stays long enough.
func adopt(ctx context.Context, store worm.Reader, at place, a *adoption) (worm.Object, error) {
	object, err := store.Stat(ctx, at.key, "")
	if err != nil {
		return worm.Object{}, err
	}
	data, err := readObject(ctx, store, at.key, object.VersionID)
	if err != nil {
		return worm.Object{}, err
	}
	stored, err := a.notary.Verify(data)
	if err != nil {
		return worm.Object{}, invalidBundle(fmt.Errorf("%s holds another object: %w", at.key, err))
	}
	own, err := a.notary.Verify(a.bundle)
	if err != nil {
		return worm.Object{}, invalidBundle(err)
	}
	if err := a.fits(at.key, stored, own); err != nil {
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

// fits refuses a bundle that attests something else. A countersignature is over the same bytes, in its mode.
func (a *adoption) fits(key string, stored, own attest.Verified) error {
	if of := a.of.Spec.Countersigns; of != nil {
		return countersigns(key, of.Mode, stored, own.Payload)
	}
	same, err := sameSubject(stored.Payload, own.Payload)
	if err != nil {
		return err
	}
	if !same {
		return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("%s attests another subject", key))
	}
	return nil
}

func sameSubject(one, other []byte) (bool, error) {
	first, err := parseStatement(one)
	if err != nil {
		return false, err
	}
	second, err := parseStatement(other)
	if err != nil {
		return false, err
	}
	return reflect.DeepEqual(first, second), nil
}

// readObject reads a bundle into memory.
func readObject(ctx context.Context, store worm.Reader, key, versionID string) ([]byte, error) {
	return readAtMost(ctx, store, key, versionID, maxBundle)
}
