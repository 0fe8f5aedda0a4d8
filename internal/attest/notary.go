package attest

import (
	"context"
	"errors"
)

// Notary signs, logs and verifies with one configuration.
type Notary struct {
	Signer Signer
	Log    Log
	Trust  *Trust
}

// Sign returns the envelope of a statement and the name of the trusted key that signed it. A signature by a key that
// nobody trusts is refused here, before anything of it is kept.
func (n *Notary) Sign(ctx context.Context, statement []byte) (envelope []byte, signer string, err error) {
	envelope, err = Sign(ctx, n.Signer, statement)
	if err != nil {
		return nil, "", err
	}
	signer, err = n.Trust.VerifyEnvelope(envelope)
	if err != nil {
		return nil, "", err
	}
	return envelope, signer, nil
}

// Publish logs an envelope and returns its bundle, as Log.Add.
func (n *Notary) Publish(ctx context.Context, envelope []byte) ([]byte, error) {
	return n.Log.Add(ctx, envelope, n.Trust)
}

// Verify checks a bundle offline, as Trust.Verify.
func (n *Notary) Verify(bundle []byte) (Verified, error) { return n.Trust.Verify(bundle) }

// keyHolder is a Signer that can name its key without signing.
type keyHolder interface {
	KeyID(ctx context.Context) (string, error)
}

// Check tells whether the signer can be reached and its key is trusted, and returns the key's name.
func (n *Notary) Check(ctx context.Context) (string, error) {
	holder, ok := n.Signer.(keyHolder)
	if !ok {
		return "", errors.New("signer does not name its key")
	}
	id, err := holder.KeyID(ctx)
	if err != nil {
		return "", err
	}
	key, err := n.Trust.trusted(id)
	if err != nil {
		return "", err
	}
	return key.name, nil
}
