package attestor

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/custody"
)

// previous is the statement digest of the parent response, which is signed first. A parent that is gone from the
// cluster before it was signed leaves the link empty, beside a spec that names it. A response that its incident does not name
// is not the controller's.
func (r *Reconciler) previous(ctx context.Context, response *v1alpha1.EventResponse) (string, error) {
	if err := r.named(ctx, response); err != nil {
		return "", err
	}
	parent := response.Spec.ParentRef
	if parent == nil {
		return "", nil
	}
	return r.signed(ctx, *parent, func() error {
		_, err := r.response(ctx, *parent)
		return err
	})
}

// beforeEvent is the statement digest of what an event follows from: the last response of the capture that a Completed or
// Failed event ends, or the trigger where no response was ordered. It is empty for any other event: nothing of an
// incident precedes a detection. A Forensic event whose incident names another one is not the controller's.
func (r *Reconciler) beforeEvent(ctx context.Context, event *v1alpha1.SecurityEvent) (string, error) {
	if event.Spec.Class != v1alpha1.ClassForensic || event.Spec.Incident == nil {
		return "", nil
	}
	incident, err := r.namingIncident(ctx, event.Spec.Incident.UID)
	if err != nil {
		return "", err
	}
	ending := incident.Status.CompletionEvent
	if ending == nil {
		return "", &waiting{
			message: "waits until incident " + incident.Name + " names this event as the end of its capture", after: r.pollSince(event.CreationTimestamp.Time),
		}
	}
	if ending.UID != string(event.UID) {
		err := fmt.Errorf("incident %s names event %s with uid %s as the end of its capture, not this one", incident.Name, ending.Name, ending.UID)
		return "", &stageError{reason: v1alpha1.ReasonSubjectGone, err: err, final: true}
	}
	material, err := r.material(ctx, incident)
	if err != nil {
		return "", err
	}
	last, err := custody.Last(material)
	if errors.Is(err, custody.ErrUnsealed) {
		return "", &waiting{message: err.Error(), after: parentPoll}
	}
	if err != nil {
		return "", failure(v1alpha1.ReasonSubjectGone, err)
	}
	if last == nil {
		trigger := incident.Spec.Trigger.Ref
		return r.signed(ctx, trigger, func() error {
			_, err := r.event(ctx, trigger)
			return err
		})
	}
	return r.signed(ctx, v1alpha1.Ref{Name: last.Name, UID: string(last.UID)}, func() error { return nil })
}

// pollSince is how soon to look again for what usually comes soon after a moment, and need not come: the controller names an
// event right after it made it, and a response at the latest when it sees that it is complete; and the bundle of a parent is
// stored right after it was signed.
func (r *Reconciler) pollSince(since time.Time) time.Duration {
	if r.Clock.Since(since) < recordPoll {
		return parentPoll
	}
	return recordPoll
}

// signed is the statement digest of an object, which is waited for as long as the object is there to be signed, and until the
// digest is settled.
func (r *Reconciler) signed(ctx context.Context, ref v1alpha1.Ref, look func() error) (string, error) {
	wait := &waiting{message: "waits until the statement about " + ref.Name + ", before this one, is signed", after: parentPoll}
	var bundle v1alpha1.AttestationBundle
	err := r.Client.Get(ctx, client.ObjectKey{Name: v1alpha1.BundleName(ref.UID)}, &bundle)
	switch {
	case err == nil && settled(&bundle.Status):
		return bundle.Status.StatementDigest, nil
	case err == nil && bundle.Status.StatementDigest != "":
		wait.message = "waits until the statement about " + ref.Name + ", before this one, is stored: see Signed of bundle " + bundle.Name
		if signed := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionSigned); signed != nil {
			wait.after = r.pollSince(signed.LastTransitionTime.Time)
		}
		return "", wait
	case err == nil && custody.Unsignable(&bundle):
		return "", nil
	case err == nil:
		return "", wait
	case !apierrors.IsNotFound(err):
		return "", fmt.Errorf("read bundle of %s: %w", ref.Name, err)
	}
	err = look()
	if err == nil {
		return "", wait
	}
	if gone, ok := errors.AsType[*stageError](err); !ok || !gone.final {
		return "", err
	}
	// What is gone may have been signed before, so that its bundle must not be missing in the cache alone.
	err = r.Live.Get(ctx, client.ObjectKey{Name: v1alpha1.BundleName(ref.UID)}, &bundle)
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read bundle of %s: %w", ref.Name, err)
	}
	return "", wait
}
