package manifests_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/apitest"
	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/manifests"
)

// server is an API server of its own.
type server struct {
	config *rest.Config
	client client.Client
}

func startServer(t *testing.T) server {
	t.Helper()
	config := apitest.Run(t, &envtest.Environment{})
	return server{config: config, client: newClient(t, config)}
}

// installDefinitions installs the embedded definitions and waits until they are served.
func (s server) installDefinitions(t *testing.T) {
	t.Helper()
	definitions, err := manifests.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.CopyFS(folder, definitions); err != nil {
		t.Fatal(err)
	}
	installed, err := envtest.InstallCRDs(s.config, envtest.CRDInstallOptions{Paths: []string{folder}, ErrorIfPathMissing: true, MaxTime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if len(installed) != 8 {
		t.Fatalf("%d definitions", len(installed))
	}
}

func newClient(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	made, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// documents parses a stream of YAML.
func documents(t *testing.T, content []byte) []*unstructured.Unstructured {
	t.Helper()
	var all []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			all = append(all, object)
		}
	}
}

func sample(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("samples", name))
	if err != nil {
		t.Fatal(err)
	}
	return documents(t, content)[0]
}

// render runs kustomize, the one in kubectl.
func render(t *testing.T, folder string) []*unstructured.Unstructured {
	t.Helper()
	kubectl := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
	if _, err := os.Stat(kubectl); err != nil {
		found, err := exec.LookPath("kubectl")
		testneeds.That(t, err == nil, "there is no kubectl to render with")
		kubectl = found
	}
	readBase(t)
	content, err := exec.CommandContext(t.Context(), kubectl, "kustomize", folder).Output()
	if err != nil {
		t.Fatalf("kustomize %s: %v", folder, err)
	}
	return documents(t, content)
}

// readBase reads what kustomize does: go test does not see what another process reads, and would give the result of former
// manifests.
func readBase(t *testing.T) {
	t.Helper()
	for _, folder := range []string{"base", "overlays"} {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			_, err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// refused demands an Invalid answer that says every part.
func refused(t *testing.T, err error, parts ...string) {
	t.Helper()
	if !apierrors.IsInvalid(err) {
		t.Fatalf("not refused as invalid: %v", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
}
