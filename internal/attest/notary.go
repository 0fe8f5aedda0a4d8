package attest

import (
	"context"
	"fmt"
)

// Notary signs, logs and verifies with one configuration.
type Notary struct {
	Signer Signer
	Log    Log
	Trust  *Trust
}

// Sign returns the envelope of a statement and the name of the trusted key or identity that signed it. A signature by
// anybody else is refused here with ErrUnknownKey, before anything of it is kept. ErrToken, ErrRefused, ErrClock and
// ErrShortLived need a change of the configuration; any other error is an outage.
func (n *Notary) Sign(ctx context.Context, statement []byte) (envelope []byte, signer string, err error) {
	signature, err := n.Signer.Sign(ctx, preAuthEncoding(statement))
	if err != nil {
		return nil, "", fmt.Errorf("sign statement: %w", err)
	}
	if _, err := n.trusted(signature.Credential); err != nil {
		return nil, "", err
	}
	if envelope, err = newEnvelope(statement, signature); err != nil {
		return nil, "", err
	}
	if signer, err = n.Trust.VerifyEnvelope(envelope); err != nil {
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

// Check tells whether the signer can be reached and is trusted, and returns its name. Errors are those of Sign.
func (n *Notary) Check(ctx context.Context) (string, error) {
	credential, err := n.Signer.Credential(ctx)
	if err != nil {
		return "", err
	}
	return n.trusted(credential)
}

func (n *Notary) trusted(credential Credential) (string, error) {
	found, err := n.Trust.signatory(credential)
	if err != nil {
		return "", fmt.Errorf("%s: %w", credential.Label, err)
	}
	return found.name, nil
}
