package attest

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

// ErrUnknownKey is returned where a signature names a key that is not trusted.
var ErrUnknownKey = errors.New("key is not trusted")

// Trust is what a verifier believes in: the log, the time-stamping authority and the signing keys.
type Trust struct {
	material root.TrustedMaterialCollection
	keys     map[string]trustedKey // by key id
}

type trustedKey struct {
	publicKey
	name     string
	verifier signature.Verifier
}

// Verified is what a bundle proves.
type Verified struct {
	// Payload is the statement that was signed.
	Payload []byte
	// Signer is the name of the trusted key that signed.
	Signer string
	// LogIndex of the entry in the transparency log.
	LogIndex int64
	// Timestamp by the time-stamping authority.
	Timestamp time.Time
}

// LoadTrust takes a Sigstore trusted root in JSON and PEM public keys by name. It fetches nothing.
func LoadTrust(trustedRootJSON []byte, keys map[string][]byte) (*Trust, error) {
	trustedRoot, err := root.NewTrustedRootFromJSON(trustedRootJSON)
	if err != nil {
		return nil, fmt.Errorf("parse trusted root: %w", err)
	}
	trust := &Trust{keys: map[string]trustedKey{}}
	byID := map[string]*root.ExpiringKey{}
	for name, data := range keys {
		key, err := parsePublicKey(data)
		if err != nil {
			return nil, fmt.Errorf("trusted key %s: %w", name, err)
		}
		verifier, err := signature.LoadVerifier(key.key, crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("trusted key %s: %w", name, err)
		}
		trust.keys[key.id] = trustedKey{publicKey: key, name: name, verifier: verifier}
		byID[key.id] = root.NewExpiringKey(verifier, time.Time{}, time.Time{})
	}
	if len(trust.keys) == 0 {
		return nil, errors.New("no trusted key")
	}
	trust.material = root.TrustedMaterialCollection{trustedRoot, root.NewTrustedPublicKeyMaterialFromMapping(byID)}
	return trust, nil
}

// VerifyEnvelope checks the signature of an envelope that is not logged yet, and returns the name of the key.
func (t *Trust) VerifyEnvelope(envelope []byte) (string, error) {
	parsed, err := ParseEnvelope(envelope)
	if err != nil {
		return "", err
	}
	key, err := t.trusted(parsed.Signatures[0].KeyID)
	if err != nil {
		return "", err
	}
	signed := bytes.NewReader(preAuthEncoding(parsed.Payload))
	if err := key.verifier.VerifySignature(bytes.NewReader(parsed.Signatures[0].Sig), signed); err != nil {
		return "", fmt.Errorf("verify envelope with key %s: %w", key.name, err)
	}
	return key.name, nil
}

// Verify checks a bundle without any connection: the signature by a trusted key, one entry of the trusted log that
// holds this signature, and one timestamp of the trusted authority over it.
func (t *Trust) Verify(bundleJSON []byte) (Verified, error) {
	var parsed bundle.Bundle
	if err := parsed.UnmarshalJSON(bundleJSON); err != nil {
		return Verified{}, fmt.Errorf("parse bundle: %w", err)
	}
	verifier, err := verify.NewVerifier(t.material, verify.WithTransparencyLog(1), verify.WithSignedTimestamps(1))
	if err != nil {
		return Verified{}, fmt.Errorf("make verifier: %w", err)
	}
	// The artifacts are the statement's subjects; whoever holds one compares it with the payload.
	result, err := verifier.Verify(&parsed, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithKey()))
	if err != nil {
		return Verified{}, fmt.Errorf("verify bundle: %w", err)
	}
	key, err := t.trusted(parsed.GetVerificationMaterial().GetPublicKey().GetHint())
	if err != nil {
		return Verified{}, err
	}
	if err := checkProofs(parsed.Bundle); err != nil {
		return Verified{}, fmt.Errorf("verify bundle: %w", err)
	}
	return Verified{
		Payload:   parsed.GetDsseEnvelope().GetPayload(),
		Signer:    key.name,
		LogIndex:  parsed.GetVerificationMaterial().GetTlogEntries()[0].GetLogIndex(),
		Timestamp: result.VerifiedTimestamps[0].Timestamp.UTC(),
	}, nil
}

func (t *Trust) key(id string) (publicKey, error) {
	key, err := t.trusted(id)
	return key.publicKey, err
}

func (t *Trust) trusted(id string) (trustedKey, error) {
	key, ok := t.keys[id]
	if !ok {
		return trustedKey{}, fmt.Errorf("key %q: %w", id, ErrUnknownKey)
	}
	return key, nil
}
