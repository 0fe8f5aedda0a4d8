//go:build integration

package integration

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// trustName is where the cluster publishes what a stranger must trust.
const trustName = "ugallu-trusted-root"

// stranger verifies bundles offline with sigstore-go alone and shares no code with what made them.
type stranger struct{ verifier *verify.Verifier }

// stranger reads the published trust; from then on nothing is asked of the cluster.
func (c *cluster) stranger(tb testing.TB) stranger {
	tb.Helper()
	var published corev1.ConfigMap
	c.look(tb, client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: trustName}, &published)
	trusted, err := root.NewTrustedRootFromJSON([]byte(published.Data["trusted_root.json"]))
	if err != nil {
		tb.Fatalf("parse the trusted root: %v", err)
	}
	keys := map[string]root.TimeConstrainedVerifier{}
	for name, value := range published.Data {
		if strings.HasSuffix(name, ".pub") {
			hint, public := key(tb, value)
			keys[hint] = public
		}
	}
	if len(keys) == 0 {
		tb.Fatalf("ConfigMap %s publishes no signing key", trustName)
	}
	byHint := root.NewTrustedPublicKeyMaterial(func(hint string) (root.TimeConstrainedVerifier, error) {
		if known, ok := keys[hint]; ok {
			return known, nil
		}
		return nil, fmt.Errorf("key %q is not published", hint)
	})
	verifier, err := verify.NewVerifier(root.TrustedMaterialCollection{trusted, byHint},
		verify.WithSignedTimestamps(1), verify.WithTransparencyLog(1))
	if err != nil {
		tb.Fatalf("make a verifier: %v", err)
	}
	return stranger{verifier: verifier}
}

// key reads a published key. A bundle names its key by base64 of the sha256 of the key in PKIX DER.
func key(tb testing.TB, text string) (hint string, verifier root.TimeConstrainedVerifier) {
	tb.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		tb.Fatal("a published key is not PEM")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		tb.Fatalf("parse a published key: %v", err)
	}
	loaded, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		tb.Fatalf("use a published key: %v", err)
	}
	sum := sha256.Sum256(block.Bytes)
	return base64.StdEncoding.EncodeToString(sum[:]), root.NewExpiringKey(loaded, time.Time{}, time.Time{})
}

// statement is a verified in-toto statement with its predicate left as it was signed.
type statement struct {
	Type          string             `json:"_type"`
	Subject       []evidence.Subject `json:"subject"`
	PredicateType string             `json:"predicateType"`
	Predicate     json.RawMessage    `json:"predicate"`
	payload       []byte
}

// check verifies a bundle's signature, log entry and timestamp.
func (s stranger) check(raw []byte) (statement, error) {
	var parsed bundle.Bundle
	if err := parsed.UnmarshalJSON(raw); err != nil {
		return statement{}, fmt.Errorf("parse bundle: %w", err)
	}
	policy := verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithKey())
	result, err := s.verifier.Verify(&parsed, policy)
	if err != nil {
		return statement{}, fmt.Errorf("verify bundle: %w", err)
	}
	if len(result.VerifiedTimestamps) == 0 {
		return statement{}, fmt.Errorf("bundle carries no verified timestamp")
	}
	envelope := parsed.GetDsseEnvelope()
	if envelope.GetPayloadType() != evidence.PayloadType {
		return statement{}, fmt.Errorf("payload type is %q", envelope.GetPayloadType())
	}
	verified := statement{payload: envelope.GetPayload()}
	if err := json.Unmarshal(verified.payload, &verified); err != nil {
		return statement{}, fmt.Errorf("parse statement: %w", err)
	}
	return verified, nil
}

// must verifies a bundle of a given predicate and checks that one changed character of it is noticed.
func (s stranger) must(tb testing.TB, raw []byte, predicateType string) statement {
	tb.Helper()
	verified, err := s.check(raw)
	if err != nil {
		tb.Fatal(err)
	}
	if verified.Type != evidence.StatementType || verified.PredicateType != predicateType {
		tb.Errorf("statement is of type %s with predicate %s, want predicate %s", verified.Type, verified.PredicateType, predicateType)
	}
	if canonical, err := evidence.Canonical(json.RawMessage(verified.payload)); err != nil || !bytes.Equal(canonical, verified.payload) {
		tb.Errorf("the signed bytes are not canonical JSON (%v)", err)
	}
	at := bytes.Index(raw, []byte(`"payload":"`)) + len(`"payload":"`) + 40
	forged := bytes.Clone(raw)
	forged[at] = 'A' + (forged[at]-'A'+1)%26
	if _, err := s.check(forged); err == nil {
		tb.Error("a forged bundle verifies: this verifier is worth nothing")
	}
	return verified
}
