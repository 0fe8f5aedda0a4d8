package attest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/openbao/openbao/api/v2"
)

// Transit signs with a key that never leaves a transit engine (OpenBao, or another with the same API).
type Transit struct {
	client *api.Client
	mount  string
	key    string
	login  login
}

// TransitConfig names a key in a transit engine, and how to log in there.
type TransitConfig struct {
	// Address with scheme.
	Address string
	// Mount path of the engine.
	Mount string
	// Key name. It must be of type ecdsa-p256.
	Key string
	// TokenFile is read at every signature, so that a renewed token counts at once. It holds the engine's own token or,
	// with a role, the ServiceAccount token to log in with.
	TokenFile string
	// Role to log in as with Kubernetes authentication; empty for the engine's own token.
	Role string
	// AuthMount path of Kubernetes authentication.
	AuthMount string
	// CABundle in PEM that the engine's TLS certificate must chain to; the system's roots when empty.
	CABundle string
}

// NewTransit does not connect. The environment of the process is ignored.
func NewTransit(config TransitConfig) (*Transit, error) {
	settings := api.NewConfig()
	settings.Address = config.Address
	settings.DisableEnvironment = true
	settings.Timeout = requestTimeout
	settings.MaxRetries = 0 // the caller's queue repeats, with back-off
	if config.CABundle != "" {
		if err := settings.ConfigureTLS(&api.TLSConfig{CACertBytes: []byte(config.CABundle)}); err != nil {
			return nil, fmt.Errorf("trust the CA bundle: %w", err)
		}
	}
	client, err := api.NewClient(settings)
	if err != nil {
		return nil, fmt.Errorf("make client of transit engine %s: %w", config.Address, err)
	}
	return &Transit{client: client, mount: config.Mount, key: config.Key, login: newLogin(config)}, nil
}

// Sign signs data with the newest version of the key.
func (t *Transit) Sign(ctx context.Context, data []byte) (Signature, error) {
	client, err := t.authenticated(ctx)
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
		return Signature{}, t.explain("sign with", err)
	}
	version, raw, err := parseTransitSignature(secret)
	if err != nil {
		return Signature{}, fmt.Errorf("sign with transit key %s: %w", t.key, err)
	}
	// The version that signed, not the newest: a rotation between the two requests changes nothing.
	description, err := t.describe(ctx, client)
	if err != nil {
		return Signature{}, err
	}
	credential, err := t.credential(description, version)
	if err != nil {
		return Signature{}, err
	}
	return Signature{Credential: credential, Bytes: raw}, nil
}

// Credential is the newest version of the key.
func (t *Transit) Credential(ctx context.Context) (Credential, error) {
	client, err := t.authenticated(ctx)
	if err != nil {
		return Credential{}, err
	}
	description, err := t.describe(ctx, client)
	if err != nil {
		return Credential{}, err
	}
	return t.credential(description, description.Latest.String())
}

// authenticated is a client of its own for one signature: a token may change between two of them.
func (t *Transit) authenticated(ctx context.Context) (*api.Client, error) {
	client, err := t.client.Clone()
	if err != nil {
		return nil, fmt.Errorf("clone transit client: %w", err)
	}
	token, err := t.login.token(ctx, client)
	if err != nil {
		return nil, err
	}
	client.SetToken(token)
	return client, nil
}

// explain tells an engine that refuses from one that is away. A token that was refused is not used again.
func (t *Transit) explain(act string, err error) error {
	if denied(err) {
		t.login.forget()
		return fmt.Errorf("%s transit key %s: %w: %w", act, t.key, ErrRefused, err)
	}
	return fmt.Errorf("%s transit key %s: %w", act, t.key, err)
}

func (t *Transit) credential(of keyDescription, version string) (Credential, error) {
	key, err := of.version(version)
	if err != nil {
		return Credential{}, fmt.Errorf("read transit key %s: %w", t.key, err)
	}
	return Credential{KeyID: key.id, Label: "transit key " + t.key + ", version " + version}, nil
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
		return keyDescription{}, t.explain("read", err)
	}
	if secret == nil {
		return keyDescription{}, fmt.Errorf("read transit key %s: %w: no such key", t.key, ErrRefused)
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
