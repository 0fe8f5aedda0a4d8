package servers

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/openbao/openbao/api/v2"
)

// ensureTransitKey makes the attestor's key when it is not there and returns its newest public key in PEM.
func ensureTransitKey(ctx context.Context, address, token string) (string, error) {
	settings := api.NewConfig()
	settings.Address, settings.DisableEnvironment = "http://"+address, true
	bao, err := api.NewClient(settings)
	if err != nil {
		return "", fmt.Errorf("make a client of the transit engine: %w", err)
	}
	bao.SetToken(token)
	const path = "transit/keys/" + attestorKeyName
	key, err := bao.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return "", fmt.Errorf("read transit key %s: %w", attestorKeyName, err)
	}
	if key == nil {
		if key, err = bao.Logical().WriteWithContext(ctx, path, map[string]any{"type": "ecdsa-p256"}); err != nil {
			return "", fmt.Errorf("create transit key %s: %w", attestorKeyName, err)
		}
	}
	raw, err := json.Marshal(key.Data)
	if err != nil {
		return "", fmt.Errorf("read transit key %s: %w", attestorKeyName, err)
	}
	var description struct {
		LatestVersion json.Number `json:"latest_version"`
		Keys          map[string]struct {
			PublicKey string `json:"public_key"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(raw, &description); err != nil {
		return "", fmt.Errorf("parse transit key %s: %w", attestorKeyName, err)
	}
	public := description.Keys[description.LatestVersion.String()].PublicKey
	if public == "" {
		return "", fmt.Errorf("transit key %s has no public key", attestorKeyName)
	}
	return public, nil
}
