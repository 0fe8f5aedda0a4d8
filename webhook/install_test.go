package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/apitest"
	"ugallu.io/forensics/internal/stamp"
	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/webhook/internal/certificate"
	"ugallu.io/forensics/webhook/internal/options"
)

// The binary's account has exactly the rights of the manifests here, so that what is missing there fails here.
func TestWebhookIssuesAndInjectsItsOwnCertificate(t *testing.T) {
	root := installed(t)
	account := rest.CopyConfig(root.config)
	account.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:ugallu-system:ugallu-webhook",
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:ugallu-system", "system:authenticated"},
	}
	port, err := strconv.Atoi(testneeds.FreePort(t))
	if err != nil {
		t.Fatal(err)
	}
	o := options.Options{
		Port: port, MetricsAddress: "0", ProbeAddress: testneeds.FreeAddress(t),
		CertificateDir: t.TempDir(), ControllerAccount: controller,
	}
	runUntilEnd(t, account, o)
	waitFor(t, "readiness", func() bool { return ready(t.Context(), o) })
	authority := injected(t, root)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port))
	connection, err := tls.Dial("tcp", address, &tls.Config{RootCAs: authority, ServerName: "ugallu-webhook.ugallu-system.svc", MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatalf("the API server would not trust the webhook: %v", err)
	}
	if err := connection.Close(); err != nil {
		t.Error(err)
	}
	if _, err := stamp.Key(t.Context(), root.as(t, admin), false); err != nil {
		t.Error(err)
	}
	refusesOtherSecrets(t, account)
}

// refusesOtherSecrets shows what the account is kept from: everyone else's credentials.
func refusesOtherSecrets(t *testing.T, account *rest.Config) {
	t.Helper()
	as, err := client.New(account, client.Options{Scheme: scheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ugallu-transit-token", "ugallu-attestor-worm"} {
		var secret unstructured.Unstructured
		secret.SetAPIVersion("v1")
		secret.SetKind("Secret")
		err := as.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: name}, &secret)
		if !apierrors.IsForbidden(err) {
			t.Errorf("secret %s: %v", name, err)
		}
	}
}

// installed is an API server with our manifests, as far as the webhook needs them, and nothing that calls it.
func installed(t *testing.T) cluster {
	t.Helper()
	c := cluster{config: apitest.Start(t)}
	for _, file := range []string{"namespaces.yaml", "rbac/webhook.yaml", "rbac/bindings.yaml", "webhook.yaml", "admission.yaml"} {
		c.create(t, file)
	}
	return c
}

func (c cluster) create(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(manifest("base", file))
	if err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(string(content), "\n---\n") {
		var object unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if err := c.as(t, admin).Create(t.Context(), &object); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
}

func runUntilEnd(t *testing.T, config *rest.Config, o options.Options) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, config, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func ready(ctx context.Context, o options.Options) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+o.ProbeAddress+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

// injected returns the authority that every webhook of both configurations trusts.
func injected(t *testing.T, c cluster) *x509.CertPool {
	t.Helper()
	var validating admissionregistrationv1.ValidatingWebhookConfiguration
	var mutating admissionregistrationv1.MutatingWebhookConfiguration
	name := client.ObjectKey{Name: certificate.ConfigurationName}
	err := errors.Join(c.as(t, admin).Get(t.Context(), name, &validating), c.as(t, admin).Get(t.Context(), name, &mutating))
	if err != nil {
		t.Fatal(err)
	}
	bundles := map[string][]byte{}
	for _, hook := range validating.Webhooks {
		bundles[hook.Name] = hook.ClientConfig.CABundle
	}
	for _, hook := range mutating.Webhooks {
		bundles[hook.Name] = hook.ClientConfig.CABundle
	}
	pool := x509.NewCertPool()
	for hook, bundle := range bundles {
		if !pool.AppendCertsFromPEM(bundle) {
			t.Errorf("%s trusts nobody", hook)
		}
	}
	if len(bundles) != 5 {
		t.Errorf("%d webhooks", len(bundles))
	}
	return pool
}
