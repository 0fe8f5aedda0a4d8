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

// Attested is true when every stored bundle of the statement verifies and attests this event, uid and spec. False without
// an error means that one is not sealed yet; an error means that one could not be read or does not prove the event.
func (c *Checker) Attested(ctx context.Context, event *v1alpha1.SecurityEvent) (bool, error) {
	verifier, err := c.Verifier(ctx)
	if err != nil {
		return false, fmt.Errorf("load trust: %w", err)
	}
	name := v1alpha1.BundleName(string(event.UID))
	bundle, verified, err := c.prove(ctx, verifier, name)
	if err != nil || bundle == nil {
		return false, err
	}
	if err := attestsEvent(verified.Payload, event); err != nil {
		return false, fmt.Errorf("bundle %s: %w", name, err)
	}
	if err := firstInMode(bundle.Status.Object.Key, bundle, verified); err != nil {
		return false, fmt.Errorf("bundle %s: %w", name, err)
	}
	for _, mode := range further(bundle) {
		name := v1alpha1.CountersignatureName(bundle.Name, mode)
		beside, again, err := c.prove(ctx, verifier, name)
		if err != nil || beside == nil {
			return false, err
		}
		if err := countersigns(beside.Status.Object.Key, mode, again, verified.Payload); err != nil {
			return false, fmt.Errorf("bundle %s: %w", name, err)
		}
	}
	return true, nil
}

// prove reads and verifies one bundle; nil where it is not sealed.
func (c *Checker) prove(
	ctx context.Context, verifier Verifier, name string,
) (*v1alpha1.AttestationBundle, attest.Verified, error) {
	var bundle v1alpha1.AttestationBundle
	if err := c.Reader.Get(ctx, client.ObjectKey{Name: name}, &bundle); err != nil {
		return nil, attest.Verified{}, client.IgnoreNotFound(err)
	}
	if !isTrue(v1alpha1.ConditionSealed)(&bundle.Status) || bundle.Status.Object == nil {
		return nil, attest.Verified{}, nil
	}
	data, err := c.fetch(ctx, &bundle)
	if err != nil {
		return nil, attest.Verified{}, fmt.Errorf("fetch bundle %s: %w", name, err)
	}
	verified, err := verifier.Verify(data)
	if err != nil {
		return nil, attest.Verified{}, fmt.Errorf("bundle %s: %w", name, err)
	}
	return &bundle, verified, nil
}

// fetch reads the version that the bundle's status names, from the one place where it may lie.
func (c *Checker) fetch(ctx context.Context, bundle *v1alpha1.AttestationBundle) ([]byte, error) {
	from, err := placeOf(ctx, c.Reader, bundle, c.Clock.Now())
	if err != nil {
		return nil, err
	}
	store, err := c.Store(ctx, from.bucket)
	if err != nil {
		return nil, err
	}
	return readSealed(ctx, store, from, bundle.Status.Object)
}

// readSealed reads the version of a bundle that a status names, if it lies in the bundle's place.
func readSealed(ctx context.Context, store worm.Reader, from place, object *v1alpha1.StoredObject) ([]byte, error) {
	if object.Key != from.key {
		return nil, fmt.Errorf("status names the key %s, not %s", object.Key, from.key)
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
