//go:build integration

package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// plugin is kubectl-forensics as an analyst has it: the program, the trusted root, and a credential that only reads.
type plugin struct {
	path, trustedRoot, key string
	environment            []string
	endpoint               string
}

func newPlugin(t *testing.T) plugin {
	t.Helper()
	folder := t.TempDir()
	p := plugin{
		path: filepath.Join(folder, "kubectl-forensics"), trustedRoot: filepath.Join(folder, "trusted_root.json"), key: filepath.Join(folder, "key.pub"),
		endpoint: "http://" + suite.analyst(t).address,
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", p.path, "../kubectl-forensics") // #nosec G204 -- our own program
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	var published corev1.ConfigMap
	suite.look(t, client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: trustName}, &published)
	var credentials corev1.Secret
	suite.look(t, client.ObjectKey{Namespace: storeNamespace, Name: analystSecret}, &credentials)
	p.environment = []string{
		"AWS_ACCESS_KEY_ID=" + string(credentials.Data["access-key"]), "AWS_SECRET_ACCESS_KEY=" + string(credentials.Data["secret-key"]),
	}
	key := ""
	for name, value := range published.Data {
		if strings.HasSuffix(name, ".pub") {
			key = value
		}
	}
	if err := errors.Join(os.WriteFile(p.trustedRoot, []byte(published.Data["trusted_root.json"]), 0o600), os.WriteFile(p.key, []byte(key), 0o600)); err != nil {
		t.Fatal(err)
	}
	return p
}

// run returns the exit code and what was printed.
func (p plugin) run(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), p.path, args...) // #nosec G204 -- our own program
	command.Env = append(command.Environ(), p.environment...)
	printed, err := command.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), string(printed)
}

// demand runs the plugin and demands an exit code.
func (p plugin) demand(t *testing.T, code int, args ...string) string {
	t.Helper()
	got, out := p.run(t, args...)
	if got != code {
		var failed []string
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, "✓") {
				failed = append(failed, line)
			}
		}
		t.Errorf("%v ended with %d, want %d:\n%s", args[:2], got, code, strings.Join(failed, ""))
	}
	return out
}

// custody waits for the incident's last record and returns its URL.
func custody(t *testing.T, s *scene) string {
	t.Helper()
	var incident v1alpha1.Incident
	err := eventually(t.Context(), captureTime, func(ctx context.Context) (bool, string, error) {
		err := suite.Get(ctx, client.ObjectKey{Name: s.incident}, &incident)
		return err == nil && len(incident.Status.Custody) == 2, describe(incident.Status.Conditions), err
	})
	if err != nil {
		t.Fatalf("custody records of incident %s: %v\n%s", s.incident, err, suite.account(t.Context(), s))
	}
	return "s3://" + incident.Spec.Snapshot.Destination.Bucket + "/" + incident.Status.Custody[1].Key
}

func TestCustodyPluginVerifiesAnIncidentFromTheStoreAndOffline(t *testing.T) {
	released := suite.released.get(t, releasedScene)
	record, p := custody(t, released), newPlugin(t)
	trust := []string{"--trusted-root", p.trustedRoot, "--key", p.key}
	p.demand(t, 0, append([]string{"verify", record, "--endpoint", p.endpoint}, trust...)...)
	out := p.demand(t, 0, append([]string{"verify", record, "--endpoint", p.endpoint, "--file", "/evidence"}, trust...)...)
	if !strings.Contains(out, "/evidence") {
		t.Errorf("the planted file is not named:\n%s", out)
	}
	fetched := filepath.Join(t.TempDir(), "copy")
	p.demand(t, 0, append([]string{"fetch", record, fetched, "--endpoint", p.endpoint}, trust...)...)
	p.demand(t, 0, append([]string{"verify", fetched}, trust...)...)

	var segment string
	err := filepath.WalkDir(fetched, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.Contains(path, "rootfs.tar.zst") {
			segment = path
		}
		return err
	})
	if err != nil || segment == "" {
		t.Fatalf("no root filesystem in the copy (%v)", err)
	}
	data, err := os.ReadFile(segment) // #nosec G304 -- below the test's folder
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := errors.Join(os.Chmod(segment, 0o600), os.WriteFile(segment, data, 0o600)); err != nil { // #nosec G703 -- the same
		t.Fatal(err)
	}
	out = p.demand(t, 1, append([]string{"verify", fetched}, trust...)...)
	if !strings.Contains(out, "✗ object") || !strings.Contains(out, "rootfs.tar.zst") {
		t.Errorf("the link is not named:\n%.2000s", out)
	}
}

// TestCustodyKeylessIncident signs a whole incident with certificates for the attestor's own ServiceAccount.
func TestCustodyKeylessIncident(t *testing.T) {
	s := signedIn(t, `["fulcio-keyless"]`)
	record, p := custody(t, s), newPlugin(t)
	target := []string{"verify", record, "--endpoint", p.endpoint, "--trusted-root", p.trustedRoot}
	p.demand(t, 0, append(target, "--identity", identity, "--issuer", issuer)...)
	p.demand(t, 1, append(target, "--identity", identity+"-of-another", "--issuer", issuer)...)
	p.demand(t, 1, append(target, "--identity", identity, "--issuer", "https://issuer.invalid")...)
	p.demand(t, 1, append(target, "--key", p.key)...)
}

// Whom certificates of the attestor name.
const (
	identity = "https://kubernetes.io/namespaces/" + v1alpha1.NamespaceSystem + "/serviceaccounts/ugallu-attestor"
	issuer   = "https://kubernetes.default.svc.cluster.local"
)

// signedIn has a whole incident, up to its release, signed in these modes.
func signedIn(t *testing.T, modes string) *scene {
	t.Helper()
	setModes(t, modes, `{"url":"http://fulcio.ugallu-demo.svc:5555","insecureAllowHTTP":true}`)
	t.Cleanup(func() { setModes(t, `["openbao-transit"]`, "null") })
	s := suite.stage(t, idle("only"))
	suite.strikeAfter(t, s)
	suite.detect(t, s)
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return s
}

// provenInBoth says whether the second signature over the last record is among the checks that passed.
func provenInBoth(out string) bool {
	_, checks, _ := strings.Cut(out, "✓ statement over custody-2 in fulcio-keyless: ")
	checks, _, _ = strings.Cut(checks, "\n")
	checks, _, _ = strings.Cut(checks, " (")
	return slices.Contains(strings.Split(checks, ", "), "signature")
}

// TestCustodyIncidentInBothModes signs every statement twice, and lets a stranger ask about either signature, or both.
func TestCustodyIncidentInBothModes(t *testing.T) {
	s := signedIn(t, `["openbao-transit","fulcio-keyless"]`)
	record, p := custody(t, s), newPlugin(t)
	demandTwoBundles(t, s)
	target := []string{"verify", record, "--endpoint", p.endpoint, "--trusted-root", p.trustedRoot}
	byKey, byIdentity := []string{"--key", p.key}, []string{"--identity", identity, "--issuer", issuer}
	stranger := []string{"--key", strangersKey(t)}
	out := p.demand(t, 0, slices.Concat(target, byKey)...)
	if provenInBoth(out) || !strings.Contains(out, "nobody asked about identities") {
		t.Errorf("what was not asked about is not told apart:\n%s", out)
	}
	p.demand(t, 0, slices.Concat(target, byIdentity)...)
	out = p.demand(t, 0, slices.Concat(target, byKey, byIdentity)...)
	if !provenInBoth(out) || strings.Contains(out, "nobody asked about") {
		t.Errorf("not both signatures are proven:\n%s", out)
	}
	p.demand(t, 1, slices.Concat(target, stranger)...)
	p.demand(t, 1, slices.Concat(target, stranger, byIdentity)...)
	p.demand(t, 1, slices.Concat(target, byKey, []string{"--identity", identity + "-of-another", "--issuer", issuer})...)
	fetched := filepath.Join(t.TempDir(), "copy")
	p.demand(t, 0, slices.Concat([]string{"fetch", record, fetched, "--endpoint", p.endpoint, "--trusted-root", p.trustedRoot}, byKey)...)
	p.demand(t, 0, slices.Concat([]string{"verify", fetched, "--trusted-root", p.trustedRoot}, byIdentity)...)
}

// demandTwoBundles wants each statement of an incident, the trigger's included, to have two bundles, both sealed.
func demandTwoBundles(t *testing.T, s *scene) {
	t.Helper()
	var incident v1alpha1.Incident
	suite.look(t, client.ObjectKey{Name: s.incident}, &incident)
	var bundles v1alpha1.AttestationBundleList
	if err := suite.List(t.Context(), &bundles); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, bundle := range bundles.Items {
		if bundle.Spec.IncidentUID != string(incident.UID) && bundle.Spec.AttestedFor.UID != incident.Spec.Trigger.UID {
			continue
		}
		first := bundle.Name
		if of := bundle.Spec.Countersigns; of != nil {
			first = of.Name
		}
		counts[first]++
		if bundle.Status.Phase != v1alpha1.BundleSealed {
			t.Errorf("bundle %s of %s is %s", bundle.Name, bundle.Spec.AttestedFor.Name, bundle.Status.Phase)
		}
	}
	// The trigger, the steps, the Completed event and two custody records.
	if len(counts) != len(steps)+4 {
		t.Errorf("%d statements are attested, want %d", len(counts), len(steps)+4)
	}
	for name, count := range counts {
		if count != 2 {
			t.Errorf("the statement of %s has %d bundles", name, count)
		}
	}
}

// strangersKey is the file of a public key that signed nothing.
func strangersKey(t *testing.T) string {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "stranger.pub")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// setModes changes how statements are signed and waits until the attestor is ready to.
func setModes(t *testing.T, modes, fulcio string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	patch := `{"spec":{"signingModes":` + modes + `,"fulcio":` + fulcio + `}}`
	if _, err := suite.run(ctx, "-n", v1alpha1.NamespaceSystem, "patch", "attestorconfig", v1alpha1.SingletonName, "--type=merge", "-p", patch); err != nil {
		t.Fatal(err)
	}
	err := eventually(ctx, time.Minute, func(ctx context.Context) (bool, string, error) {
		var config v1alpha1.AttestorConfig
		err := suite.Get(ctx, client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName}, &config)
		ready := meta.FindStatusCondition(config.Status.Conditions, v1alpha1.ConditionReady)
		done := ready != nil && ready.Status == "True" && ready.ObservedGeneration == config.Generation
		return err == nil && done, describe(config.Status.Conditions), err
	})
	if err != nil {
		t.Fatalf("signing modes %s: %v", modes, err)
	}
}
