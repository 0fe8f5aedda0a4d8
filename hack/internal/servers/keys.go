package servers

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// keys is the secret material of one cluster. It exists in that cluster's Secrets and nowhere else.
type keys struct {
	rekor, tsa, fulcio, minio, transit map[string][]byte
}

// Keys of the Secrets' data, as manifests/servers mounts them.
const (
	rekorSigner     = "signer.pem"
	authorityKey    = "key.pem"
	authorityChain  = "chain.pem"
	minioUser       = "user"
	minioPassword   = "password"
	transitToken    = "token"
	accessKey       = "access-key"
	secretKey       = "secret-key"
	transitSecret   = "ugallu-transit-token" // #nosec G101 -- a name
	attestorKeyName = "ugallu-attestor"
)

// ensureKeys makes what is not there yet. The attestor gets the transit engine's token in its own namespace.
func ensureKeys(ctx context.Context, cluster client.Client) (keys, error) {
	var made keys
	for _, secret := range []struct {
		name     string
		data     *map[string][]byte
		generate func() (map[string][]byte, error)
	}{
		{"rekor-signer", &made.rekor, generateRekorSigner},
		{"tsa-signer", &made.tsa, generateTSASigner},
		{"fulcio-ca", &made.fulcio, generateFulcioCA},
		{"minio-root", &made.minio, func() (map[string][]byte, error) {
			return map[string][]byte{minioUser: []byte("root"), minioPassword: []byte(rand.Text())}, nil
		}},
		{"transit-token", &made.transit, func() (map[string][]byte, error) {
			return map[string][]byte{transitToken: []byte(rand.Text())}, nil
		}},
	} {
		var err error
		if *secret.data, err = ensureSecret(ctx, cluster, client.ObjectKey{Namespace: namespace, Name: secret.name}, secret.generate); err != nil {
			return keys{}, err
		}
	}
	_, err := ensureSecret(ctx, cluster, client.ObjectKey{Namespace: systemNamespace, Name: transitSecret},
		func() (map[string][]byte, error) {
			return map[string][]byte{transitToken: made.transit[transitToken]}, nil
		})
	return made, err
}

func generateRekorSigner() (map[string][]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the log's key: %w", err)
	}
	encoded, err := encodeKey(key)
	return map[string][]byte{rekorSigner: encoded}, err
}

func encodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("marshal a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
