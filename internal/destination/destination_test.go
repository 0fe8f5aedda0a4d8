package destination_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
	"ugallu.io/forensics/internal/worm"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func configured(t *testing.T, spec v1alpha1.WORMConfigSpec) (client.Reader, string) {
	t.Helper()
	scheme := runtime.NewScheme()
	must(t, v1alpha1.AddToScheme(scheme))
	config := &v1alpha1.WORMConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName}, Spec: spec,
	}
	credentials := t.TempDir()
	for _, name := range []string{"access-key", "secret-key"} {
		must(t, os.WriteFile(filepath.Join(credentials, name), []byte(name+"\n"), 0o600))
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(config).Build(), credentials
}

func TestOpenTakesTheConfiguredStoreAndAdjustsIt(t *testing.T) {
	reader, credentials := configured(t, v1alpha1.WORMConfigSpec{Endpoint: "https://worm.example", Bucket: "evidence"})
	var seen worm.Config
	store, err := destination.Open(t.Context(), reader, credentials, "", func(c *worm.Config) {
		c.Patience = time.Minute
		seen = *c
	})
	must(t, err)
	want := worm.Config{
		Endpoint: "https://worm.example", Bucket: "evidence", AccessKey: "access-key", SecretKey: "secret-key", Patience: time.Minute,
	}
	if seen != want || store.Bucket() != "evidence" {
		t.Errorf("opened %+v of bucket %s, want %+v", seen, store.Bucket(), want)
	}
}

func TestOpenerKeepsAClientForEachAdjustment(t *testing.T) {
	reader, credentials := configured(t, v1alpha1.WORMConfigSpec{Endpoint: "https://worm.example", Bucket: "evidence"})
	opener := destination.NewOpener(reader, credentials)
	patient := func(c *worm.Config) { c.Patience = time.Minute }
	first, err := opener.Open(t.Context(), "", patient)
	must(t, err)
	again, err := opener.Open(t.Context(), "", patient)
	must(t, err)
	other, err := opener.Open(t.Context(), "")
	must(t, err)
	if first != again || first == other {
		t.Errorf("same adjustment: same client %t; another one: same client %t", first == again, first == other)
	}
}

func TestOpenRefusesPlainHTTPUnlessAllowed(t *testing.T) {
	spec := v1alpha1.WORMConfigSpec{Endpoint: "http://worm.example", Bucket: "evidence"}
	reader, credentials := configured(t, spec)
	if _, err := destination.Open(t.Context(), reader, credentials, ""); !errors.Is(err, destination.ErrPlainHTTP) {
		t.Errorf("error %v, want ErrPlainHTTP", err)
	}
	spec.InsecureAllowHTTP = true
	reader, credentials = configured(t, spec)
	if _, err := destination.Open(t.Context(), reader, credentials, ""); err != nil {
		t.Error(err)
	}
}
