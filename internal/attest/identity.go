package attest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/verify"
)

// Identity is who may sign with a certificate: a name, and the issuer of the tokens that prove it. Both are compared
// letter by letter; a pattern would trust names that nobody has thought of.
type Identity struct {
	// Name is the certificate's subject alternative name.
	Name string `json:"identity"`
	// Issuer of the token that the certificate was issued for.
	Issuer string `json:"issuer"`
}

// ParseIdentity reads an identity in JSON.
func ParseIdentity(data []byte) (Identity, error) {
	var identity Identity
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&identity); err != nil {
		return Identity{}, fmt.Errorf("parse identity: %w", err)
	}
	if identity.Name == "" || identity.Issuer == "" {
		return Identity{}, errors.New("identity lacks its name or its issuer")
	}
	return identity, nil
}

// policy lets the verifier of Sigstore bundles accept each of the identities.
func policy(identities map[Identity]struct{}) ([]verify.PolicyOption, error) {
	options := make([]verify.PolicyOption, 0, len(identities))
	for identity := range identities {
		expected, err := verify.NewShortCertificateIdentity(identity.Issuer, "", identity.Name, "")
		if err != nil {
			return nil, fmt.Errorf("identity %s: %w", identity.Name, err)
		}
		options = append(options, verify.WithCertificateIdentity(expected))
	}
	return options, nil
}
