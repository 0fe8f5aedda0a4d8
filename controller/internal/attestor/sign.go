package attestor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// readBackPoll is a second look besides the watch on the verdict.
	readBackPoll = 30 * time.Second
	// parentPoll is short because a parent finished before its child, so that its statement is about to be signed.
	parentPoll = 500 * time.Millisecond
)

// readBack records that there is nothing to read back, or waits for the workload that reads.
func (r *Reconciler) readBack(ctx context.Context, job *job) error {
	if job.bundle.Spec.AttestedFor.Kind == v1alpha1.AttestedIncident {
		return r.readBackRecord(ctx, job)
	}
	if job.bundle.Spec.AttestedFor.Kind == v1alpha1.AttestedEventResponse {
		response, err := r.response(ctx, job.bundle.Spec.AttestedFor.Ref)
		if err != nil {
			return err
		}
		if response.Status.CompletedAt == nil {
			return &waiting{message: "waits until the response is complete", after: parentPoll}
		}
		if len(response.Status.StoredObjects()) > 0 {
			return &waiting{message: "waits until the stored objects are read back", after: readBackPoll}
		}
	}
	r.set(job.bundle, v1alpha1.ConditionReadBack, conditionTrue(v1alpha1.ReasonNothingStored, "names no stored object"))
	return nil
}

// sign makes the statement, or takes the one that is in the store already, and stages its envelope.
func (r *Reconciler) sign(ctx context.Context, job *job) error {
	statement, err := r.statement(ctx, job.bundle, evidence.Attestor{Account: r.Account, At: r.Clock.Now().UTC()})
	if err != nil {
		return err
	}
	payload, err := evidence.Canonical(statement)
	if err != nil {
		return err
	}
	if _, err := r.notary(ctx, job); err != nil {
		return err
	}
	if err := r.fixDestination(ctx, job.bundle); err != nil {
		return err
	}
	before, open := r.storedBefore(ctx, job, payload)
	if before != nil {
		payload = before
	}
	if err := r.signPayload(ctx, job, payload); err != nil {
		return err
	}
	if open != nil {
		r.leaveOpen(job.bundle, open)
	}
	return nil
}

// signPayload stages the envelope over a payload and records who signed it.
func (r *Reconciler) signPayload(ctx context.Context, job *job, payload []byte) error {
	if err := r.stageEnvelope(ctx, job, payload); err != nil {
		return err
	}
	job.bundle.Status.StatementDigest = evidence.Digest(payload)
	r.settle(job.bundle)
	return nil
}

func (r *Reconciler) stageEnvelope(ctx context.Context, job *job, payload []byte) error {
	notary, err := r.notary(ctx, job)
	if err != nil {
		return err
	}
	envelope, signer, err := notary.Sign(ctx, payload)
	if errors.Is(err, ErrModeWithdrawn) {
		return r.withdraw(ctx, job, err)
	}
	if err != nil {
		return notaryFailure(err, v1alpha1.ReasonSignerUnavailable)
	}
	if job.bundle.Status.Staged, err = staged(envelope); err != nil {
		return err
	}
	job.bundle.Status.Signer = signer
	return nil
}

func (r *Reconciler) statement(
	ctx context.Context, bundle *v1alpha1.AttestationBundle, attestor evidence.Attestor,
) (evidence.Statement, error) {
	ref := bundle.Spec.AttestedFor.Ref
	switch bundle.Spec.AttestedFor.Kind {
	case v1alpha1.AttestedSecurityEvent:
		event, err := r.event(ctx, ref)
		if err != nil {
			return evidence.Statement{}, err
		}
		previous, err := r.beforeEvent(ctx, event)
		if err != nil {
			return evidence.Statement{}, err
		}
		return eventStatement(event, previous, attestor)
	case v1alpha1.AttestedEventResponse:
		response, err := r.response(ctx, ref)
		if err != nil {
			return evidence.Statement{}, err
		}
		previous, err := r.previous(ctx, response)
		if err != nil {
			return evidence.Statement{}, err
		}
		return responseStatement(response, bundle, previous, attestor)
	case v1alpha1.AttestedIncident:
		return r.recordStatement(ctx, bundle, attestor)
	default:
		err := fmt.Errorf("no statement is defined for kind %s", bundle.Spec.AttestedFor.Kind)
		return evidence.Statement{}, &stageError{reason: v1alpha1.ReasonFailed, err: err, final: true}
	}
}

func (r *Reconciler) event(ctx context.Context, ref v1alpha1.Ref) (*v1alpha1.SecurityEvent, error) {
	return look[v1alpha1.SecurityEvent](ctx, r, ref)
}

func (r *Reconciler) response(ctx context.Context, ref v1alpha1.Ref) (*v1alpha1.EventResponse, error) {
	return look[v1alpha1.EventResponse](ctx, r, ref)
}

// look tells an object that is gone for good from one that could not be read, and from one that only the cache lacks. A later
// object of the same name is another object.
func look[T any, P interface {
	*T
	client.Object
}](ctx context.Context, r *Reconciler, ref v1alpha1.Ref,
) (P, error) {
	for _, reader := range []client.Reader{r.Client, r.Live} {
		object := P(new(T))
		err := reader.Get(ctx, client.ObjectKey{Name: ref.Name}, object)
		if client.IgnoreNotFound(err) != nil {
			return object, fmt.Errorf("read %s: %w", ref.Name, err)
		}
		if err == nil && string(object.GetUID()) == ref.UID {
			return object, nil
		}
	}
	gone := fmt.Errorf("%s with uid %s is gone", ref.Name, ref.UID)
	return P(new(T)), &stageError{reason: v1alpha1.ReasonSubjectGone, err: gone, final: true}
}
