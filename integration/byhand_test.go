//go:build integration

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/integration/internal/byhand"
	"ugallu.io/forensics/internal/testneeds"
)

// What the cluster's certificate authority certifies the attestor as.
const (
	attestorIdentity = "https://kubernetes.io/namespaces/" + v1alpha1.NamespaceSystem + "/serviceaccounts/ugallu-attestor"
	clusterIssuer    = "https://kubernetes.default.svc.cluster.local"
)

// bytesOnRecord is the step of docs/verify-by-hand.md that a changed byte of an archive ends at.
const bytesOnRecord = "3. Every object has the bytes on record"

// signers is what the plugin is told of who may sign in a mode.
func (p plugin) signers(mode byhand.Mode) []string {
	if mode == byhand.Keyless {
		return []string{"--trusted-root", p.trustedRoot, "--identity", attestorIdentity, "--issuer", clusterIssuer}
	}
	return []string{"--trusted-root", p.trustedRoot, "--key", p.key}
}

// keyless has statements signed with certificates until the test ends.
func keyless(t *testing.T) {
	t.Helper()
	setModes(t, `["fulcio-keyless"]`, `{"url":"http://fulcio.ugallu-demo.svc:5555","insecureAllowHTTP":true}`)
	t.Cleanup(func() { setModes(t, `["openbao-transit"]`, "null") })
}

// TestCustodyByHand verifies an incident with the commands of docs/verify-by-hand.md, as a stranger would.
func TestCustodyByHand(t *testing.T) {
	cosign := os.Getenv("FORENSICS_COSIGN")
	testneeds.That(t, cosign != "", "FORENSICS_COSIGN names no cosign")
	document, err := os.ReadFile("../docs/verify-by-hand.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Run(string(byhand.Key), func(t *testing.T) {
		verifyByHand(t, string(document), cosign, byhand.Key, suite.released.get(t, releasedScene))
	})
	t.Run(string(byhand.Keyless), func(t *testing.T) {
		keyless(t)
		s := suite.stage(t, idle("only"))
		suite.strikeAfter(t, s)
		suite.detect(t, s)
		suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
		if err := suite.release(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		verifyByHand(t, string(document), cosign, byhand.Keyless, s)
	})
}

// verifyByHand fetches an incident, verifies it, and demands that one changed byte and another signer are refused.
func verifyByHand(t *testing.T, document, cosign string, mode byhand.Mode, s *scene) {
	t.Helper()
	record, p := custody(t, s), newPlugin(t)
	folder := t.TempDir()
	fetch := func(name string) byhand.Incident {
		has := byhand.Incident{
			Folder: filepath.Join(folder, name), TrustedRoot: p.trustedRoot, Key: p.key, Identity: attestorIdentity, Issuer: clusterIssuer,
		}
		p.demand(t, 0, append([]string{"fetch", record, has.Folder, "--endpoint", p.endpoint}, p.signers(mode)...)...)
		return has
	}
	demand := func(has byhand.Incident, mode byhand.Mode, step string) {
		said, err := byhand.Verify(t.Context(), document, cosign, mode, has)
		var refused *byhand.RefusedError
		if !errors.As(err, &refused) || !strings.HasPrefix(refused.Step, step) {
			t.Errorf("%v\n%s\nwant a refusal by step %q", err, said, step)
		}
	}
	whole := fetch("whole")
	if said, err := byhand.Verify(t.Context(), document, cosign, mode, whole); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	tampered := fetch("tampered")
	changeByte(t, tampered.Folder, "rootfs.tar.zst")
	demand(tampered, mode, bytesOnRecord)
	other := map[byhand.Mode]byhand.Mode{byhand.Key: byhand.Keyless, byhand.Keyless: byhand.Key}[mode]
	demand(fetch("another-signer"), other, "2. ")
}

// changeByte changes the middle of a file whose path contains a part.
func changeByte(t *testing.T, folder, part string) {
	t.Helper()
	var found string
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.Contains(path, part) {
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("no %s in the copy (%v)", part, err)
	}
	data, err := os.ReadFile(found)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := errors.Join(os.Chmod(found, 0o600), os.WriteFile(found, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}
