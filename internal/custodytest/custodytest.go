package custodytest

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openbao/openbao/api/v2"
	"github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore-go/pkg/root"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/testneeds"
)

const (
	// KeyName of the signing key.
	KeyName = "attestor"
	logHost = "rekor.local"
	token   = "loopback-token" // #nosec G101 -- of a server that the test starts on loopback
)

// Servers are the three servers and what trusts them.
type Servers struct {
	Transit attest.TransitConfig
	Log     attest.Log
	// TrustedRoot in JSON.
	TrustedRoot []byte

	bao *api.Client
}

// Start runs the binaries named by FORENSICS_TRANSIT, FORENSICS_REKOR and FORENSICS_TSA until the test ends.
func Start(t testing.TB) *Servers {
	t.Helper()
	transit, rekor, tsa := testneeds.Binary(t, "FORENSICS_TRANSIT"), testneeds.Binary(t, "FORENSICS_REKOR"), testneeds.Binary(t, "FORENSICS_TSA")
	s := &Servers{}
	s.startTransit(t, transit)
	log := s.startLog(t, rekor)
	authority := s.startAuthority(t, tsa)
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, nil, nil,
		[]root.TimestampingAuthority{authority}, map[string]*root.TransparencyLog{hex.EncodeToString(log.ID): log})
	if err != nil {
		t.Fatal(err)
	}
	if s.TrustedRoot, err = trusted.MarshalJSON(); err != nil {
		t.Fatal(err)
	}
	s.CreateKey(t, KeyName)
	return s
}

// Notary signs with the servers' key and trusts its newest version.
func (s *Servers) Notary(t testing.TB) *attest.Notary {
	t.Helper()
	trust, err := attest.LoadTrust(s.TrustedRoot, map[string][]byte{KeyName: s.PublicKey(t, KeyName)})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := attest.NewTransit(s.Transit)
	if err != nil {
		t.Fatal(err)
	}
	return &attest.Notary{Signer: signer, Log: s.Log, Trust: trust}
}

// CreateKey makes a signing key.
func (s *Servers) CreateKey(t testing.TB, name string) {
	t.Helper()
	s.write(t, "transit/keys/"+name, map[string]any{"type": "ecdsa-p256"})
}

// RotateKey adds a version to a key.
func (s *Servers) RotateKey(t testing.TB, name string) {
	t.Helper()
	s.write(t, "transit/keys/"+name+"/rotate", nil)
}

// PublicKey of the newest version of a key, in PEM.
func (s *Servers) PublicKey(t testing.TB, name string) []byte {
	t.Helper()
	secret, err := s.bao.Logical().ReadWithContext(t.Context(), "transit/keys/"+name)
	if err != nil || secret == nil {
		t.Fatalf("read key %s: %v, %v", name, secret, err)
	}
	data, err := json.Marshal(secret.Data)
	if err != nil {
		t.Fatal(err)
	}
	var key struct {
		Latest json.Number `json:"latest_version"`
		Keys   map[string]struct {
			PublicKey string `json:"public_key"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(data, &key); err != nil {
		t.Fatal(err)
	}
	return []byte(key.Keys[key.Latest.String()].PublicKey)
}

func (s *Servers) write(t testing.TB, path string, data map[string]any) {
	t.Helper()
	if _, err := s.bao.Logical().WriteWithContext(t.Context(), path, data); err != nil {
		t.Fatal(err)
	}
}

func (s *Servers) startTransit(t testing.TB, binary string) {
	t.Helper()
	dir := t.TempDir()
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address := testneeds.FreeAddress(t)
	start(t, binary, "--address", address, "--storage-dir", filepath.Join(dir, "keys"), "--token-file", tokenFile)
	awaitOK(t, "http://"+address+"/v1/sys/health")
	s.Transit = attest.TransitConfig{Address: "http://" + address, Mount: "transit", Key: KeyName, TokenFile: tokenFile}
	settings := api.NewConfig()
	settings.Address, settings.DisableEnvironment = s.Transit.Address, true
	bao, err := api.NewClient(settings)
	if err != nil {
		t.Fatal(err)
	}
	bao.SetToken(token)
	s.bao = bao
}

func (s *Servers) startLog(t testing.TB, binary string) *root.TransparencyLog {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	signer := filepath.Join(dir, "signer.pem")
	if err := os.WriteFile(signer, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	port := testneeds.FreePort(t)
	start(t, binary, "serve", "--http-address", "127.0.0.1", "--http-port", port, "--grpc-address", "127.0.0.1",
		"--grpc-port", testneeds.FreePort(t), "--http-metrics-port", testneeds.FreePort(t), "--hostname", logHost, "--storage-dir", filepath.Join(dir, "log"),
		"--signer-filepath", signer, "--signer-password", "", "--batch-max-age", "20ms", "--checkpoint-interval", "100ms")
	s.Log.RekorURL = "http://127.0.0.1:" + port
	awaitOK(t, s.Log.RekorURL+"/healthz")
	_, id, err := note.KeyHash(logHost, public)
	if err != nil {
		t.Fatal(err)
	}
	return &root.TransparencyLog{
		BaseURL: "http://" + logHost, ID: id, HashFunc: crypto.SHA256, PublicKey: public, SignatureHashFunc: crypto.SHA256,
		ValidityPeriodStart: time.Now().Add(-time.Hour),
	}
}

func (s *Servers) startAuthority(t testing.TB, binary string) *root.SigstoreTimestampingAuthority {
	t.Helper()
	holdMetricsPort(t)
	port := testneeds.FreePort(t)
	start(t, binary, "serve", "--host", "127.0.0.1", "--port", port, "--timestamp-signer", "memory", "--disable-ntp-monitoring")
	base := "http://127.0.0.1:" + port
	awaitOK(t, base+"/ping")
	s.Log.TimestampURL = base + "/api/v1/timestamp"
	chain := fetchChain(t, base+"/api/v1/timestamp/certchain")
	return &root.SigstoreTimestampingAuthority{
		Root: chain[len(chain)-1], Intermediates: chain[1 : len(chain)-1], Leaf: chain[0], URI: s.Log.TimestampURL,
		ValidityPeriodStart: chain[0].NotBefore, ValidityPeriodEnd: chain[0].NotAfter,
	}
}

// holdMetricsPort lets one test process at a time run the authority, which ends if it cannot have port 2112.
func holdMetricsPort(t testing.TB) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(os.TempDir(), "custodytest-2112.lock"), os.O_CREATE|os.O_RDWR, 0o600) // #nosec G304
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := file.Close(); err != nil { // gives the lock back
			t.Error(err)
		}
	})
}

func fetchChain(t testing.TB, url string) []*x509.Certificate {
	t.Helper()
	response, err := http.Get(url) // #nosec G107 -- loopback
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for data = bytes.TrimSpace(data); len(data) > 0; data = bytes.TrimSpace(data) {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			t.Fatal("the authority's chain is not PEM")
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, certificate)
	}
	if len(chain) < 2 {
		t.Fatalf("the authority's chain has %d certificates", len(chain))
	}
	return chain
}
