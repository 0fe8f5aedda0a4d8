package attest

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

// signatory is somebody whose signatures are trusted, by their key or by a certificate.
type signatory struct {
	// name of the key, or the certificate's identity.
	name string
	// issuer that vouches for the identity; empty for a key.
	issuer string
	// pem of the key or the certificate, whichever the log gets.
	pem      []byte
	verifier signature.Verifier
	// certificate is nil for a key.
	certificate *x509.Certificate
}

func newSignatory(name string, key publicKey) (signatory, error) {
	verifier, err := signature.LoadVerifier(key.key, crypto.SHA256)
	if err != nil {
		return signatory{}, fmt.Errorf("load verifier: %w", err)
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: key.der})
	return signatory{name: name, pem: encoded, verifier: verifier}, nil
}

func (s signatory) verify(envelope Envelope) error {
	signed := bytes.NewReader(preAuthEncoding(envelope.Payload))
	if err := s.verifier.VerifySignature(bytes.NewReader(envelope.Signatures[0].Sig), signed); err != nil {
		return fmt.Errorf("verify envelope with key %s: %w", s.name, err)
	}
	return nil
}

// signatory of a credential that is trusted. ErrUnknownKey: it is not.
func (t *Trust) signatory(credential Credential) (signatory, error) {
	if len(credential.Certificate) > 0 {
		return t.certified(credential.Certificate)
	}
	known, ok := t.keys[credential.KeyID]
	if !ok {
		return signatory{}, fmt.Errorf("key %q: %w", credential.KeyID, ErrUnknownKey)
	}
	return known, nil
}

func readCertificate(der []byte) (*x509.Certificate, Identity, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, Identity{}, fmt.Errorf("parse certificate: %w", err)
	}
	summary, err := certificate.SummarizeCertificate(leaf)
	if err != nil {
		return nil, Identity{}, fmt.Errorf("read certificate: %w", err)
	}
	return leaf, Identity{Name: summary.SubjectAlternativeName, Issuer: summary.Issuer}, nil
}

// certified looks at a certificate as of the moment it was issued: whether it was still valid when it signed is what
// the timestamp tells.
func (t *Trust) certified(der []byte) (signatory, error) {
	leaf, identity, err := readCertificate(der)
	if err != nil {
		return signatory{}, err
	}
	if _, err := verify.VerifyLeafCertificate(leaf.NotBefore, leaf, t.material); err != nil {
		return signatory{}, fmt.Errorf("certificate of %s is from no authority of the trusted root: %w", identity.Name, ErrUnknownKey)
	}
	if _, ok := t.identities[identity]; !ok {
		return signatory{}, fmt.Errorf("identity %s of issuer %s: %w", identity.Name, identity.Issuer, ErrUnknownKey)
	}
	key, err := newPublicKey(leaf.PublicKey)
	if err != nil {
		return signatory{}, fmt.Errorf("certificate of %s: %w", identity.Name, err)
	}
	found, err := newSignatory(identity.Name, key)
	if err != nil {
		return signatory{}, err
	}
	found.issuer, found.certificate = identity.Issuer, leaf
	found.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return found, nil
}
