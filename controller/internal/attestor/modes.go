package attestor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
)

// What the Deployment mounts: one projected ServiceAccount token for each server that it is shown to, named by its
// audience.
const (
	identityDir   = "/var/run/ugallu/identity"
	sigstoreToken = "sigstore"
	openBaoToken  = "openbao"
)

// settings is all that signer and log of one mode are made from.
type settings struct {
	mode                             v1alpha1.SigningMode
	transit                          attest.TransitConfig
	keyless                          attest.KeylessConfig
	rekorURL, timestampURL, caBundle string
}

// maxModes is how many there are.
const maxModes = 2

// listed are the modes of a spec. What the API server's schema refuses is refused here as well: a definition of an older
// version may be in place.
func listed(spec *v1alpha1.AttestorConfigSpec) ([]v1alpha1.SigningMode, error) {
	modes := spec.SigningModes
	if len(modes) == 0 || len(modes) > maxModes || len(modes) == maxModes && modes[0] == modes[1] {
		return nil, fmt.Errorf("spec.signingModes lists %q: it takes one or both of %s and %s, each once",
			modes, v1alpha1.SigningFulcioKeyless, v1alpha1.SigningOpenBaoTransit)
	}
	for _, mode := range modes {
		if missing := missingBlock(spec, mode); missing != nil {
			return nil, missing
		}
	}
	return modes, nil
}

// missingBlock says what a spec lacks for a mode; nil where it has the servers for it.
func missingBlock(spec *v1alpha1.AttestorConfigSpec, mode v1alpha1.SigningMode) error {
	switch mode {
	case v1alpha1.SigningOpenBaoTransit:
		if spec.Transit == nil {
			return errors.New("spec.transit is missing: openbao-transit needs its address and key")
		}
	case v1alpha1.SigningFulcioKeyless:
		if spec.Fulcio == nil || spec.Fulcio.URL == "" {
			return errors.New("spec.fulcio is missing: fulcio-keyless needs its url")
		}
	default:
		return fmt.Errorf("spec.signingModes lists %q, which this attestor does not know", mode)
	}
	return nil
}

// settings of a spec for one mode, which need not be listed: what was begun in it is finished.
func (c *Configuration) settings(spec *v1alpha1.AttestorConfigSpec, mode v1alpha1.SigningMode) settings {
	wanted := settings{mode: mode, rekorURL: spec.RekorURL, timestampURL: spec.TimestampURL, caBundle: spec.CABundle}
	switch {
	case missingBlock(spec, mode) != nil:
		wanted.mode = ""
	case mode == v1alpha1.SigningOpenBaoTransit:
		wanted.transit = c.transit(spec)
	default:
		wanted.keyless = attest.KeylessConfig{
			URL: spec.Fulcio.URL, Audience: spec.Fulcio.Audience, TokenFile: c.identity(sigstoreToken), CABundle: spec.CABundle,
		}
	}
	return wanted
}

func (c *Configuration) transit(spec *v1alpha1.AttestorConfigSpec) attest.TransitConfig {
	wanted := attest.TransitConfig{
		Address: spec.Transit.Address, Mount: spec.Transit.Mount, Key: spec.Transit.Key, TokenFile: c.TokenFile,
		CABundle: spec.CABundle,
	}
	if auth := spec.Transit.KubernetesAuth; auth != nil {
		wanted.Role, wanted.AuthMount, wanted.TokenFile = auth.Role, auth.Mount, c.identity(openBaoToken)
	}
	return wanted
}

func (c *Configuration) identity(name string) string {
	if c.IdentityDir != "" {
		return filepath.Join(c.IdentityDir, name)
	}
	return filepath.Join(identityDir, name)
}

func (s settings) signer() (attest.Signer, error) {
	switch s.mode {
	case v1alpha1.SigningFulcioKeyless:
		return attest.NewKeyless(s.keyless)
	case v1alpha1.SigningOpenBaoTransit:
		return attest.NewTransit(s.transit)
	}
	return nobody{}, nil
}

// nobody is the signer of a mode that is gone.
type nobody struct{}

// Sign refuses.
func (nobody) Sign(context.Context, []byte) (attest.Signature, error) {
	return attest.Signature{}, ErrModeWithdrawn
}

// Credential refuses.
func (nobody) Credential(context.Context) (attest.Credential, error) {
	return attest.Credential{}, ErrModeWithdrawn
}
