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

	mutex sync.Mutex
	built map[v1alpha1.SigningMode]connection
}

// connection is what is kept of one mode as long as its settings are the same.
type connection struct {
	settings settings
	signer   attest.Signer
	log      attest.Log
}

// Modes that the AttestorConfig lists, in its order.
func (c *Configuration) Modes(ctx context.Context) ([]v1alpha1.SigningMode, error) {
	config, err := c.config(ctx)
	if err != nil {
		return nil, err
	}
	return listed(&config.Spec)
}

// Notary signs in one mode as the AttestorConfig says. Its Sign returns ErrModeWithdrawn where that says nothing of it.
func (c *Configuration) Notary(ctx context.Context, mode v1alpha1.SigningMode) (*attest.Notary, error) {
	config, err := c.config(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := listed(&config.Spec); err != nil {
		return nil, err
	}
	return c.notary(ctx, config, mode)
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

func (c *Configuration) notary(
	ctx context.Context, config *v1alpha1.AttestorConfig, mode v1alpha1.SigningMode,
) (*attest.Notary, error) {
	connected, err := c.connect(c.settings(&config.Spec, mode), mode)
	if err != nil {
		return nil, err
	}
	trust, err := c.trust(ctx, config)
	if err != nil {
		return nil, err
	}
	return &attest.Notary{Signer: connected.signer, Log: connected.log, Trust: trust}, nil
}

// connect keeps signer and log as long as the settings are the same, so that their connections are.
func (c *Configuration) connect(wanted settings, mode v1alpha1.SigningMode) (connection, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if kept, ok := c.built[mode]; ok && kept.settings == wanted {
		return kept, nil
	}
	signer, err := wanted.signer()
	if err != nil {
		return connection{}, err
	}
	log, err := attest.NewLog(wanted.rekorURL, wanted.timestampURL, wanted.caBundle)
	if err != nil {
		return connection{}, err
	}
	if c.built == nil {
		c.built = map[v1alpha1.SigningMode]connection{}
	}
	c.built[mode] = connection{settings: wanted, signer: signer, log: log}
	return c.built[mode], nil
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
