package servers

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

// generateTSASigner makes a root, and a leaf that may do nothing but time-stamp.
func generateTSASigner() (map[string][]byte, error) {
	usage, err := timestampingUsage()
	if err != nil {
		return nil, err
	}
	leaf := template(2, "time-stamping")
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtraExtensions = []pkix.Extension{usage}
	return generateAuthority(leaf)
}

// timestampingUsage is critical, as RFC 3161 demands; crypto/x509 writes its own ExtKeyUsage as not critical.
func timestampingUsage() (pkix.Extension, error) {
	value, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("marshal the key usage: %w", err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: value}, nil
}
