package attest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/testneeds"
)

// TestTokenThatCannotBeUsedIsNotSent has an authority that fails the test if it is asked.
func TestTokenThatCannotBeUsedIsNotSent(t *testing.T) {
	fulcio := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a token was sent") }))
	t.Cleanup(fulcio.Close)
	issuer := startIssuer(t)
	cases := map[string]struct {
		content string
		says    []string
	}{
		"for the API server":     {issuer.token(t, claims{audience: []string{"https://kubernetes.default.svc"}}), []string{"kubernetes.default.svc", "sigstore"}},
		"for nobody":             {issuer.token(t, claims{audience: []string{}}), []string{"sigstore"}},
		"run out":                {issuer.token(t, claims{lifetime: -time.Minute}), []string{"expired at", "clock"}},
		"no token":               {"hello", []string{"not a JSON web token"}},
		"no claims":              {"a.b.c", []string{"not a JSON web token"}},
		"an empty file":          {"", []string{"is empty"}},
		"no file where it wants": {"-", []string{"no such file"}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			if test.content != "-" {
				writeFile(t, file, test.content)
			}
			signer, err := attest.NewKeyless(attest.KeylessConfig{URL: fulcio.URL, Audience: fulcioAudience, TokenFile: file})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := signer.Sign(t.Context(), []byte("x")); !errors.Is(err, attest.ErrToken) || !says(err, append(test.says, file)...) {
				t.Errorf("sign: %v", err)
			}
			if _, err := signer.Credential(t.Context()); !errors.Is(err, attest.ErrToken) {
				t.Errorf("credential: %v", err)
			}
		})
	}
}

// fakeFulcio certifies for ten minutes from a time of its own, or answers a status.
func fakeFulcio(t *testing.T, status int, at time.Time) attest.KeylessConfig {
	t.Helper()
	return fakeFulcioFor(t, status, at, 10*time.Minute)
}

func fakeFulcioFor(t *testing.T, status int, at time.Time, life time.Duration) attest.KeylessConfig {
	t.Helper()
	authority := newAuthority(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status != http.StatusOK {
			http.Error(w, "the reason", status)
			return
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: at, NotAfter: at.Add(life)}
		certificate := certify(t, template, authority.certificate, requestedKey(t, r), authority.key)
		chain := map[string]any{"certificates": []string{string(certificatePEM(certificate.Raw))}}
		answer(t, w, map[string]any{"signedCertificateDetachedSct": map[string]any{"chain": chain}})
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "token")
	writeFile(t, file, startIssuer(t).token(t, claims{}))
	return attest.KeylessConfig{URL: server.URL, Audience: fulcioAudience, TokenFile: file}
}

func requestedKey(t *testing.T, r *http.Request) crypto.PublicKey {
	var request struct {
		PublicKeyRequest struct {
			PublicKey struct{ Content string }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		t.Error(err)
		return nil
	}
	block, _ := pem.Decode([]byte(request.PublicKeyRequest.PublicKey.Content))
	if block == nil {
		t.Error("key is not PEM")
		return nil
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Error(err)
	}
	if _, ok := key.(*ecdsa.PublicKey); !ok {
		t.Errorf("key is a %T", key)
	}
	return key
}

func TestClocksThatDisagreeAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		ahead time.Duration
		want  error
	}{
		"equal": {0, nil}, "a second ahead": {time.Second, nil}, "an hour ahead": {time.Hour, attest.ErrClock}, "an hour behind": {-time.Hour, attest.ErrClock},
	} {
		signer, err := attest.NewKeyless(fakeFulcio(t, http.StatusOK, time.Now().Add(test.ahead)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signer.Credential(t.Context()); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func TestCertificateThatLivesTooShortIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		life time.Duration
		want error
	}{
		"two minutes": {2 * time.Minute, nil}, "a second less": {2*time.Minute - time.Second, attest.ErrShortLived}, "none": {0, attest.ErrShortLived},
	} {
		signer, err := attest.NewKeyless(fakeFulcioFor(t, http.StatusOK, time.Now(), test.life))
		if err != nil {
			t.Fatal(err)
		}
		_, asked := signer.Credential(t.Context())
		_, signed := signer.Sign(t.Context(), []byte("x"))
		if !errors.Is(asked, test.want) || !errors.Is(signed, test.want) {
			t.Errorf("%s: got %v and %v, want %v", name, asked, signed, test.want)
		}
	}
}

func TestAuthorityThatIsAwayIsNoRefusal(t *testing.T) {
	away := fakeFulcio(t, http.StatusOK, time.Now())
	away.URL = "http://" + testneeds.FreeAddress(t)
	for name, test := range map[string]struct {
		config  attest.KeylessConfig
		refused bool
		says    string
	}{
		"not there":     {away, false, "connection refused"},
		"broken":        {fakeFulcio(t, http.StatusInternalServerError, time.Now()), false, "answered 500: the reason"},
		"overrun":       {fakeFulcio(t, http.StatusTooManyRequests, time.Now()), false, "answered 429: the reason"},
		"not its token": {fakeFulcio(t, http.StatusBadRequest, time.Now()), true, "answered 400: the reason"},
		"another path":  {fakeFulcio(t, http.StatusNotFound, time.Now()), true, "answered 404: the reason"},
	} {
		signer, err := attest.NewKeyless(test.config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signer.Sign(t.Context(), []byte("x")); errors.Is(err, attest.ErrRefused) != test.refused || !says(err, test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCABundleMustHoldCertificates(t *testing.T) {
	const bundle = "-----BEGIN NOTHING-----"
	if _, err := attest.NewKeyless(attest.KeylessConfig{URL: "https://fulcio", CABundle: bundle}); err == nil {
		t.Error("certificate authority: no error")
	}
	if _, err := attest.NewLog("https://rekor", "https://tsa", bundle); err == nil {
		t.Error("log: no error")
	}
	if _, err := attest.NewTransit(attest.TransitConfig{Address: "https://bao", CABundle: bundle}); err == nil {
		t.Error("transit engine: no error")
	}
}
