package attest_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/custodytest"
	"ugallu.io/forensics/internal/testneeds"
)

func statement(t testing.TB, name string) []byte {
	t.Helper()
	data, err := evidence.Canonical(evidence.Statement{
		Type:          evidence.StatementType,
		Subject:       []evidence.Subject{evidence.SHA256Subject(name, evidence.Digest([]byte(name)))},
		PredicateType: evidence.PredicateTypeSecurityEvent,
		Predicate:     evidence.SecurityEventPredicate{Event: evidence.Reference{Name: name, UID: name}, Spec: []byte("{}")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func seal(t testing.TB, notary *attest.Notary, payload []byte) (envelope, bundle []byte) {
	t.Helper()
	envelope, signer, err := notary.Sign(t.Context(), payload)
	if err != nil {
		t.Fatal(err)
	}
	if signer != custodytest.KeyName {
		t.Errorf("signer is %q", signer)
	}
	bundle, err = notary.Publish(t.Context(), envelope)
	if err != nil {
		t.Fatal(err)
	}
	return envelope, bundle
}

// TestRealServers starts the servers once for every case.
func TestRealServers(t *testing.T) {
	servers := custodytest.Start(t)
	t.Run("bundle verifies offline", func(t *testing.T) { verifiesOffline(t, servers) })
	t.Run("tampering is refused", func(t *testing.T) { tamperingIsRefused(t, servers) })
	t.Run("lost answer of the log", func(t *testing.T) { lostAnswer(t, servers) })
	t.Run("rotated key", func(t *testing.T) { rotatedKey(t, servers) })
	t.Run("other key", func(t *testing.T) { otherKey(t, servers) })
	t.Run("wrong token", func(t *testing.T) { wrongToken(t, servers) })
	t.Run("Kubernetes login", func(t *testing.T) { kubernetesLogin(t, servers) })
	t.Run("wrong login", func(t *testing.T) { wrongLogin(t, servers) })
}

func verifiesOffline(t *testing.T, servers *custodytest.Servers) {
	notary, payload, before := servers.Notary(t), statement(t, "offline"), time.Now().Add(-time.Minute)
	_, bundle := seal(t, notary, payload)
	offline, err := attest.LoadTrust(servers.TrustedRoot, map[string][]byte{"named": servers.PublicKey(t, custodytest.KeyName)})
	if err != nil {
		t.Fatal(err)
	}
	verified, err := offline.Verify(bundle)
	if err != nil {
		t.Fatal(err)
	}
	if says, err := attest.Payload(bundle); err != nil || !bytes.Equal(says, payload) {
		t.Errorf("says that it is signed over %s (%v), not %s", says, err, payload)
	}
	if !bytes.Equal(verified.Payload, payload) || verified.Signer != "named" || verified.LogIndex < 0 {
		t.Errorf("got %+v", verified)
	}
	if verified.Timestamp.Before(before) || verified.Timestamp.After(time.Now().Add(time.Minute)) {
		t.Errorf("timestamp %s", verified.Timestamp)
	}
}

// path walks through decoded JSON; numbers are indexes.
type path []any

func tamperingIsRefused(t *testing.T, servers *custodytest.Servers) {
	notary := servers.Notary(t)
	seal(t, notary, statement(t, "before")) // a tree of one leaf has an empty proof
	_, bundle := seal(t, notary, statement(t, "tampered"))
	_, other := seal(t, notary, statement(t, "another"))
	material := path{"verificationMaterial"}
	entry := slices.Concat(material, path{"tlogEntries", 0})
	proof := slices.Concat(entry, path{"inclusionProof"})
	timestamps := slices.Concat(material, path{"timestampVerificationData", "rfc3161Timestamps"})
	cases := map[string]struct {
		at     path
		change func(t *testing.T, value any) any
	}{
		"payload":             {path{"dsseEnvelope", "payload"}, flipBase64},
		"payload type":        {path{"dsseEnvelope", "payloadType"}, replace("application/json")},
		"signature":           {path{"dsseEnvelope", "signatures", 0, "sig"}, flipBase64},
		"timestamp":           {slices.Concat(timestamps, path{0, "signedTimestamp"}), flipBase64},
		"another's timestamp": {timestamps, replace(at(t, other, timestamps))},
		"missing timestamp":   {timestamps, replace([]any{})},
		"missing entry":       {slices.Concat(material, path{"tlogEntries"}), replace([]any{})},
		"another's entry":     {slices.Concat(material, path{"tlogEntries", 0}), replace(at(t, other, entry))},
		"checkpoint":          {slices.Concat(proof, path{"checkpoint", "envelope"}), flipText},
		"log index":           {slices.Concat(entry, path{"logIndex"}), replace("0")},
		"proof's log index":   {slices.Concat(proof, path{"logIndex"}), replace("0")},
		"proof's tree size":   {slices.Concat(proof, path{"treeSize"}), replace("1000")},
		"proof's hash":        {slices.Concat(proof, path{"hashes", 0}), flipBase64},
		"proof's root":        {slices.Concat(proof, path{"rootHash"}), flipBase64},
		"entry's body":        {slices.Concat(entry, path{"canonicalizedBody"}), flipBase64},
		"log id":              {slices.Concat(entry, path{"logId", "keyId"}), flipBase64},
		"key":                 {slices.Concat(material, path{"publicKey", "hint"}), replace("bm9ib2R5")},
	}
	if _, err := notary.Verify(bundle); err != nil {
		t.Fatalf("untouched: %v", err)
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			changed := changeAt(t, bundle, test.at, test.change)
			if bytes.Equal(changed, bundle) {
				t.Fatal("nothing changed")
			}
			if verified, err := notary.Verify(changed); err == nil {
				t.Errorf("verified: %+v", verified)
			}
		})
	}
}

func lostAnswer(t *testing.T, servers *custodytest.Servers) {
	notary, payload := servers.Notary(t), statement(t, "lost")
	envelope, _ := seal(t, notary, payload)
	if _, err := notary.Publish(t.Context(), envelope); !errors.Is(err, attest.ErrDuplicate) {
		t.Fatalf("got %v, want ErrDuplicate", err)
	}
	_, bundle := seal(t, notary, payload)
	verified, err := notary.Verify(bundle)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(verified.Payload, payload) {
		t.Error("another payload")
	}
}

func rotatedKey(t *testing.T, servers *custodytest.Servers) {
	old := servers.Notary(t)
	envelope, _, err := old.Sign(t.Context(), statement(t, "rotated"))
	if err != nil {
		t.Fatal(err)
	}
	first := servers.PublicKey(t, custodytest.KeyName)
	servers.RotateKey(t, custodytest.KeyName)
	if _, _, err := old.Sign(t.Context(), statement(t, "rotated")); !errors.Is(err, attest.ErrUnknownKey) {
		t.Errorf("sign with a new version that is not trusted: got %v, want ErrUnknownKey", err)
	}
	if _, err := old.Check(t.Context()); !errors.Is(err, attest.ErrUnknownKey) || !says(err, custodytest.KeyName, "version 2") {
		t.Errorf("check: got %v, want ErrUnknownKey of version 2", err)
	}
	both := servers.Notary(t)
	both.Trust, err = attest.LoadTrust(servers.TrustedRoot, map[string][]byte{
		"first": first, "second": servers.PublicKey(t, custodytest.KeyName),
	})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := both.Publish(t.Context(), envelope)
	if err != nil {
		t.Fatalf("log an envelope signed before the rotation: %v", err)
	}
	verified, err := both.Verify(bundle)
	if err != nil || verified.Signer != "first" {
		t.Errorf("signer %q, %v", verified.Signer, err)
	}
	if name, err := both.Check(t.Context()); err != nil || name != "second" {
		t.Errorf("key %q, %v", name, err)
	}
}

func otherKey(t *testing.T, servers *custodytest.Servers) {
	_, bundle := seal(t, servers.Notary(t), statement(t, "other key"))
	servers.CreateKey(t, "stranger")
	stranger, err := attest.LoadTrust(servers.TrustedRoot, map[string][]byte{"stranger": servers.PublicKey(t, "stranger")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Verify(bundle); err == nil {
		t.Error("verified with another key")
	}
}

func wrongToken(t *testing.T, servers *custodytest.Servers) {
	config := servers.Transit
	config.TokenFile = filepath.Join(t.TempDir(), "token")
	signer, err := attest.NewTransit(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.Sign(t.Context(), []byte("x")); !errors.Is(err, os.ErrNotExist) || !errors.Is(err, attest.ErrToken) {
		t.Errorf("no token file: %v", err)
	}
	if err := os.WriteFile(config.TokenFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := signer.Sign(t.Context(), []byte("x")); !errors.Is(err, attest.ErrRefused) || !says(err, "403") {
		t.Errorf("wrong token: %v", err)
	}
}

func TestSignerThatIsAwayIsAnError(t *testing.T) {
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := attest.NewTransit(attest.TransitConfig{
		Address: "http://" + testneeds.FreeAddress(t), Mount: "transit", Key: "k", TokenFile: tokenFile,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := signer.Sign(ctx, []byte("x")); err == nil || ctx.Err() != nil {
		t.Errorf("got %v, %v", err, ctx.Err())
	}
}

func flipBase64(t *testing.T, value any) any {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(as[string](t, value))
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	return base64.StdEncoding.EncodeToString(data)
}

// flipText changes a digit of the second line, the size of the tree.
func flipText(t *testing.T, value any) any {
	t.Helper()
	lines := strings.SplitN(as[string](t, value), "\n", 3)
	lines[1] += "0"
	return strings.Join(lines, "\n")
}

func replace(with any) func(*testing.T, any) any { return func(*testing.T, any) any { return with } }

func at(t *testing.T, data []byte, where path) any {
	t.Helper()
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	for _, step := range where {
		value = child(t, value, step)
	}
	return value
}

func child(t *testing.T, value, step any) any {
	t.Helper()
	if index, ok := step.(int); ok {
		return as[[]any](t, value)[index]
	}
	return as[map[string]any](t, value)[as[string](t, step)]
}

func as[T any](t *testing.T, value any) T {
	t.Helper()
	typed, ok := value.(T)
	if !ok {
		t.Fatalf("%v is a %T, want a %T", value, value, typed)
	}
	return typed
}

func changeAt(t *testing.T, data []byte, where path, change func(*testing.T, any) any) []byte {
	t.Helper()
	var document any
	if err := json.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	parent := document
	for _, step := range where[:len(where)-1] {
		parent = child(t, parent, step)
	}
	last := where[len(where)-1]
	if index, ok := last.(int); ok {
		list := as[[]any](t, parent)
		list[index] = change(t, list[index])
	} else {
		object, name := as[map[string]any](t, parent), as[string](t, last)
		object[name] = change(t, object[name])
	}
	changed, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}
