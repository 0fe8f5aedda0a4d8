package servers

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"ugallu.io/forensics/internal/apitest"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/testneeds"
)

// TestFulcioCertifiesTheAttestorsServiceAccount runs Fulcio as the manifest does, against a real API server.
func TestFulcioCertifiesTheAttestorsServiceAccount(t *testing.T) {
	api, issuer := startAPIServer(t)
	cluster, err := client.New(api, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	settings, binding := fulcioManifest(t)
	folder, made := t.TempDir(), madeKeys(t)
	for name, content := range map[string]string{
		"config.yaml": strings.ReplaceAll(settings, clusterIssuer, issuer), "ca.crt": string(api.CAData),
		authorityKey: string(made.fulcio[authorityKey]), authorityChain: string(made.fulcio[authorityChain]),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := start(t, "FORENSICS_FULCIO", []string{"SSL_CERT_FILE=" + filepath.Join(folder, "ca.crt")}, fulcioArguments(t, folder))
	signer, err := attest.NewKeyless(attest.KeylessConfig{
		URL: "http://" + address, Audience: "sigstore", TokenFile: accountToken(t, cluster, folder),
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // while Fulcio starts, and without the binding, it cannot know the issuer's keys
		_, err := signer.Credential(t.Context())
		if err == nil {
			t.Fatal("certified without the keys of the issuer")
		}
		if !strings.Contains(err.Error(), "answered 400") {
			return err
		}
		return nil
	})
	if err := cluster.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	trustedRoot, err := trustedRootJSON(made)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := attest.ParseTrust(map[string]string{
		trustedRootFile: string(trustedRoot), attestorIdentity: strings.ReplaceAll(identity, clusterIssuer, issuer),
	})
	if err != nil {
		t.Fatal(err)
	}
	notary := attest.Notary{Signer: signer, Trust: trust}
	eventually(t, func() error {
		_, err := notary.Check(t.Context())
		return err
	})
}

const clusterIssuer = "https://kubernetes.default.svc.cluster.local"

// startAPIServer also returns the issuer of its tokens.
func startAPIServer(t *testing.T) (*rest.Config, string) {
	t.Helper()
	const host = "127.0.0.1"
	port := testneeds.FreePort(t)
	issuer := "https://" + net.JoinHostPort(host, port)
	environment := &envtest.Environment{}
	server := environment.ControlPlane.GetAPIServer()
	server.Address, server.Port = host, port
	// By default it names its keys by an address that it does not listen on here.
	server.Configure().Set("service-account-issuer", issuer).Set("service-account-jwks-uri", issuer+"/openid/v1/jwks")
	return apitest.Run(t, environment), issuer
}

// fulcioManifest is Fulcio's configuration and the binding that shows it the issuer's keys.
func fulcioManifest(t *testing.T) (string, *rbacv1.ClusterRoleBinding) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "..", "manifests", "servers", "fulcio.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	documents := strings.Split(string(content), "\n---\n")
	var settings corev1.ConfigMap
	var binding rbacv1.ClusterRoleBinding
	if err := yaml.UnmarshalStrict([]byte(documents[0]), &settings); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict([]byte(documents[1]), &binding); err != nil {
		t.Fatal(err)
	}
	return settings.Data["config.yaml"], &binding
}

func fulcioArguments(t *testing.T, folder string) func(address, _ string) []string {
	t.Helper()
	internal, metrics := testneeds.FreePort(t), testneeds.FreePort(t)
	return func(address, _ string) []string {
		host, port, _ := strings.Cut(address, ":")
		return []string{
			"serve", "--host=" + host, "--port=" + port, "--grpc-host=127.0.0.1", "--grpc-port=" + internal, "--metrics-port=" + metrics,
			"--legacy-unix-domain-socket=@" + folder, "--config-path=" + filepath.Join(folder, "config.yaml"), "--ca=fileca",
			"--fileca-cert=" + filepath.Join(folder, authorityChain), "--fileca-key=" + filepath.Join(folder, authorityKey),
			"--fileca-key-passwd=", "--fileca-watch=false", "--ct-log-url=",
		}
	}
}

// accountToken writes the token that the kubelet would mount into the attestor's pod.
func accountToken(t *testing.T, cluster client.Client, folder string) string {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: attestorKeyName}}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: systemNamespace}}
	for _, object := range []client.Object{namespace, account} {
		if err := cluster.Create(t.Context(), object); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"sigstore"}}}
	if err := cluster.SubResource("token").Create(t.Context(), account, request); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "token")
	if err := os.WriteFile(file, []byte(request.Status.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
