package attestor

import (
	"context"
	"fmt"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

// Verifier proves a bundle offline; *attest.Trust is the real one.
type Verifier interface {
	Verify(bundle []byte) (attest.Verified, error)
}

// Checker tells whether an event is attested by looking at the sealed bundle itself: a phase is a hint, not a proof.
type Checker struct {
	Reader client.Reader
	Clock  clock.PassiveClock
	// Verifier of the current configuration.
	Verifier func(context.Context) (Verifier, error)
	// Store opens a bucket for reading.
	Store func(ctx context.Context, bucket string) (worm.Store, error)
}

// Attested is true when the stored bundle verifies and attests this event, uid and spec. False without an error means
// that the bundle is not sealed yet; an error means that the bundle could not be read or does not prove the event.
func (c *Checker) Attested(ctx context.Context, event *v1alpha1.SecurityEvent) (bool, error) {
	var bundle v1alpha1.AttestationBundle
	err := c.Reader.Get(ctx, client.ObjectKey{Name: v1alpha1.BundleName(string(event.UID))}, &bundle)
	if err != nil {
		return false, client.IgnoreNotFound(err)
	}
	if !isTrue(v1alpha1.ConditionSealed)(&bundle.Status) || bundle.Status.Object == nil {
		return false, nil
	}
	data, err := c.fetch(ctx, &bundle)
	if err != nil {
		return false, fmt.Errorf("fetch bundle %s: %w", bundle.Name, err)
	}
	verifier, err := c.Verifier(ctx)
	if err != nil {
		return false, fmt.Errorf("load trust: %w", err)
	}
	verified, err := verifier.Verify(data)
	if err != nil {
		return false, fmt.Errorf("bundle %s: %w", bundle.Name, err)
	}
	if err := attestsEvent(verified.Payload, event); err != nil {
		return false, fmt.Errorf("bundle %s: %w", bundle.Name, err)
	}
	return true, nil
}

// fetch reads the version that the bundle's status names, from the one place where it may lie.
func (c *Checker) fetch(ctx context.Context, bundle *v1alpha1.AttestationBundle) ([]byte, error) {
	from, err := placeOf(ctx, c.Reader, bundle, c.Clock.Now())
	if err != nil {
		return nil, err
	}
	object := bundle.Status.Object
	if object.Key != from.key {
		return nil, fmt.Errorf("status names the key %s, not %s", object.Key, from.key)
	}
	store, err := c.Store(ctx, from.bucket)
	if err != nil {
		return nil, err
	}
	data, err := readObject(ctx, store, object.Key, object.VersionID)
	if err != nil {
		return nil, err
	}
	if digest := evidence.Digest(data); digest != object.SHA256 {
		return nil, fmt.Errorf("%s has the digest %s, not %s", object.Key, digest, object.SHA256)
	}
	return data, nil
}

func attestsEvent(payload []byte, event *v1alpha1.SecurityEvent) error {
	statement, err := parseStatement(payload)
	if err != nil {
		return err
	}
	spec, err := evidence.Canonical(event.Spec)
	if err != nil {
		return err
	}
	if statement.PredicateType != evidence.PredicateTypeSecurityEvent || len(statement.Subject) != 1 {
		return fmt.Errorf("attests %s, not one event", statement.PredicateType)
	}
	if statement.Predicate.Event.UID != string(event.UID) {
		return fmt.Errorf("attests the event with uid %s", statement.Predicate.Event.UID)
	}
	if statement.Subject[0].Digest["sha256"] != evidence.Digest(spec) {
		return fmt.Errorf("attests another spec of event %s", event.Name)
	}
	return nil
}
