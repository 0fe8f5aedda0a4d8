package config_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/config"
	"ugallu.io/forensics/controller/internal/policy"
	"ugallu.io/forensics/internal/apitest"
)

// promptly is far less than the 30 s after which the status is looked at in any case.
const promptly = 25 * time.Second

// run runs the reconciler as the controller does until the test ends, and returns a client past its cache.
func run(t *testing.T, server *rest.Config) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	mgr, err := ctrl.NewManager(server, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			config.Definition(): {Field: fields.OneTermEqualSelector("metadata.name", config.DefinitionName)},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	found, err := discovery.NewDiscoveryClientForConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	r := &config.Reconciler{
		Client: mgr.GetClient(), Detector: policy.NewDetector(found), Recorder: &events.FakeRecorder{}, Clock: clock.RealClock{},
	}
	if err := r.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	direct, err := client.New(server, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return direct
}

// awaitBackend returns how long it took the status to show the backend.
func awaitBackend(t *testing.T, c client.Client, wanted v1alpha1.FreezeBackend) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		var found v1alpha1.ForensicsConfig
		if err := c.Get(t.Context(), client.ObjectKey{Name: v1alpha1.SingletonName}, &found); err != nil {
			t.Fatal(err)
		}
		if found.Status.FreezeBackend == wanted {
			return time.Since(start)
		}
		if time.Since(start) > promptly {
			t.Fatalf("freezeBackend is still %q, want %q", found.Status.FreezeBackend, wanted)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestFreezeBackendFollowsCiliumsDefinition(t *testing.T) {
	server := apitest.Start(t)
	c := run(t, server)
	created := &v1alpha1.ForensicsConfig{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SingletonName}}
	if err := c.Create(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	awaitBackend(t, c, v1alpha1.BackendCoreV1)
	definitions := envtest.CRDInstallOptions{Paths: []string{filepath.Join("..", "policy", "testdata", "ciliumnetworkpolicies.yaml")}, MaxTime: time.Minute}
	for range 2 {
		if _, err := envtest.InstallCRDs(server, definitions); err != nil {
			t.Fatal(err)
		}
		t.Logf("Cilium shows after %s", awaitBackend(t, c, v1alpha1.BackendCilium))
		if err := envtest.UninstallCRDs(server, definitions); err != nil {
			t.Fatal(err)
		}
		t.Logf("its end shows after %s", awaitBackend(t, c, v1alpha1.BackendCoreV1))
	}
}
