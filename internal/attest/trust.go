package attest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

const (
	// TrustedRootEntry of a trust ConfigMap is a Sigstore trusted root in JSON.
	TrustedRootEntry = "trusted_root.json"
	// KeySuffix of the entries that are a trusted public key in PEM each; what precedes it is the key's name.
	KeySuffix = ".pub"
	// IdentitySuffix of the entries that are a trusted Identity in JSON each.
	IdentitySuffix = ".identity"
)

// ErrUnknownKey is returned where a signature is by a key, or by a certificate's identity, that is not trusted.
var ErrUnknownKey = errors.New("key is not trusted")

// Trust is what a verifier believes in: the log, the time-stamping authority, the signing keys, and the certificate
// authority with the identities that may sign.
type Trust struct {
	root       *root.TrustedRoot
	material   root.TrustedMaterialCollection
	keys       map[string]signatory // by key id
	identities map[Identity]struct{}
}

// Verified is what a bundle proves.
type Verified struct {
	// Payload is the statement that was signed.
	Payload []byte
	// Signer is the name of the trusted key, or the identity in the certificate, that signed.
	Signer string
	// Issuer that vouches for the identity; empty where a key signed.
	Issuer string
	// LogIndex of the entry in the transparency log.
	LogIndex int64
	// Timestamp by the time-stamping authority.
	Timestamp time.Time
}

// ParseTrust reads the data of a trust ConfigMap; entries of other names are left alone.
func ParseTrust(data map[string]string) (*Trust, error) {
	keys, identities := map[string][]byte{}, []Identity{}
	for _, entry := range slices.Sorted(maps.Keys(data)) {
		if name, ok := strings.CutSuffix(entry, KeySuffix); ok {
			keys[name] = []byte(data[entry])
		}
		if !strings.HasSuffix(entry, IdentitySuffix) {
			continue
		}
		identity, err := ParseIdentity([]byte(data[entry]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry, err)
		}
		identities = append(identities, identity)
	}
	return LoadTrust([]byte(data[TrustedRootEntry]), keys, identities...)
}

// LoadTrust takes a Sigstore trusted root in JSON, PEM public keys by name, and the identities whose certificates
// count. It fetches nothing.
func LoadTrust(trustedRootJSON []byte, keys map[string][]byte, identities ...Identity) (*Trust, error) {
	trustedRoot, err := root.NewTrustedRootFromJSON(trustedRootJSON)
	if err != nil {
		return nil, fmt.Errorf("parse trusted root: %w", err)
	}
	trust := &Trust{root: trustedRoot, keys: map[string]signatory{}, identities: map[Identity]struct{}{}}
	byID := map[string]*root.ExpiringKey{}
	for name, data := range keys {
		key, err := parsePublicKey(data)
		if err != nil {
			return nil, fmt.Errorf("trusted key %s: %w", name, err)
		}
		known, err := newSignatory(name, key)
		if err != nil {
			return nil, fmt.Errorf("trusted key %s: %w", name, err)
		}
		trust.keys[key.id] = known
		byID[key.id] = root.NewExpiringKey(known.verifier, time.Time{}, time.Time{})
	}
	for _, identity := range identities {
		trust.identities[identity] = struct{}{}
	}
	if len(trust.keys)+len(trust.identities) == 0 {
		return nil, errors.New("no trusted key and no trusted identity")
	}
	trust.material = root.TrustedMaterialCollection{trustedRoot, root.NewTrustedPublicKeyMaterialFromMapping(byID)}
	return trust, nil
}

// VerifyEnvelope checks the signature of an envelope that is not logged yet, and returns the name of who signed.
func (t *Trust) VerifyEnvelope(envelope []byte) (string, error) {
	parsed, err := ParseEnvelope(envelope)
	if err != nil {
		return "", err
	}
	by, err := t.signatory(parsed.credential())
	if err != nil {
		return "", err
	}
	if err := by.verify(parsed); err != nil {
		return "", err
	}
	return by.name, nil
}

// Verify checks a bundle without any connection: the signature by a trusted key, or by the key of a certificate that
// a trusted authority issued to a trusted identity and that was valid at the timestamp; one entry of the trusted log
// that holds this signature; and one timestamp of the trusted authority over it.
func (t *Trust) Verify(bundleJSON []byte) (Verified, error) {
	parsed, err := parseBundle(bundleJSON)
	if err != nil {
		return Verified{}, err
	}
	result, err := t.verifyBundle(parsed)
	if err != nil {
		return Verified{}, err
	}
	if err := checkProofs(parsed.Bundle); err != nil {
		return Verified{}, fmt.Errorf("verify bundle: %w", err)
	}
	by, err := t.signatory(credentialOf(parsed))
	if err != nil {
		return Verified{}, err
	}
	return verified(parsed, result, by), nil
}

func parseBundle(bundleJSON []byte) (*bundle.Bundle, error) {
	var parsed bundle.Bundle
	if err := parsed.UnmarshalJSON(bundleJSON); err != nil {
		return nil, fmt.Errorf("parse bundle: %w", err)
	}
	return &parsed, nil
}

func credentialOf(parsed *bundle.Bundle) Credential {
	material := parsed.GetVerificationMaterial()
	return Credential{KeyID: material.GetPublicKey().GetHint(), Certificate: material.GetCertificate().GetRawBytes()}
}

func verified(parsed *bundle.Bundle, result *verify.VerificationResult, by signatory) Verified {
	return Verified{
		Payload:   parsed.GetDsseEnvelope().GetPayload(),
		Signer:    by.name,
		Issuer:    by.issuer,
		LogIndex:  parsed.GetVerificationMaterial().GetTlogEntries()[0].GetLogIndex(),
		Timestamp: result.VerifiedTimestamps[0].Timestamp.UTC(),
	}
}

func (t *Trust) verifyBundle(parsed *bundle.Bundle) (*verify.VerificationResult, error) {
	expected := []verify.PolicyOption{verify.WithKey()}
	if parsed.GetVerificationMaterial().GetCertificate() != nil {
		identities, err := policy(t.identities)
		if err != nil {
			return nil, err
		}
		if len(identities) == 0 {
			return nil, fmt.Errorf("verify bundle: no identity is trusted: %w", ErrUnknownKey)
		}
		expected = identities
	}
	return verifyWith(parsed, t.material, expected...)
}

// verifyWith checks signature, log and time with what is to be believed, and who signed as is expected.
func verifyWith(
	parsed *bundle.Bundle, material root.TrustedMaterial, expected ...verify.PolicyOption,
) (*verify.VerificationResult, error) {
	verifier, err := verify.NewVerifier(material, verify.WithTransparencyLog(1), verify.WithSignedTimestamps(1))
	if err != nil {
		return nil, fmt.Errorf("make verifier: %w", err)
	}
	// The artifacts are the statement's subjects; whoever holds one compares it with the payload.
	result, err := verifier.Verify(parsed, verify.NewPolicy(verify.WithoutArtifactUnsafe(), expected...))
	if err != nil {
		return nil, fmt.Errorf("verify bundle: %w", err)
	}
	return result, nil
}
