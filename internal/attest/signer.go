package attest

import (
	"context"
	"errors"
)

var (
	// ErrToken is returned where the token that a signer authenticates with cannot be used as it is.
	ErrToken = errors.New("token cannot be used")
	// ErrRefused is returned where a server answers that it does not accept this caller.
	ErrRefused = errors.New("refused by the server")
	// ErrClock is returned where two clocks disagree by so much that no certificate can be relied on.
	ErrClock = errors.New("clocks disagree")
	// ErrShortLived is returned where a certificate lives for less than clocks may differ by.
	ErrShortLived = errors.New("the certificate lives too short")
)

// Credential names who makes a signature.
type Credential struct {
	// KeyID is base64 of the sha256 of the public key in PKIX DER: it names one version of one key.
	KeyID string
	// Certificate in DER that binds the key to an identity; empty where the key itself is trusted.
	Certificate []byte
	// Label says for people where the key is and which version of it.
	Label string
}

// Signature is a signature over a DSSE pre-authentication encoding.
type Signature struct {
	Credential
	Bytes []byte
}

// Signer holds a signing identity.
type Signer interface {
	// Sign signs data itself, not its digest.
	Sign(ctx context.Context, data []byte) (Signature, error)
	// Credential is what Sign would sign with now. It has asked the servers that Sign needs.
	Credential(ctx context.Context) (Credential, error)
}
