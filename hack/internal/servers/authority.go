package servers

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// chainLifetime is longer than any development cluster lives.
const chainLifetime = 10 * 365 * 24 * time.Hour

// generateFulcioCA makes a root, and below it an authority that may certify keys for signing code and nothing else.
func generateFulcioCA() (map[string][]byte, error) {
	own := template(2, "keyless signing")
	own.IsCA, own.BasicConstraintsValid, own.MaxPathLenZero = true, true, true
	own.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	own.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	return generateAuthority(own)
}

// generateAuthority makes a key and a chain for an authority's own certificate. Nobody keeps the root's key.
func generateAuthority(own *x509.Certificate) (map[string][]byte, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the authority's root key: %w", err)
	}
	ownKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the authority's key: %w", err)
	}
	root := template(1, own.Subject.CommonName+" root")
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return nil, fmt.Errorf("certify the authority's root: %w", err)
	}
	ownDER, err := x509.CreateCertificate(rand.Reader, own, root, ownKey.Public(), rootKey)
	if err != nil {
		return nil, fmt.Errorf("certify the authority's key: %w", err)
	}
	encoded, err := encodeKey(ownKey)
	if err != nil {
		return nil, err
	}
	var chain bytes.Buffer
	for _, der := range [][]byte{ownDER, rootDER} {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return nil, fmt.Errorf("encode the authority's chain: %w", err)
		}
	}
	return map[string][]byte{authorityKey: encoded, authorityChain: chain.Bytes()}, nil
}

func template(serial int64, name string) *x509.Certificate {
	now := time.Now().Add(-time.Minute).UTC()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"development cluster"}},
		NotBefore:    now, NotAfter: now.Add(chainLifetime),
	}
}
