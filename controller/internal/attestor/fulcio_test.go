package attestor_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
)

const (
	identityName = "https://kubernetes.io/namespaces/ugallu-system/serviceaccounts/ugallu-attestor"
	identity     = `{"identity":"` + identityName + `","issuer":"https://issuer"}`
	// c400 is what the authority says to a token that it does not accept.
	c400 = "the token is not accepted"
)

// fulcio certifies whoever asks as the attestor, as the real one does with a good token; internal/attest runs that.
type fulcio struct {
	url    string
	status int
	// ahead is what its clock is off by.
	ahead time.Duration
	close func()

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func startFulcio(t *testing.T) *fulcio {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fulcio{key: key, status: http.StatusOK}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test", Organization: []string{"test"}},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if f.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.status != http.StatusOK {
			http.Error(w, c400, f.status)
			return
		}
		f.issue(t, w, r)
	}))
	t.Cleanup(server.Close)
	f.url, f.close = server.URL, server.Close
	return f
}

func (f *fulcio) issue(t *testing.T, w http.ResponseWriter, r *http.Request) {
	var request struct {
		PublicKeyRequest struct {
			PublicKey struct{ Content string }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		t.Error(err)
		return
	}
	block, _ := pem.Decode([]byte(request.PublicKeyRequest.PublicKey.Content))
	if block == nil {
		t.Error("the key is not PEM")
		return
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Error(err)
		return
	}
	name, err := url.Parse(identityName)
	if err != nil {
		t.Error(err)
		return
	}
	issuer, err := asn1.MarshalWithParams("https://issuer", "utf8")
	if err != nil {
		t.Error(err)
		return
	}
	now := time.Now().Add(f.ahead)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: now, NotAfter: now.Add(10 * time.Minute), URIs: []*url.URL{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, f.certificate, public, f.key)
	if err != nil {
		t.Error(err)
		return
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	chain := map[string]any{"certificates": []string{string(encoded)}}
	err = json.NewEncoder(w).Encode(map[string]any{"signedCertificateDetachedSct": map[string]any{"chain": chain}})
	if err != nil {
		t.Error(err)
	}
}

func (f *fulcio) trustedRoot(t *testing.T) string {
	t.Helper()
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{&root.FulcioCertificateAuthority{
		Root: f.certificate, ValidityPeriodStart: f.certificate.NotBefore, ValidityPeriodEnd: f.certificate.NotAfter,
	}}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := trusted.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// token has claims and no signature: nobody here verifies one.
func token(t *testing.T, audience string) string {
	t.Helper()
	claims := encode(t, map[string]any{
		"aud": []string{audience}, "exp": time.Now().Add(time.Hour).Unix(), "iss": "https://issuer",
		"sub": "system:serviceaccount:ugallu-system:ugallu-attestor",
	})
	return "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln"
}
