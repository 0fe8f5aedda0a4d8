package attest

import (
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// Sorts are whom the trust names: those who sign with a key, those who sign with a certificate, or both.
func (t *Trust) Sorts() (keys, identities bool) { return len(t.keys) > 0, len(t.identities) > 0 }

// Asks is whether the trust names anybody who signs as this bundle is signed: with a certificate, or with a key.
func (t *Trust) Asks(bundleJSON []byte) (bool, error) {
	parsed, err := parseBundle(bundleJSON)
	if err != nil {
		return false, err
	}
	if len(credentialOf(parsed).Certificate) > 0 {
		return len(t.identities) > 0, nil
	}
	return len(t.keys) > 0, nil
}

// Witness checks all of a bundle that the trusted root alone can prove: that the log holds it, when it was signed, and
// that the signature is by the key that the log's entry names or by one that an authority of the root certified. Who
// signed is what the bundle says: it is nobody whom this trust names, and no reason to believe the statement.
func (t *Trust) Witness(bundleJSON []byte) (Verified, error) {
	parsed, err := parseBundle(bundleJSON)
	if err != nil {
		return Verified{}, err
	}
	result, by, err := t.witness(parsed)
	if err != nil {
		return Verified{}, err
	}
	if err := checkProofs(parsed.Bundle); err != nil {
		return Verified{}, fmt.Errorf("verify bundle: %w", err)
	}
	return verified(parsed, result, by), nil
}

func (t *Trust) witness(parsed *bundle.Bundle) (*verify.VerificationResult, signatory, error) {
	credential := credentialOf(parsed)
	if len(credential.Certificate) > 0 {
		_, identity, err := readCertificate(credential.Certificate)
		if err != nil {
			return nil, signatory{}, err
		}
		result, err := verifyWith(parsed, t.root, verify.WithoutIdentitiesUnsafe())
		return result, signatory{name: identity.Name, issuer: identity.Issuer}, err
	}
	key, err := loggedKey(parsed)
	if err != nil {
		return nil, signatory{}, err
	}
	if key.id != credential.KeyID {
		return nil, signatory{}, fmt.Errorf("the log's entry is by key %q, the bundle says %q", key.id, credential.KeyID)
	}
	by, err := newSignatory(key.id, key)
	if err != nil {
		return nil, signatory{}, err
	}
	material := root.TrustedMaterialCollection{t.root, root.NewTrustedPublicKeyMaterialFromMapping(map[string]*root.ExpiringKey{
		key.id: root.NewExpiringKey(by.verifier, time.Time{}, time.Time{}),
	})}
	result, err := verifyWith(parsed, material, verify.WithKey())
	return result, by, err
}

// loggedKey is the key that the entry of the log was made for.
func loggedKey(parsed *bundle.Bundle) (publicKey, error) {
	entries := parsed.GetVerificationMaterial().GetTlogEntries()
	if len(entries) != 1 {
		return publicKey{}, errors.New("the bundle has not one entry of the log")
	}
	entry, err := tlog.ParseTransparencyLogEntry(entries[0])
	if err != nil {
		return publicKey{}, fmt.Errorf("parse the log's entry: %w", err)
	}
	return newPublicKey(entry.PublicKey())
}
