package verifytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rekortiles "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	"github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"google.golang.org/protobuf/encoding/protojson"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/attest"
)

const (
	// Identity of the certificates that the authority issues unless told otherwise.
	Identity = "https://kubernetes.io/namespaces/ugallu-system/serviceaccounts/ugallu-attestor"
	// Issuer of the tokens that prove it.
	Issuer = "https://kubernetes.default.svc"
	// KeyName of the trusted key.
	KeyName = "attestor"

	logHost = "rekor.local"
	day     = 24 * time.Hour
)

// Signature says who signs, and how.
type Signature struct {
	// Key signs with the trusted key; otherwise with a key that a certificate binds to Identity of Issuer.
	Key              bool
	Identity, Issuer string
	// CertifiedAt is when the certificate was issued; it lasts ten minutes. Zero is now.
	CertifiedAt time.Time
	// Over is the payload that is signed in place of the statement; nil is the statement.
	Over []byte
	// Logged is the payload whose entry the bundle carries in place of its own; nil is its own.
	Logged []byte
}

// Keyless is a signature by the trusted identity.
func Keyless() Signature { return Signature{Identity: Identity, Issuer: Issuer} }

// Authority is a certificate authority, a time-stamping authority, a log in Rekor's second format, and a key.
type Authority struct {
	t         testing.TB
	key       *ecdsa.PrivateKey
	logKey    ed25519.PrivateKey
	logID     []byte
	tree      *testonly.Tree
	issuer    *x509.Certificate
	issuerKey *ecdsa.PrivateKey
	stamps    *ca.VirtualSigstore
	archive   Archive
}

// NewAuthority makes new keys.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	_, id, err := note.KeyHash(logHost, public)
	must(t, err)
	stamps, err := ca.NewVirtualSigstore()
	must(t, err)
	a := &Authority{
		t: t, key: newKey(t), logKey: private, logID: id, tree: testonly.New(rfc6962.DefaultHasher), issuerKey: newKey(t), stamps: stamps,
		archive: NewArchive(t),
	}
	a.tree.AppendData([]byte("an entry of somebody else"))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(day),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	a.issuer = certify(t, template, template, &a.issuerKey.PublicKey, a.issuerKey)
	return a
}

// TrustedRoot in JSON.
func (a *Authority) TrustedRoot() []byte {
	a.t.Helper()
	issuer := &root.FulcioCertificateAuthority{
		Root: a.issuer, ValidityPeriodStart: a.issuer.NotBefore, ValidityPeriodEnd: a.issuer.NotAfter, URI: "https://fulcio.local",
	}
	log := &root.TransparencyLog{
		BaseURL: "https://" + logHost, ID: a.logID, HashFunc: crypto.SHA256, PublicKey: a.logKey.Public(), SignatureHashFunc: crypto.SHA256,
		ValidityPeriodStart: time.Now().Add(-day),
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{issuer}, nil,
		a.stamps.TimestampingAuthorities(), map[string]*root.TransparencyLog{hex.EncodeToString(a.logID): log})
	must(a.t, err)
	data, err := trusted.MarshalJSON()
	must(a.t, err)
	return data
}

// PublicKey of the trusted key, PEM.
func (a *Authority) PublicKey() []byte {
	a.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&a.key.PublicKey)
	must(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Trust believes in the authority and its usual identity.
func (a *Authority) Trust() *attest.Trust {
	a.t.Helper()
	return a.trust(nil, attest.Identity{Name: Identity, Issuer: Issuer})
}

// TrustKey believes in the authority and its key.
func (a *Authority) TrustKey() *attest.Trust {
	a.t.Helper()
	return a.trust(map[string][]byte{KeyName: a.PublicKey()})
}

// TrustBoth believes in the authority, and asks about its key and its usual identity.
func (a *Authority) TrustBoth() *attest.Trust {
	a.t.Helper()
	return a.trust(map[string][]byte{KeyName: a.PublicKey()}, attest.Identity{Name: Identity, Issuer: Issuer})
}

func (a *Authority) trust(keys map[string][]byte, identities ...attest.Identity) *attest.Trust {
	a.t.Helper()
	trust, err := attest.LoadTrust(a.TrustedRoot(), keys, identities...)
	must(a.t, err)
	return trust
}

// Seal signs, stamps and logs a statement, and returns its bundle.
func (a *Authority) Seal(payload []byte, by Signature) []byte {
	a.t.Helper()
	if by.Over != nil {
		payload = by.Over
	}
	key, material, verifier := a.credential(by)
	encoded := preAuthEncoding(payload)
	digest := sha256.Sum256(encoded)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	must(a.t, err)
	stamped, err := a.stamps.TimestampResponse(signature)
	must(a.t, err)
	logged := digest
	if by.Logged != nil {
		logged = sha256.Sum256(preAuthEncoding(by.Logged))
	}
	material.TimestampVerificationData = &protobundle.TimestampVerificationData{
		Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamped}},
	}
	material.TlogEntries = []*protorekor.TransparencyLogEntry{a.enter(logged[:], signature, verifier)}
	spaced, err := protojson.Marshal(&protobundle.Bundle{
		MediaType: evidence.MediaTypeBundle,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: evidence.PayloadType, Signatures: []*protodsse.Signature{{Sig: signature}},
		}},
		VerificationMaterial: material,
	})
	must(a.t, err)
	var compact bytes.Buffer
	must(a.t, json.Compact(&compact, spaced))
	return compact.Bytes()
}

func (a *Authority) credential(by Signature) (*ecdsa.PrivateKey, *protobundle.VerificationMaterial, *rekortiles.Verifier) {
	a.t.Helper()
	verifier := &rekortiles.Verifier{KeyDetails: protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256}
	if by.Key {
		der, err := x509.MarshalPKIXPublicKey(&a.key.PublicKey)
		must(a.t, err)
		verifier.Verifier = &rekortiles.Verifier_PublicKey{PublicKey: &rekortiles.PublicKey{RawBytes: der}}
		id := sha256.Sum256(der)
		return a.key, &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{
			PublicKey: &protocommon.PublicKeyIdentifier{Hint: base64.StdEncoding.EncodeToString(id[:])},
		}}, verifier
	}
	key := newKey(a.t)
	leaf := &protocommon.X509Certificate{RawBytes: a.certificate(by, key).Raw}
	verifier.Verifier = &rekortiles.Verifier_X509Certificate{X509Certificate: leaf}
	return key, &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_Certificate{Certificate: leaf}}, verifier
}

// certificate has the name and the extensions that Fulcio gives to a ServiceAccount.
func (a *Authority) certificate(by Signature, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	name, err := url.Parse(by.Identity)
	must(a.t, err)
	issuer, err := asn1.Marshal(by.Issuer)
	must(a.t, err)
	from := by.CertifiedAt
	if from.IsZero() {
		from = time.Now().Add(-time.Minute)
	}
	return certify(a.t, &x509.Certificate{
		SerialNumber: big.NewInt(2), URIs: []*url.URL{name}, NotBefore: from, NotAfter: from.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(by.Issuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer},
		},
	}, a.issuer, &key.PublicKey, a.issuerKey)
}

// enter adds an entry to the log and returns the proof of it.
func (a *Authority) enter(digest, signature []byte, verifier *rekortiles.Verifier) *protorekor.TransparencyLogEntry {
	a.t.Helper()
	spaced, err := protojson.Marshal(&rekortiles.Entry{
		Kind: "hashedrekord", ApiVersion: "0.0.2",
		Spec: &rekortiles.Spec{Spec: &rekortiles.Spec_HashedRekordV002{HashedRekordV002: &rekortiles.HashedRekordLogEntryV002{
			Data:      &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest},
			Signature: &rekortiles.Signature{Content: signature, Verifier: verifier},
		}}},
	})
	must(a.t, err)
	body, err := evidence.Canonical(json.RawMessage(spaced))
	must(a.t, err)
	index := a.tree.Size()
	number := int64(index) // #nosec G115 -- the leaves of one test
	a.tree.AppendData(body)
	path, err := a.tree.InclusionProof(index, a.tree.Size())
	must(a.t, err)
	return &protorekor.TransparencyLogEntry{
		LogIndex: number, LogId: &protocommon.LogId{KeyId: a.logID}, CanonicalizedBody: body,
		KindVersion: &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"},
		InclusionProof: &protorekor.InclusionProof{
			LogIndex: number, TreeSize: number + 1, RootHash: a.tree.Hash(), Hashes: path,
			Checkpoint: &protorekor.Checkpoint{Envelope: a.checkpoint()},
		},
	}
}

// checkpoint signs the tree as it is.
func (a *Authority) checkpoint() string {
	text := fmt.Sprintf("%s\n%d\n%s\n", logHost, a.tree.Size(), base64.StdEncoding.EncodeToString(a.tree.Hash()))
	hint, _, err := note.KeyHash(logHost, a.logKey.Public())
	must(a.t, err)
	signed := binary.BigEndian.AppendUint32(nil, hint)
	signed = append(signed, ed25519.Sign(a.logKey, []byte(text))...)
	return fmt.Sprintf("%s\n— %s %s\n", text, logHost, base64.StdEncoding.EncodeToString(signed))
}

func preAuthEncoding(payload []byte) []byte {
	content := sign.DSSEData{Data: payload, PayloadType: evidence.PayloadType}
	return content.PreAuthEncoding()
}

func certify(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	must(t, err)
	certificate, err := x509.ParseCertificate(der)
	must(t, err)
	return certificate
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
