package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

// publicKey is a trusted or signing key with the identifier that bundles carry as its hint.
type publicKey struct {
	key *ecdsa.PublicKey
	der []byte
	id  string
}

// parsePublicKey takes PKIX PEM.
func parsePublicKey(data []byte) (publicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return publicKey{}, errors.New("public key is not PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return publicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	return newPublicKey(parsed)
}

// newPublicKey takes a P-256 key, the one kind whose signatures the log's entries are made for here.
func newPublicKey(of crypto.PublicKey) (publicKey, error) {
	key, ok := of.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return publicKey{}, errors.New("public key is not ECDSA P-256")
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return publicKey{}, fmt.Errorf("marshal public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return publicKey{key: key, der: der, id: base64.StdEncoding.EncodeToString(sum[:])}, nil
}
