package attestor

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
)

// log publishes the staged envelope and stages the bundle in its place.
func (r *Reconciler) log(ctx context.Context, job *job) error {
	notary, err := r.notary(ctx, job)
	if err != nil {
		return err
	}
	status := &job.bundle.Status
	signed, err := unpack(status.Staged)
	if err != nil {
		return err
	}
	bundle, err := notary.Publish(ctx, signed)
	switch {
	case errors.Is(err, attest.ErrDuplicate), errors.Is(err, attest.ErrExpired):
		// A crash between the log's answer and the patch lost the proof, or the log was away for longer than the
		// certificate lived. The same statement gets a new signature.
		return r.signAgain(ctx, job)
	case errors.Is(err, attest.ErrUnknownKey):
		// Who is trusted was changed since it was signed.
		return r.signAnew(ctx, job, err)
	case err != nil:
		return notaryFailure(err, v1alpha1.ReasonLogUnavailable)
	}
	if err := stageBundle(status, notary, bundle); err != nil {
		return err
	}
	r.set(job.bundle, v1alpha1.ConditionLogged,
		conditionTrue(v1alpha1.ReasonSucceeded, fmt.Sprintf("entry %d of the log", *status.LogIndex)))
	return nil
}

func (r *Reconciler) signAgain(ctx context.Context, job *job) error {
	signed, err := unpack(job.bundle.Status.Staged)
	if err != nil {
		return err
	}
	envelope, err := attest.ParseEnvelope(signed)
	if err != nil {
		return err
	}
	// Nothing but what this attestor made a statement of gets a signature.
	if digest := evidence.Digest(envelope.Payload); digest != job.bundle.Status.StatementDigest {
		return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("staged is the statement %s", digest))
	}
	if err := r.stageEnvelope(ctx, job, envelope.Payload); err != nil {
		return err
	}
	return errAgain
}

// signAnew replaces a signature that is not trusted any more by one that is. Whoever is not trusted may have staged it, so
// that only a statement that this attestor makes itself, byte by byte, is signed: children name its digest already.
func (r *Reconciler) signAnew(ctx context.Context, job *job, untrusted error) error {
	signed, err := unpack(job.bundle.Status.Staged)
	if err != nil {
		return err
	}
	envelope, err := attest.ParseEnvelope(signed)
	if err != nil {
		return err
	}
	payload, err := r.restate(ctx, job, envelope)
	if failed, ok := errors.AsType[*stageError](err); ok && failed.reason == v1alpha1.ReasonSubjectGone {
		// It can not be made again, but the former signature counts as soon as its signer is trusted once more.
		return notaryFailure(untrusted, v1alpha1.ReasonLogUnavailable)
	}
	if err != nil {
		return err
	}
	if evidence.Digest(payload) != job.bundle.Status.StatementDigest {
		return notaryFailure(untrusted, v1alpha1.ReasonLogUnavailable)
	}
	if err := r.stageEnvelope(ctx, job, payload); err != nil {
		return err
	}
	return errAgain
}

// restate makes the statement of an envelope once more, or reads what is countersigned.
func (r *Reconciler) restate(ctx context.Context, job *job, envelope attest.Envelope) ([]byte, error) {
	if job.bundle.Spec.Countersigns != nil {
		return r.statementOf(ctx, job)
	}
	return r.stateAgain(ctx, job.bundle, envelope.Payload)
}

// stateAgain makes a bundle's statement as of the moment that a payload gives.
func (r *Reconciler) stateAgain(ctx context.Context, bundle *v1alpha1.AttestationBundle, payload []byte) ([]byte, error) {
	made, err := madeAt(payload)
	if err != nil {
		return nil, err
	}
	statement, err := r.statement(ctx, bundle, evidence.Attestor{Account: r.Account, At: made})
	if err != nil {
		return nil, err
	}
	return evidence.Canonical(statement)
}

// stageBundle keeps a bundle and what it proves, after checking that it proves this statement.
func stageBundle(status *v1alpha1.AttestationBundleStatus, notary Notary, bundle []byte) error {
	verified, err := notary.Verify(bundle)
	if err != nil {
		return invalidBundle(err)
	}
	if digest := evidence.Digest(verified.Payload); digest != status.StatementDigest {
		return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("bundle attests statement %s", digest))
	}
	if status.Staged, err = staged(bundle); err != nil {
		return err
	}
	record := metav1.NewTime(verified.Timestamp)
	status.Timestamp = &record
	status.LogIndex = &verified.LogIndex
	status.Signer = verified.Signer
	return nil
}
