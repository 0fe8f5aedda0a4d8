package attest_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/custodytest"
)

// TestKeyless starts the servers once for every case.
func TestKeyless(t *testing.T) {
	k := startKeyless(t, custodytest.Start(t))
	for name, check := range map[string]func(*testing.T, *keyless){
		"bundle verifies offline":          keylessVerifies,
		"only what is trusted verifies":    keylessStrangers,
		"tampering is refused":             keylessTampering,
		"token is read anew":               tokenIsReadAnew,
		"refusals say what to repair":      fulcioRefuses,
		"every statement has its own key":  keysDiffer,
		"certificate that ran out":         certificateRanOut,
		"private authority":                privateAuthority,
		"both modes, one trust":            bothModes,
		"a stranger's authority":           strangersAuthority,
		"an identity that nobody has told": identityUnknown,
	} {
		t.Run(name, func(t *testing.T) { check(t, k) })
	}
}

func sealAs(t *testing.T, notary *attest.Notary, payload []byte, want string) []byte {
	t.Helper()
	envelope, signer, err := notary.Sign(t.Context(), payload)
	if err != nil {
		t.Fatal(err)
	}
	if signer != want {
		t.Errorf("signer is %q", signer)
	}
	bundle, err := notary.Publish(t.Context(), envelope)
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

func keylessVerifies(t *testing.T, k *keyless) {
	payload := statement(t, "keyless")
	bundle := sealAs(t, k.notary(t), payload, attestorName)
	offline, err := attest.LoadTrust(k.trustedRoot, nil, k.identity())
	if err != nil {
		t.Fatal(err)
	}
	verified, err := offline.Verify(bundle)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(verified.Payload, payload) || verified.Signer != attestorName || verified.Issuer != k.issuer.url {
		t.Errorf("got %+v", verified)
	}
	if name, err := k.notary(t).Check(t.Context()); err != nil || name != attestorName {
		t.Errorf("check: %q, %v", name, err)
	}
}

func keylessStrangers(t *testing.T, k *keyless) {
	bundle := sealAs(t, k.notary(t), statement(t, "strangers"), attestorName)
	key := map[string][]byte{"key": k.servers.PublicKey(t, custodytest.KeyName)}
	cases := map[string]struct {
		root       []byte
		identities []attest.Identity
	}{
		"another root":     {withAuthority(t, k.servers.TrustedRoot, newAuthority(t).certificate), []attest.Identity{k.identity()}},
		"no authority":     {k.servers.TrustedRoot, []attest.Identity{k.identity()}},
		"another identity": {k.trustedRoot, []attest.Identity{{Name: attestorName + "2", Issuer: k.issuer.url}}},
		"a prefix":         {k.trustedRoot, []attest.Identity{{Name: attestorName[:len(attestorName)-1], Issuer: k.issuer.url}}},
		"another issuer":   {k.trustedRoot, []attest.Identity{{Name: attestorName, Issuer: "https://elsewhere"}}},
		"no identity":      {k.trustedRoot, nil},
	}
	for name, test := range cases {
		trust, err := attest.LoadTrust(test.root, key, test.identities...)
		if err != nil {
			t.Fatal(err)
		}
		if verified, err := trust.Verify(bundle); err == nil {
			t.Errorf("%s: verified %+v", name, verified)
		}
	}
}

func keylessTampering(t *testing.T, k *keyless) {
	notary := k.notary(t)
	bundle, other := sealAs(t, notary, statement(t, "one"), attestorName), sealAs(t, notary, statement(t, "two"), attestorName)
	certificate := path{"verificationMaterial", "certificate", "rawBytes"}
	entry := path{"verificationMaterial", "tlogEntries", 0}
	cases := map[string]struct {
		at     path
		change func(t *testing.T, value any) any
	}{
		"payload":               {path{"dsseEnvelope", "payload"}, flipBase64},
		"signature":             {path{"dsseEnvelope", "signatures", 0, "sig"}, flipBase64},
		"certificate":           {certificate, flipBase64},
		"another's certificate": {certificate, replace(at(t, other, certificate))},
		"another's entry":       {entry, replace(at(t, other, entry))},
		"entry's body":          {slices.Concat(entry, path{"canonicalizedBody"}), flipBase64},
		"key in its place":      {path{"verificationMaterial"}, withKeyHint},
	}
	for name, test := range cases {
		if verified, err := notary.Verify(changeAt(t, bundle, test.at, test.change)); err == nil {
			t.Errorf("%s: verified %+v", name, verified)
		}
	}
}

// withKeyHint names a key where the certificate was.
func withKeyHint(t *testing.T, value any) any {
	t.Helper()
	material := as[map[string]any](t, value)
	delete(material, "certificate")
	material["publicKey"] = map[string]any{"hint": "bm9ib2R5"}
	return material
}

func tokenIsReadAnew(t *testing.T, k *keyless) {
	t.Cleanup(func() { k.mount(t, claims{}) })
	notary := k.notary(t)
	sealAs(t, notary, statement(t, "before"), attestorName)
	k.mount(t, claims{account: "somebody-else"})
	if _, _, err := notary.Sign(t.Context(), statement(t, "after")); !errors.Is(err, attest.ErrUnknownKey) ||
		!says(err, "serviceaccounts/somebody-else") {
		t.Errorf("sign as another account: %v", err)
	}
	if _, err := notary.Check(t.Context()); !errors.Is(err, attest.ErrUnknownKey) {
		t.Errorf("check as another account: %v", err)
	}
	k.mount(t, claims{audience: fulcioAudience}) // as a string instead of a list
	sealAs(t, notary, statement(t, "again"), attestorName)
}

// fulcioRefuses has tokens that say nothing wrong of themselves, so that they are sent.
func fulcioRefuses(t *testing.T, k *keyless) {
	stranger := startIssuer(t)
	stranger.url = k.issuer.url // signs with another key
	cases := map[string]struct {
		audience, token string
	}{
		"audience that the authority does not take": {"other", k.issuer.token(t, claims{audience: "other"})},
		"issuer that the authority does not know":   {fulcioAudience, k.issuer.token(t, claims{issuer: "https://elsewhere"})},
		"signature of another key":                  {fulcioAudience, stranger.token(t, claims{})},
	}
	for name, test := range cases {
		notary, config := k.notary(t), k.config()
		config.Audience, config.TokenFile = test.audience, t.TempDir()+"/token"
		writeFile(t, config.TokenFile, test.token)
		signer, err := attest.NewKeyless(config)
		if err != nil {
			t.Fatal(err)
		}
		notary.Signer = signer
		if _, _, err := notary.Sign(t.Context(), statement(t, name)); !errors.Is(err, attest.ErrRefused) || !says(err, "400", "client-id") {
			t.Errorf("%s: sign: %v", name, err)
		}
		if _, err := notary.Check(t.Context()); !errors.Is(err, attest.ErrRefused) {
			t.Errorf("%s: check: %v", name, err)
		}
	}
}

func keysDiffer(t *testing.T, k *keyless) {
	notary := k.notary(t)
	ids := make([]string, 8)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			envelope, _, err := notary.Sign(t.Context(), statement(t, "parallel"))
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := notary.Publish(t.Context(), envelope); err != nil {
				t.Error(err)
			}
			parsed, err := attest.ParseEnvelope(envelope)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = parsed.Signatures[0].KeyID
		})
	}
	group.Wait()
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 8 {
		t.Errorf("keys %v", ids)
	}
}

// stale is a signer whose certificates have the lifetime that a test needs.
type stale struct {
	authority *authority
	issuer    string
	from, to  time.Time
}

func (s stale) Credential(context.Context) (attest.Credential, error) {
	return attest.Credential{}, errors.New("not needed here")
}

func (s stale) Sign(_ context.Context, data []byte) (attest.Signature, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return attest.Signature{}, err
	}
	name, err := url.Parse(attestorName)
	if err != nil {
		return attest.Signature{}, err
	}
	issuer, err := asn1.MarshalWithParams(s.issuer, "utf8")
	if err != nil {
		return attest.Signature{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: s.from, NotAfter: s.to, URIs: []*url.URL{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.authority.certificate, key.Public(), s.authority.key)
	if err != nil {
		return attest.Signature{}, err
	}
	digest := sha256.Sum256(data)
	raw, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	return attest.Signature{Credential: attest.Credential{KeyID: "stale", Certificate: der}, Bytes: raw}, err
}

func certificateRanOut(t *testing.T, k *keyless) {
	authority, notary, now := newAuthority(t), k.notary(t), time.Now()
	var err error
	notary.Trust, err = attest.LoadTrust(withAuthority(t, k.trustedRoot, authority.certificate), nil, k.identity())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		from, to time.Duration
		want     error
	}{
		"in time":            {-time.Minute, 9 * time.Minute, nil},
		"ran out":            {-15 * time.Minute, -5 * time.Minute, attest.ErrExpired},
		"clock of the other": {30 * time.Minute, 40 * time.Minute, attest.ErrClock},
	} {
		notary.Signer = stale{authority, k.issuer.url, now.Add(test.from), now.Add(test.to)}
		envelope, _, err := notary.Sign(t.Context(), statement(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if bundle, err := notary.Publish(t.Context(), envelope); !errors.Is(err, test.want) || (err == nil) != (bundle != nil) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

// secured puts TLS with a certificate that no system trusts before a server.
func secured(t *testing.T, address string) (secure, caBundle string) {
	t.Helper()
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
	}})
	t.Cleanup(front.Close)
	return front.URL + target.Path, string(certificatePEM(front.Certificate().Raw))
}

func privateAuthority(t *testing.T, k *keyless) {
	notary, config := k.notary(t), k.config()
	rekor, caBundle := secured(t, k.servers.Log.RekorURL)
	stamps, _ := secured(t, k.servers.Log.TimestampURL)
	config.URL, _ = secured(t, k.url) // one certificate for all test servers
	for name, test := range map[string]struct {
		caBundle string
		trusted  bool
	}{"with its CA": {caBundle, true}, "with another": {string(certificatePEM(newAuthority(t).certificate.Raw)), false}, "without": {"", false}} {
		config.CABundle = test.caBundle
		signer, err := attest.NewKeyless(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signer.Sign(t.Context(), []byte("x")); (err == nil) != test.trusted || !test.trusted && !unknownAuthority(err) {
			t.Errorf("certificate %s: %v", name, err)
		}
		envelope, _, err := notary.Sign(t.Context(), statement(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for server, urls := range map[string][2]string{
			"log": {rekor, k.servers.Log.TimestampURL}, "timestamp": {k.servers.Log.RekorURL, stamps},
		} {
			log, err := attest.NewLog(urls[0], urls[1], test.caBundle)
			if err != nil {
				t.Fatal(err)
			}
			_, err = log.Add(t.Context(), envelope, notary.Trust)
			if again := errors.Is(err, attest.ErrDuplicate); (err == nil || again) != test.trusted || !test.trusted && !unknownAuthority(err) {
				t.Errorf("%s %s: %v", server, name, err)
			}
		}
	}
}

func unknownAuthority(err error) bool {
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}

func bothModes(t *testing.T, k *keyless) {
	keys := map[string][]byte{custodytest.KeyName: k.servers.PublicKey(t, custodytest.KeyName)}
	trust, err := attest.LoadTrust(k.trustedRoot, keys, k.identity())
	if err != nil {
		t.Fatal(err)
	}
	_, transit := seal(t, k.servers.Notary(t), statement(t, "transit"))
	for want, bundle := range map[string][]byte{
		custodytest.KeyName: transit, attestorName: sealAs(t, k.notary(t), statement(t, "keyless"), attestorName),
	} {
		if verified, err := trust.Verify(bundle); err != nil || verified.Signer != want {
			t.Errorf("signer %q, %v", verified.Signer, err)
		}
	}
}

func strangersAuthority(t *testing.T, k *keyless) {
	notary, now := k.notary(t), time.Now()
	notary.Signer = stale{newAuthority(t), k.issuer.url, now.Add(-time.Minute), now.Add(time.Minute)}
	if _, _, err := notary.Sign(t.Context(), statement(t, "stranger")); !errors.Is(err, attest.ErrUnknownKey) || !says(err, "trusted root") {
		t.Errorf("got %v", err)
	}
}

func identityUnknown(t *testing.T, k *keyless) {
	notary := k.notary(t)
	var err error
	notary.Trust, err = attest.LoadTrust(k.trustedRoot, nil, attest.Identity{Name: "https://other", Issuer: k.issuer.url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := notary.Check(t.Context()); !errors.Is(err, attest.ErrUnknownKey) || !says(err, attestorName, k.issuer.url) {
		t.Errorf("got %v", err)
	}
}
