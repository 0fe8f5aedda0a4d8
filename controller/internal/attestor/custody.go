package attestor

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/custody"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

const (
	// recordPoll is a second look besides the watch on what a custody record waits for.
	recordPoll = 30 * time.Second
	// maxRecord is above a record of all objects that the incident's responses can name.
	maxRecord = 64 << 20
)

// recordStages come before the others where a bundle attests a custody record: the record is made, and persisted before
// it is stored, so that a crash never makes a second one.
func (r *Reconciler) recordStages(bundle *v1alpha1.AttestationBundle) []stage {
	if bundle.Spec.AttestedFor.Kind != v1alpha1.AttestedIncident {
		return nil
	}
	stored := func(status *v1alpha1.AttestationBundleStatus) bool { return status.Record != nil }
	return []stage{
		{condition: v1alpha1.ConditionSigned, done: recordMade, act: r.makeRecord},
		{condition: v1alpha1.ConditionSigned, done: stored, act: r.storeRecord},
	}
}

// recordMade is whether a bundle's custody record is staged, or stored.
func recordMade(status *v1alpha1.AttestationBundleStatus) bool {
	return len(status.Staged) > 0 || status.Record != nil
}

// makeRecord stages the record once everything that it lists is sealed.
func (r *Reconciler) makeRecord(ctx context.Context, job *job) error {
	incident, err := r.incident(ctx, job.bundle.Spec.AttestedFor.Ref)
	if err != nil {
		return err
	}
	store, err := r.Store(ctx, incident.Spec.Snapshot.Destination.Bucket)
	if err != nil {
		return failure(v1alpha1.ReasonConfigInvalid, err)
	}
	record, err := r.record(ctx, store, incident, job.bundle.Spec.Number)
	if err != nil {
		return recordFailure(err)
	}
	trust, err := r.archiveTrust(ctx, store, incident)
	if err != nil {
		return err
	}
	custody.Add(record, trust...)
	if err := r.fixModes(ctx, job.bundle); err != nil {
		return err
	}
	for _, mode := range further(job.bundle) {
		record.CountersignedIn = append(record.CountersignedIn, string(mode))
	}
	data, err := evidence.Canonical(record)
	if err != nil {
		return err
	}
	if job.bundle.Status.Staged, err = pack(data); err != nil {
		return err
	}
	if staged := len(job.bundle.Status.Staged); staged > maxStaged {
		err := fmt.Errorf("the custody record of %d objects takes %d bytes, an API object has room for %d", len(record.Objects), staged, maxStaged)
		return &stageError{reason: v1alpha1.ReasonFailed, err: err, final: true}
	}
	return nil
}

func recordFailure(err error) error {
	switch {
	case errors.Is(err, custody.ErrUnsealed):
		return &waiting{message: err.Error(), after: recordPoll}
	case errors.Is(err, custody.ErrMissing):
		return failure(v1alpha1.ReasonSubjectGone, err)
	case errors.Is(err, custody.ErrBroken):
		return failure(v1alpha1.ReasonBundleInvalid, err)
	}
	return storeFailure(err)
}

// record of this number, of an unbroken chain.
func (r *Reconciler) record(
	ctx context.Context, store worm.Reader, incident *v1alpha1.Incident, number int32,
) (*evidence.Custody, error) {
	material, err := r.material(ctx, incident)
	if err != nil {
		return nil, err
	}
	var record *evidence.Custody
	if number == evidence.CustodyCaptured {
		record, err = custody.Captured(material)
	} else {
		record, err = released(ctx, store, material)
	}
	if err != nil {
		return nil, err
	}
	return record, custody.Chained(material, record, func(statement *evidence.CustodyStatement) (string, error) {
		return previousOf(ctx, store, statement)
	})
}

// previousOf is what a sealed statement names as the one before it, as it lies in the store. It is the statement that was
// sealed if it has the digest that was recorded then; whoever signed it may not be trusted any more.
func previousOf(ctx context.Context, store worm.Reader, statement *evidence.CustodyStatement) (string, error) {
	data, err := readObject(ctx, store, statement.Bundle.Key, statement.Bundle.VersionID)
	if err != nil {
		return "", err
	}
	payload, err := attest.Payload(data)
	if err != nil {
		return "", failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("%s: %w", statement.Bundle.Key, err))
	}
	if digest := evidence.Digest(payload); digest != statement.PayloadSHA256 {
		return "", failure(v1alpha1.ReasonDigestMismatch, fmt.Errorf("%s attests statement %s", statement.Bundle.Key, digest))
	}
	return namedBefore(payload)
}

// released is the second record, which goes on from the first as it lies in the store.
func released(ctx context.Context, store worm.Reader, material *custody.Material) (*evidence.Custody, error) {
	incident := material.Incident
	name := v1alpha1.CustodyBundleName(string(incident.UID), evidence.CustodyCaptured)
	for i := range material.Bundles {
		before := &material.Bundles[i]
		if before.Name == name && before.Status.Record != nil {
			first, err := readRecord(ctx, store, before)
			if err != nil {
				return nil, err
			}
			return custody.Released(material, first)
		}
	}
	return nil, fmt.Errorf("custody-1 is %w: it is not stored yet", custody.ErrUnsealed)
}

// storeRecord stores the staged record under the key that its content gives.
func (r *Reconciler) storeRecord(ctx context.Context, job *job) error {
	incident, err := r.incident(ctx, job.bundle.Spec.AttestedFor.Ref)
	if err != nil {
		return err
	}
	data, err := unpack(job.bundle.Status.Staged)
	if err != nil {
		return err
	}
	number, to := job.bundle.Spec.Number, incident.Spec.Snapshot.Destination
	// What is stored stays for years: a record that nobody can read must not be the first.
	if _, err := custody.Parse(data, job.bundle.Spec.AttestedFor.Ref, number); err != nil {
		return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf(
			"%w: it is not stored; set status.staged of this bundle to null, and the record is made anew", err))
	}
	store, err := r.Store(ctx, to.Bucket)
	if err != nil {
		return failure(v1alpha1.ReasonConfigInvalid, err)
	}
	object, err := r.putOnce(ctx, store, to, evidence.CustodyKey(to.Prefix, int(number), evidence.Digest(data)), data)
	if err != nil {
		return storeFailure(err)
	}
	job.bundle.Status.Record = &v1alpha1.StoredObject{
		Index: number, Key: object.Key, VersionID: object.VersionID, SHA256: object.SHA256, Size: object.Size,
		RetainUntil: metav1.NewTime(object.Lock.RetainUntil),
	}
	job.bundle.Status.Staged = nil
	return nil
}

// readBackRecord reads the stored record: only what came back from the store is signed.
func (r *Reconciler) readBackRecord(ctx context.Context, job *job) error {
	if _, err := r.storedRecord(ctx, job.bundle); err != nil {
		return err
	}
	r.set(job.bundle, v1alpha1.ConditionReadBack,
		conditionTrue(v1alpha1.ReasonSucceeded, "the custody record was read back as it was stored"))
	return nil
}

func (r *Reconciler) recordStatement(
	ctx context.Context, bundle *v1alpha1.AttestationBundle, attestor evidence.Attestor,
) (evidence.Statement, error) {
	record, err := r.storedRecord(ctx, bundle)
	if err != nil {
		return evidence.Statement{}, err
	}
	return custody.Statement(record, bundle.Status.Record, attestor), nil
}

func (r *Reconciler) storedRecord(ctx context.Context, bundle *v1alpha1.AttestationBundle) (*evidence.Custody, error) {
	incident, err := r.incident(ctx, bundle.Spec.AttestedFor.Ref)
	if err != nil {
		return nil, err
	}
	store, err := r.Store(ctx, incident.Spec.Snapshot.Destination.Bucket)
	if err != nil {
		return nil, failure(v1alpha1.ReasonConfigInvalid, err)
	}
	record, err := readRecord(ctx, store, bundle)
	if err != nil {
		return nil, storeFailure(err)
	}
	return record, nil
}

// readRecord reads the version of a record that its bundle names, and compares its digest.
func readRecord(ctx context.Context, store worm.Reader, bundle *v1alpha1.AttestationBundle) (*evidence.Custody, error) {
	stored := bundle.Status.Record
	data, err := readAtMost(ctx, store, stored.Key, stored.VersionID, maxRecord)
	if err != nil {
		return nil, err
	}
	if digest := evidence.Digest(data); digest != stored.SHA256 {
		return nil, failure(v1alpha1.ReasonDigestMismatch, fmt.Errorf("%s has the sha256 %s, stored was %s", stored.Key, digest, stored.SHA256))
	}
	record, err := custody.Parse(data, bundle.Spec.AttestedFor.Ref, bundle.Spec.Number)
	if err != nil {
		return nil, failure(v1alpha1.ReasonFailed, err)
	}
	return record, nil
}

func (r *Reconciler) incident(ctx context.Context, ref v1alpha1.Ref) (*v1alpha1.Incident, error) {
	return look[v1alpha1.Incident](ctx, r, ref)
}
