package attest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/openbao/openbao/api/v2"
)

// requestTimeout bounds each request to a signer, a log or a time-stamping authority.
const requestTimeout = 15 * time.Second

// Transit signs with a key that never leaves a transit engine (OpenBao, or another with the same API).
type Transit struct {
	client    *api.Client
	mount     string
	key       string
	tokenFile string
}

// TransitConfig names a key in a transit engine.
type TransitConfig struct {
	// Address with scheme.
	Address string
	// Mount path of the engine.
	Mount string
	// Key name. It must be of type ecdsa-p256.
	Key string
	// TokenFile is read at every signature, so that a renewed token counts at once.
	TokenFile string
}

// NewTransit does not connect. The environment of the process is ignored.
func NewTransit(config TransitConfig) (*Transit, error) {
	settings := api.NewConfig()
	settings.Address = config.Address
	settings.DisableEnvironment = true
	settings.Timeout = requestTimeout
	settings.MaxRetries = 0 // the caller's queue repeats, with back-off
	client, err := api.NewClient(settings)
	if err != nil {
		return nil, fmt.Errorf("make client of transit engine %s: %w", config.Address, err)
	}
	return &Transit{client: client, mount: config.Mount, key: config.Key, tokenFile: config.TokenFile}, nil
}

// Sign signs data with the newest version of the key.
func (t *Transit) Sign(ctx context.Context, data []byte) (Signature, error) {
	client, err := t.authenticated()
	if err != nil {
		return Signature{}, err
	}
	digest := sha256.Sum256(data)
	secret, err := client.Logical().WriteWithContext(ctx, t.mount+"/sign/"+t.key+"/sha2-256", map[string]any{
		"input":                base64.StdEncoding.EncodeToString(digest[:]),
		"prehashed":            true,
		"marshaling_algorithm": "asn1",
	})
	if err != nil {
		return Signature{}, fmt.Errorf("sign with transit key %s: %w", t.key, err)
	}
	version, raw, err := parseTransitSignature(secret)
	if err != nil {
		return Signature{}, fmt.Errorf("sign with transit key %s: %w", t.key, err)
	}
	public, err := t.publicKey(ctx, client, version)
	if err != nil {
		return Signature{}, err
	}
	return Signature{Bytes: raw, KeyID: public.id}, nil
}

// authenticated is a client of its own for one signature: a token may change between two of them.
func (t *Transit) authenticated() (*api.Client, error) {
	token, err := os.ReadFile(t.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("read transit token: %w", err)
	}
	client, err := t.client.Clone()
	if err != nil {
		return nil, fmt.Errorf("clone transit client: %w", err)
	}
	client.SetToken(strings.TrimSpace(string(token)))
	return client, nil
}

// KeyID names the newest version of the key.
func (t *Transit) KeyID(ctx context.Context) (string, error) {
	client, err := t.authenticated()
	if err != nil {
		return "", err
	}
	description, err := t.describe(ctx, client)
	if err != nil {
		return "", err
	}
	key, err := description.version(description.Latest.String())
	if err != nil {
		return "", fmt.Errorf("read transit key %s: %w", t.key, err)
	}
	return key.id, nil
}

// publicKey of one version: a rotation between the signature and this request changes nothing.
func (t *Transit) publicKey(ctx context.Context, client *api.Client, version string) (publicKey, error) {
	description, err := t.describe(ctx, client)
	if err != nil {
		return publicKey{}, err
	}
	key, err := description.version(version)
	if err != nil {
		return publicKey{}, fmt.Errorf("read transit key %s: %w", t.key, err)
	}
	return key, nil
}

// keyDescription is what an engine says of a key.
type keyDescription struct {
	Latest json.Number `json:"latest_version"`
	Keys   map[string]struct {
		PublicKey string `json:"public_key"`
	} `json:"keys"`
}

func (d keyDescription) version(version string) (publicKey, error) {
	key, err := parsePublicKey([]byte(d.Keys[version].PublicKey))
	if err != nil {
		return publicKey{}, fmt.Errorf("version %s: %w", version, err)
	}
	return key, nil
}

func (t *Transit) describe(ctx context.Context, client *api.Client) (keyDescription, error) {
	secret, err := client.Logical().ReadWithContext(ctx, t.mount+"/keys/"+t.key)
	if err != nil {
		return keyDescription{}, fmt.Errorf("read transit key %s: %w", t.key, err)
	}
	if secret == nil {
		return keyDescription{}, fmt.Errorf("read transit key %s: no such key", t.key)
	}
	data, err := json.Marshal(secret.Data)
	if err != nil {
		return keyDescription{}, fmt.Errorf("read transit key %s: %w", t.key, err)
	}
	var description keyDescription
	if err := json.Unmarshal(data, &description); err != nil {
		return keyDescription{}, fmt.Errorf("read transit key %s: %w", t.key, err)
	}
	return description, nil
}

// parseTransitSignature splits vault:v<version>:<base64>.
func parseTransitSignature(secret *api.Secret) (version string, raw []byte, err error) {
	if secret == nil {
		return "", nil, errors.New("empty answer")
	}
	text, ok := secret.Data["signature"].(string)
	if !ok {
		return "", nil, errors.New("answer has no signature")
	}
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 || !strings.HasPrefix(parts[1], "v") {
		return "", nil, errors.New("signature is not of the form vault:v<version>:<base64>")
	}
	raw, err = base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return "", nil, fmt.Errorf("decode signature: %w", err)
	}
	return strings.TrimPrefix(parts[1], "v"), raw, nil
}
