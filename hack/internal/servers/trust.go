package servers

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore-go/pkg/root"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

const (
	// rekorHost is what the log is told its --hostname is; the trusted root has to say the same.
	rekorHost = "rekor.ugallu-demo.svc"
	rekorURL  = "http://" + rekorHost + ":3000"
	tsaURL    = "http://tsa.ugallu-demo.svc:3004/api/v1/timestamp"

	fulcioURL = "http://fulcio.ugallu-demo.svc:5555"

	trustConfigMap   = "ugallu-trusted-root"
	trustedRootFile  = "trusted_root.json"
	attestorIdentity = attestorKeyName + ".identity"
	// identity that Fulcio certifies for the attestor's ServiceAccount by a token of kubeadm's default issuer, in JSON.
	identity = `{"identity":"https://kubernetes.io/namespaces/` + systemNamespace + `/serviceaccounts/` + attestorKeyName +
		`","issuer":"https://kubernetes.default.svc.cluster.local"}`
)

// attestorKeyFile is the name that a version of the attestor's key is trusted under.
func attestorKeyFile(version string) string { return attestorKeyName + "-v" + version + ".pub" }

// publishTrust writes the ConfigMap from which everybody verifies: what both signing modes need, so that a change of
// the mode changes nothing here.
func publishTrust(ctx context.Context, cluster client.Client, made keys, attestorKeys map[string]string) error {
	trustedRoot, err := trustedRootJSON(made)
	if err != nil {
		return err
	}
	data := map[string]string{trustedRootFile: string(trustedRoot), attestorIdentity: identity}
	for version, key := range attestorKeys {
		data[attestorKeyFile(version)] = key
	}
	published := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: trustConfigMap}}
	_, err = controllerutil.CreateOrUpdate(ctx, cluster, published, func() error {
		published.Data = data
		return nil
	})
	if err != nil {
		return fmt.Errorf("publish the trusted root: %w", err)
	}
	return nil
}

// trustedRootJSON is the Sigstore trusted root of this cluster's log and authorities.
func trustedRootJSON(made keys) ([]byte, error) {
	log, err := transparencyLog(made.rekor[rekorSigner])
	if err != nil {
		return nil, err
	}
	stamping, err := parseChain(made.tsa[authorityChain])
	if err != nil {
		return nil, err
	}
	certifying, err := parseChain(made.fulcio[authorityChain])
	if err != nil {
		return nil, err
	}
	logs := map[string]*root.TransparencyLog{hex.EncodeToString(log.ID): log}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		[]root.CertificateAuthority{certificateAuthority(certifying)}, nil,
		[]root.TimestampingAuthority{timestampingAuthority(stamping)}, logs)
	if err != nil {
		return nil, fmt.Errorf("make the trusted root: %w", err)
	}
	encoded, err := trusted.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("marshal the trusted root: %w", err)
	}
	// The encoder adds white space at random; the published text must not change when nothing did.
	var compact bytes.Buffer
	if err := json.Compact(&compact, encoded); err != nil {
		return nil, fmt.Errorf("compact the trusted root: %w", err)
	}
	return compact.Bytes(), nil
}

func timestampingAuthority(chain []*x509.Certificate) *root.SigstoreTimestampingAuthority {
	leaf, top := chain[0], chain[len(chain)-1]
	return &root.SigstoreTimestampingAuthority{
		Root: top, Intermediates: chain[1 : len(chain)-1], Leaf: leaf, URI: tsaURL,
		ValidityPeriodStart: leaf.NotBefore, ValidityPeriodEnd: leaf.NotAfter,
	}
}

// certificateAuthority takes the chain without any leaf: the first certificate signs those that are issued.
func certificateAuthority(chain []*x509.Certificate) *root.FulcioCertificateAuthority {
	top := chain[len(chain)-1]
	return &root.FulcioCertificateAuthority{
		Root: top, Intermediates: chain[:len(chain)-1], URI: fulcioURL,
		ValidityPeriodStart: top.NotBefore, ValidityPeriodEnd: top.NotAfter,
	}
}

func transparencyLog(signerPEM []byte) (*root.TransparencyLog, error) {
	block, _ := pem.Decode(signerPEM)
	if block == nil {
		return nil, errors.New("the log's key is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse the log's key: %w", err)
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the log's key, a %T, cannot sign", parsed)
	}
	_, id, err := note.KeyHash(rekorHost, signer.Public())
	if err != nil {
		return nil, fmt.Errorf("compute the log's id: %w", err)
	}
	return &root.TransparencyLog{
		BaseURL: rekorURL, ID: id, HashFunc: crypto.SHA256, PublicKey: signer.Public(), SignatureHashFunc: crypto.SHA256,
		// The log has no certificate that says since when; nothing of this project is older.
		ValidityPeriodStart: time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC),
	}, nil
}

// parseChain returns the certificates in the order of the file: the authority's own first, root last.
func parseChain(data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("the authority's chain is not PEM")
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse the authority's chain: %w", err)
		}
		chain = append(chain, certificate)
	}
	if len(chain) < 2 {
		return nil, fmt.Errorf("the authority's chain has %d certificates, not its own and a root", len(chain))
	}
	return chain, nil
}
