package attestor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
)

const (
	// keyTrustedRoot of the ConfigMap that AttestorConfig.spec.trustedRootConfigMap names.
	keyTrustedRoot = "trusted_root.json"
	// publicKeySuffix of its other keys: <name>.pub is one trusted signing key.
	publicKeySuffix = ".pub"
)

// errMode is returned where no signing mode listed can be used.
var errMode = errors.New("signingModes lists no mode that this attestor signs with: add openbao-transit")

// Configuration reads the AttestorConfig and what it points to. Nothing of it is fetched from outside the cluster.
type Configuration struct {
	// Reader of the AttestorConfig; a cache will do.
	Reader client.Reader
	// Direct reads the ConfigMap past the cache, which would watch every ConfigMap.
	Direct client.Reader
	// TokenFile holds the token for the transit engine.
	TokenFile string

	mutex   sync.Mutex
	transit *attest.Transit
	built   attest.TransitConfig
}

// Notary signs as the AttestorConfig says.
func (c *Configuration) Notary(ctx context.Context) (*attest.Notary, error) {
	config, err := c.config(ctx)
	if err != nil {
		return nil, err
	}
	return c.notary(ctx, config)
}

// Trust of the AttestorConfig, for whoever verifies only.
func (c *Configuration) Trust(ctx context.Context) (*attest.Trust, error) {
	config, err := c.config(ctx)
	if err != nil {
		return nil, err
	}
	return c.trust(ctx, config)
}

func (c *Configuration) config(ctx context.Context) (*v1alpha1.AttestorConfig, error) {
	var config v1alpha1.AttestorConfig
	name := client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName}
	if err := c.Reader.Get(ctx, name, &config); err != nil {
		return nil, fmt.Errorf("read AttestorConfig %s: %w", name, err)
	}
	return &config, nil
}

func (c *Configuration) notary(ctx context.Context, config *v1alpha1.AttestorConfig) (*attest.Notary, error) {
	if !slices.Contains(config.Spec.SigningModes, v1alpha1.SigningOpenBaoTransit) || config.Spec.Transit == nil {
		return nil, errMode
	}
	signer, err := c.signer(*config.Spec.Transit)
	if err != nil {
		return nil, err
	}
	trust, err := c.trust(ctx, config)
	if err != nil {
		return nil, err
	}
	return &attest.Notary{
		Signer: signer,
		Log:    attest.Log{RekorURL: config.Spec.RekorURL, TimestampURL: config.Spec.TimestampURL},
		Trust:  trust,
	}, nil
}

// signer is kept as long as the configuration is the same, so that its connections are.
func (c *Configuration) signer(transit v1alpha1.TransitConfig) (*attest.Transit, error) {
	wanted := attest.TransitConfig{
		Address: transit.Address, Mount: transit.Mount, Key: transit.Key, TokenFile: c.TokenFile,
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.transit != nil && c.built == wanted {
		return c.transit, nil
	}
	signer, err := attest.NewTransit(wanted)
	if err != nil {
		return nil, err
	}
	c.transit, c.built = signer, wanted
	return signer, nil
}

func (c *Configuration) trust(ctx context.Context, config *v1alpha1.AttestorConfig) (*attest.Trust, error) {
	var stored corev1.ConfigMap
	name := client.ObjectKey{Namespace: config.Namespace, Name: config.Spec.TrustedRootConfigMap}
	if err := c.Direct.Get(ctx, name, &stored); err != nil {
		return nil, fmt.Errorf("read trusted root: %w", err)
	}
	keys := map[string][]byte{}
	for _, entry := range slices.Sorted(maps.Keys(stored.Data)) {
		if key, ok := strings.CutSuffix(entry, publicKeySuffix); ok {
			keys[key] = []byte(stored.Data[entry])
		}
	}
	trust, err := attest.LoadTrust([]byte(stored.Data[keyTrustedRoot]), keys)
	if err != nil {
		return nil, fmt.Errorf("load ConfigMap %s: %w", name, err)
	}
	return trust, nil
}
