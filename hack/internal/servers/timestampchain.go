package servers

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// chainLifetime is longer than any development cluster lives.
const chainLifetime = 10 * 365 * 24 * time.Hour

// generateTSASigner makes a root, and a leaf that may do nothing but time-stamp.
func generateTSASigner() (map[string][]byte, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the authority's root key: %w", err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the authority's key: %w", err)
	}
	root := template(1, "time-stamping root")
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return nil, fmt.Errorf("certify the authority's root: %w", err)
	}
	leaf := template(2, "time-stamping")
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	usage, err := timestampingUsage()
	if err != nil {
		return nil, err
	}
	leaf.ExtraExtensions = []pkix.Extension{usage}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	if err != nil {
		return nil, fmt.Errorf("certify the authority's key: %w", err)
	}
	encoded, err := encodeKey(leafKey)
	if err != nil {
		return nil, err
	}
	var chain bytes.Buffer
	for _, der := range [][]byte{leafDER, rootDER} {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return nil, fmt.Errorf("encode the authority's chain: %w", err)
		}
	}
	return map[string][]byte{tsaKey: encoded, tsaChain: chain.Bytes()}, nil
}

func template(serial int64, name string) *x509.Certificate {
	now := time.Now().Add(-time.Minute).UTC()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"development cluster"}},
		NotBefore:    now, NotAfter: now.Add(chainLifetime),
	}
}

// timestampingUsage is critical, as RFC 3161 demands; crypto/x509 writes its own ExtKeyUsage as not critical.
func timestampingUsage() (pkix.Extension, error) {
	value, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("marshal the key usage: %w", err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: value}, nil
}
