package servers

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/openbao/openbao/api/v2"
)

// ensureTransitKey makes the attestor's key when it is not there and returns the public key of each of its versions in
// PEM. An old version's signatures stay valid after a rotation.
func ensureTransitKey(ctx context.Context, address, token string) (map[string]string, error) {
	settings := api.NewConfig()
	settings.Address, settings.DisableEnvironment = "http://"+address, true
	bao, err := api.NewClient(settings)
	if err != nil {
		return nil, fmt.Errorf("make a client of the transit engine: %w", err)
	}
	bao.SetToken(token)
	const path = "transit/keys/" + attestorKeyName
	key, err := bao.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("read transit key %s: %w", attestorKeyName, err)
	}
	if key == nil {
		if key, err = bao.Logical().WriteWithContext(ctx, path, map[string]any{"type": "ecdsa-p256"}); err != nil {
			return nil, fmt.Errorf("create transit key %s: %w", attestorKeyName, err)
		}
	}
	return publicKeys(key.Data)
}

func publicKeys(data map[string]any) (map[string]string, error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("read transit key %s: %w", attestorKeyName, err)
	}
	var description struct {
		Keys map[string]struct {
			PublicKey string `json:"public_key"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(raw, &description); err != nil {
		return nil, fmt.Errorf("parse transit key %s: %w", attestorKeyName, err)
	}
	versions := make(map[string]string, len(description.Keys))
	for version, key := range description.Keys {
		if key.PublicKey == "" {
			return nil, fmt.Errorf("version %s of transit key %s has no public key", version, attestorKeyName)
		}
		versions[version] = key.PublicKey
	}
	if len(versions) == 0 {
		return nil, fmt.Errorf("transit key %s has no version", attestorKeyName)
	}
	return versions, nil
}
