package attest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// readToken reads a file that the platform renews. The errors wrap ErrToken.
func readToken(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("%w: %s is empty", ErrToken, file)
	}
	return token, nil
}

// audience of a token: JSON has one of them as a string, or several as a list.
type audience []string

// UnmarshalJSON is that of json.Unmarshaler.
func (a *audience) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// readIdentityToken reads a JSON web token and looks at what it says of itself: one that is meant for somebody else,
// such as the API server, is never sent. Its signature is for the certificate authority to verify.
func readIdentityToken(file, wanted string, now time.Time) (string, error) {
	token, err := readToken(file)
	if err != nil {
		return "", err
	}
	var claims struct {
		Audience audience `json:"aud"`
		Expiry   int64    `json:"exp"`
	}
	if err := parseClaims(token, &claims); err != nil {
		return "", fmt.Errorf("%w: %s is not a JSON web token: %w", ErrToken, file, err)
	}
	if !slices.Contains(claims.Audience, wanted) {
		return "", fmt.Errorf("%w: %s is for the audience %q, not %q: let the mounted token and the configuration name the same",
			ErrToken, file, claims.Audience, wanted)
	}
	if expiry := time.Unix(claims.Expiry, 0).UTC(); !now.Before(expiry) {
		return "", fmt.Errorf("%w: %s expired at %s: see whether the node renews it, and its clock",
			ErrToken, file, expiry.Format(time.RFC3339))
	}
	return token, nil
}

func parseClaims(token string, claims any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("not three parts")
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("decode claims: %w", err)
	}
	if err := json.Unmarshal(data, claims); err != nil {
		return fmt.Errorf("parse claims: %w", err)
	}
	return nil
}
