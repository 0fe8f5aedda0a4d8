package attest_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/custodytest"
	"ugallu.io/forensics/internal/testneeds"
)

const (
	fulcioAudience = "sigstore"
	attestorName   = "https://kubernetes.io/namespaces/ugallu-system/serviceaccounts/ugallu-attestor"
)

// keyless is a certificate authority with the issuer of the tokens that it accepts, beside the other servers.
type keyless struct {
	servers *custodytest.Servers
	issuer  *issuer
	url     string
	// trustedRoot in JSON.
	trustedRoot []byte
	tokenFile   string
}

func startKeyless(t *testing.T, servers *custodytest.Servers) *keyless {
	t.Helper()
	k := &keyless{servers: servers, issuer: startIssuer(t), tokenFile: filepath.Join(t.TempDir(), "token")}
	authority := newAuthority(t)
	k.url = startFulcio(t, authority, k.issuer)
	k.trustedRoot = withAuthority(t, servers.TrustedRoot, authority.certificate)
	k.mount(t, claims{})
	return k
}

// identity of the attestor.
func (k *keyless) identity() attest.Identity {
	return attest.Identity{Name: attestorName, Issuer: k.issuer.url}
}

func (k *keyless) config() attest.KeylessConfig {
	return attest.KeylessConfig{URL: k.url, Audience: fulcioAudience, TokenFile: k.tokenFile}
}

// notary trusts the attestor's identity and no key.
func (k *keyless) notary(t testing.TB) *attest.Notary {
	t.Helper()
	trust, err := attest.LoadTrust(k.trustedRoot, nil, k.identity())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := attest.NewKeyless(k.config())
	if err != nil {
		t.Fatal(err)
	}
	return &attest.Notary{Signer: signer, Log: k.servers.Log, Trust: trust}
}

// mount replaces the token.
func (k *keyless) mount(t testing.TB, c claims) {
	t.Helper()
	writeFile(t, k.tokenFile, k.issuer.token(t, c)+"\n")
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// claims of a token where they differ from a good one's.
type claims struct {
	issuer, account string
	audience        any
	lifetime        time.Duration
}

// issuer hands out tokens as an API server does, and serves its discovery document and its key over TLS.
type issuer struct {
	url         string
	certificate []byte
	key         *rsa.PrivateKey
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(t, w, map[string]any{
			"issuer": i.url, "jwks_uri": i.url + "/openid/v1/jwks", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("/openid/v1/jwks", func(w http.ResponseWriter, _ *http.Request) {
		answer(t, w, map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "key",
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
			"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	i.url, i.certificate = server.URL, server.Certificate().Raw
	return i
}

func answer(t *testing.T, w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		t.Error(err)
	}
}

// token of a ServiceAccount, as the kubelet mounts it.
func (i *issuer) token(t testing.TB, c claims) string {
	t.Helper()
	body := map[string]any{
		"iss": i.url, "aud": []string{fulcioAudience}, "iat": time.Now().Unix(), "nbf": time.Now().Unix(),
		"exp": time.Now().Add(10 * time.Minute).Unix(),
	}
	if c.issuer != "" {
		body["iss"] = c.issuer
	}
	if c.audience != nil {
		body["aud"] = c.audience
	}
	if c.lifetime != 0 {
		body["exp"] = time.Now().Add(c.lifetime).Unix()
	}
	account := "ugallu-attestor"
	if c.account != "" {
		account = c.account
	}
	body["sub"] = "system:serviceaccount:ugallu-system:" + account
	body["kubernetes.io"] = map[string]any{
		"namespace": "ugallu-system", "serviceaccount": map[string]any{"name": account, "uid": "account-uid"},
		"pod": map[string]any{"name": "pod", "uid": "pod-uid"},
	}
	signed := encodePart(t, map[string]string{"alg": "RS256", "kid": "key", "typ": "JWT"}) + "." + encodePart(t, body)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func encodePart(t testing.TB, part any) string {
	t.Helper()
	data, err := json.Marshal(part)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// authority is a root that certifies signing keys itself.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test", Organization: []string{"test"}},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return &authority{certificate: certify(t, template, template, key.Public(), key), key: key}
}

func certify(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// startFulcio runs the binary named by FORENSICS_FULCIO until the test ends and returns its address.
func startFulcio(t *testing.T, authority *authority, issuer *issuer) string {
	t.Helper()
	binary, dir := testneeds.Binary(t, "FORENSICS_FULCIO"), t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(authority.key)
	if err != nil {
		t.Fatal(err)
	}
	key, chain, config := filepath.Join(dir, "key.pem"), filepath.Join(dir, "chain.pem"), filepath.Join(dir, "config.json")
	writeFile(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	writeFile(t, chain, string(certificatePEM(authority.certificate.Raw)))
	settings, err := json.Marshal(map[string]any{"OIDCIssuers": map[string]any{issuer.url: map[string]any{
		"IssuerURL": issuer.url, "ClientID": fulcioAudience, "Type": "kubernetes", "CACert": string(certificatePEM(issuer.certificate)),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, config, string(settings))
	port := testneeds.FreePort(t)
	runFulcio(t, binary, "serve", "--host", "127.0.0.1", "--port", port, "--grpc-host", "127.0.0.1",
		"--grpc-port", testneeds.FreePort(t), "--metrics-port", testneeds.FreePort(t),
		"--legacy-unix-domain-socket", filepath.Join(dir, "socket"), "--config-path", config, "--ca", "fileca",
		"--fileca-cert", chain, "--fileca-key", key, "--fileca-key-passwd=", "--fileca-watch=false", "--ct-log-url=")
	url := "http://127.0.0.1:" + port
	awaitHealthy(t, url+"/healthz")
	return url
}

func runFulcio(t *testing.T, binary string, arguments ...string) {
	t.Helper()
	var output bytes.Buffer
	command := exec.Command(binary, arguments...)
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may have ended by itself, which the output shows
		_ = command.Wait()         // reports the kill
		if t.Failed() {
			t.Logf("%s:\n%s", binary, output.String())
		}
	})
}

func awaitHealthy(t *testing.T, url string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		response, err := http.Get(url)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v", url, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// withAuthority is a trusted root with one more authority.
func withAuthority(t testing.TB, trustedRoot []byte, certificate *x509.Certificate) []byte {
	t.Helper()
	parsed, err := root.NewTrustedRootFromJSON(trustedRoot)
	if err != nil {
		t.Fatal(err)
	}
	added := append(parsed.FulcioCertificateAuthorities(), &root.FulcioCertificateAuthority{
		Root: certificate, ValidityPeriodStart: certificate.NotBefore, ValidityPeriodEnd: certificate.NotAfter,
	})
	extended, err := root.NewTrustedRoot(root.TrustedRootMediaType01, added, nil, parsed.TimestampingAuthorities(), parsed.RekorLogs())
	if err != nil {
		t.Fatal(err)
	}
	data, err := extended.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// says tells whether an error names all that a person needs.
func says(err error, parts ...string) bool {
	if err == nil {
		return false
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			return false
		}
	}
	return true
}
