package attestor

import (
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

// settings is all that signer and log are made from.
type settings struct {
	mode                             v1alpha1.SigningMode
	transit                          attest.TransitConfig
	keyless                          attest.KeylessConfig
	rekorURL, timestampURL, caBundle string
}

// settings of a spec. What the API server's schema refuses is refused here as well: a definition of an older version
// may be in place.
func (c *Configuration) settings(spec *v1alpha1.AttestorConfigSpec) (settings, error) {
	wanted := settings{rekorURL: spec.RekorURL, timestampURL: spec.TimestampURL, caBundle: spec.CABundle}
	if len(spec.SigningModes) != 1 {
		return settings{}, fmt.Errorf("spec.signingModes lists %d modes: it takes one", len(spec.SigningModes))
	}
	wanted.mode = spec.SigningModes[0]
	switch wanted.mode {
	case v1alpha1.SigningOpenBaoTransit:
		if spec.Transit == nil {
			return settings{}, errors.New("spec.transit is missing: openbao-transit needs its address and key")
		}
		wanted.transit = c.transit(spec)
	case v1alpha1.SigningFulcioKeyless:
		if spec.Fulcio == nil || spec.Fulcio.URL == "" {
			return settings{}, errors.New("spec.fulcio is missing: fulcio-keyless needs its url")
		}
		wanted.keyless = attest.KeylessConfig{
			URL: spec.Fulcio.URL, Audience: spec.Fulcio.Audience, TokenFile: c.identity(sigstoreToken), CABundle: spec.CABundle,
		}
	default:
		return settings{}, fmt.Errorf("spec.signingModes lists %q, which this attestor does not know", wanted.mode)
	}
	return wanted, nil
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
	if s.mode == v1alpha1.SigningFulcioKeyless {
		return attest.NewKeyless(s.keyless)
	}
	return attest.NewTransit(s.transit)
}
