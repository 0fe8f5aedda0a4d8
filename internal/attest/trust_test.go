package attest_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/sigstore/sigstore-go/pkg/root"

	"ugallu.io/forensics/internal/attest"
)

const identityJSON = `{"identity":"https://kubernetes.io/namespaces/a/serviceaccounts/b","issuer":"https://issuer"}`

func publicPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func emptyRoot(t *testing.T) string {
	t.Helper()
	empty, err := root.NewTrustedRoot(root.TrustedRootMediaType01, nil, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := empty.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestTrustConfigMap(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		entries map[string]string
		says    string // empty: it is loaded
	}{
		"a key":                    {map[string]string{"attestor-v1.pub": publicPEM(t, key.Public())}, ""},
		"an identity":              {map[string]string{"attestor.identity": identityJSON}, ""},
		"a note beside them":       {map[string]string{"attestor.identity": identityJSON, "README": "x"}, ""},
		"nobody":                   {nil, "no trusted key and no trusted identity"},
		"no root":                  {map[string]string{"trusted_root.json": "", "attestor.identity": identityJSON}, "parse trusted root"},
		"a key that is none":       {map[string]string{"attestor-v1.pub": "x"}, "attestor-v1"},
		"a key of another kind":    {map[string]string{"attestor-v1.pub": publicPEM(t, edwards)}, "not ECDSA P-256"},
		"a key of another curve":   {map[string]string{"attestor-v1.pub": publicPEM(t, small.Public())}, "not ECDSA P-256"},
		"an identity without name": {map[string]string{"a.identity": `{"issuer":"https://issuer"}`}, "a.identity: identity lacks"},
		"an identity of anybody's": {map[string]string{"a.identity": `{"identity":"https://name"}`}, "a.identity: identity lacks"},
		"a pattern":                {map[string]string{"a.identity": `{"identityRegexp":".*","issuer":"i"}`}, "identityRegexp"},
		"an identity that is none": {map[string]string{"a.identity": "name"}, "a.identity: parse identity"},
	} {
		t.Run(name, func(t *testing.T) {
			data := map[string]string{"trusted_root.json": emptyRoot(t)}
			maps.Copy(data, test.entries)
			_, err := attest.ParseTrust(data)
			if test.says == "" && err != nil || test.says != "" && !says(err, test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
		})
	}
}

func TestIdentityIsReadAsWritten(t *testing.T) {
	got, err := attest.ParseIdentity([]byte(identityJSON))
	if err != nil {
		t.Fatal(err)
	}
	want := attest.Identity{Name: "https://kubernetes.io/namespaces/a/serviceaccounts/b", Issuer: "https://issuer"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
