package attest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/sign"
)

// maxClockDifference between this machine and the certificate authority. A certificate lives ten minutes: this is far
// below it, and far above what a synchronized clock is off by.
const maxClockDifference = time.Minute

// KeylessConfig names a Fulcio certificate authority and the token that it certifies the bearer of.
type KeylessConfig struct {
	// URL of the authority.
	URL string
	// Audience that the token must have.
	Audience string
	// TokenFile is read anew for each certificate.
	TokenFile string
	// CABundle in PEM that the authority's TLS certificate must chain to; the system's roots when empty.
	CABundle string
}

// Keyless signs each statement with a key of its own, which a certificate authority binds to the identity in a token
// for a few minutes and which is forgotten at once.
type Keyless struct {
	config    KeylessConfig
	authority sign.CertificateProvider
}

// NewKeyless does not connect.
func NewKeyless(config KeylessConfig) (*Keyless, error) {
	settings, err := tlsConfig(config.CABundle)
	if err != nil {
		return nil, err
	}
	transport, err := newTransport(settings)
	if err != nil {
		return nil, err
	}
	// The caller's queue repeats, with back-off.
	authority := sign.NewFulcio(&sign.FulcioOptions{BaseURL: config.URL, Timeout: requestTimeout, Transport: transport})
	return &Keyless{config: config, authority: authority}, nil
}

// Sign signs with a new key and a new certificate.
func (k *Keyless) Sign(ctx context.Context, data []byte) (Signature, error) {
	key, credential, err := k.certify(ctx)
	if err != nil {
		return Signature{}, err
	}
	raw, _, err := key.SignData(ctx, data)
	if err != nil {
		return Signature{}, fmt.Errorf("sign with a new key: %w", err)
	}
	return Signature{Credential: credential, Bytes: raw}, nil
}

// Credential gets a certificate that signs nothing.
func (k *Keyless) Credential(ctx context.Context) (Credential, error) {
	_, credential, err := k.certify(ctx)
	return credential, err
}

func (k *Keyless) certify(ctx context.Context) (sign.Keypair, Credential, error) {
	token, err := readIdentityToken(k.config.TokenFile, k.config.Audience, time.Now())
	if err != nil {
		return nil, Credential{}, err
	}
	key, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		return nil, Credential{}, fmt.Errorf("make a key: %w", err)
	}
	certificate, err := k.authority.GetCertificate(ctx, key, &sign.CertificateProviderOptions{IDToken: token})
	if err != nil {
		return nil, Credential{}, k.explain(err)
	}
	if err := checkCertificate(certificate, time.Now()); err != nil {
		return nil, Credential{}, fmt.Errorf("certificate from %s: %w", k.config.URL, err)
	}
	label := "certificate from " + k.config.URL
	return key, Credential{KeyID: string(key.GetHint()), Certificate: certificate, Label: label}, nil
}

// explain tells a token that the authority does not accept from an authority that is away.
func (k *Keyless) explain(err error) error {
	if status, ok := errors.AsType[*statusError](err); ok && status.refused() {
		return fmt.Errorf("get certificate from %s for the token with audience %q: %w: let the authority's configuration "+
			"name the token's issuer with this audience as its client-id: %w", k.config.URL, k.config.Audience, ErrRefused, err)
	}
	return fmt.Errorf("get certificate from %s: %w", k.config.URL, err)
}

// checkCertificate compares the time of issue with ours: bundles can only be right if both clocks are. Of a certificate that
// lives for less than both may differ, nothing could be shown to lie within its life.
func checkCertificate(der []byte, now time.Time) error {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("parse certificate: %w", err)
	}
	if ahead := certificate.NotBefore.Sub(now); ahead.Abs() > maxClockDifference {
		return fmt.Errorf("%w: issued at %s, here it is %s: synchronize the clocks of both",
			ErrClock, certificate.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if lives := certificate.NotAfter.Sub(certificate.NotBefore); lives < 2*maxClockDifference {
		return fmt.Errorf("%w: it lives for %s, which must be %s at least: let the authority issue longer ones",
			ErrShortLived, lives, 2*maxClockDifference)
	}
	return nil
}
