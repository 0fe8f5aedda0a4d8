package attestor

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
)

// Configuration reads the AttestorConfig and what it points to, anew each time. Nothing of it is fetched from outside
// the cluster.
type Configuration struct {
	// Reader of the AttestorConfig; a cache will do.
	Reader client.Reader
	// Direct reads the ConfigMap past the cache, which would watch every ConfigMap.
	Direct client.Reader
	// TokenFile holds the transit engine's own token.
	TokenFile string
	// IdentityDir holds the pod's projected ServiceAccount tokens; empty for where the Deployment mounts them.
	IdentityDir string

	mutex  sync.Mutex
	built  settings
	signer attest.Signer
	log    attest.Log
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
	wanted, err := c.settings(&config.Spec)
	if err != nil {
		return nil, err
	}
	signer, log, err := c.connect(wanted)
	if err != nil {
		return nil, err
	}
	trust, err := c.trust(ctx, config)
	if err != nil {
		return nil, err
	}
	return &attest.Notary{Signer: signer, Log: log, Trust: trust}, nil
}

// connect keeps signer and log as long as the settings are the same, so that their connections are.
func (c *Configuration) connect(wanted settings) (attest.Signer, attest.Log, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.signer != nil && c.built == wanted {
		return c.signer, c.log, nil
	}
	signer, err := wanted.signer()
	if err != nil {
		return nil, attest.Log{}, err
	}
	log, err := attest.NewLog(wanted.rekorURL, wanted.timestampURL, wanted.caBundle)
	if err != nil {
		return nil, attest.Log{}, err
	}
	c.built, c.signer, c.log = wanted, signer, log
	return signer, log, nil
}

func (c *Configuration) trust(ctx context.Context, config *v1alpha1.AttestorConfig) (*attest.Trust, error) {
	var stored corev1.ConfigMap
	name := client.ObjectKey{Namespace: config.Namespace, Name: config.Spec.TrustedRootConfigMap}
	if err := c.Direct.Get(ctx, name, &stored); err != nil {
		return nil, fmt.Errorf("read trusted root: %w", err)
	}
	trust, err := attest.ParseTrust(stored.Data)
	if err != nil {
		return nil, fmt.Errorf("load ConfigMap %s: %w", name, err)
	}
	return trust, nil
}
