package main

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	controllerconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/incident"
	"ugallu.io/forensics/controller/internal/options"
	"ugallu.io/forensics/controller/internal/policy"
	"ugallu.io/forensics/internal/apitest"
)

func TestCiliumIsWatchedAsSoonAsItIsThere(t *testing.T) {
	server := apitest.Start(t)
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	mgr, err := ctrl.NewManager(server, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Cache: cacheOptions(options.Options{}), Client: clientOptions(),
		// Another test of this process sets the controller up as well.
		Controller: controllerconfig.Controller{SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	found, err := discovery.NewDiscoveryClientForConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	detector := policy.NewDetector(found)
	r := incident.New(incident.Dependencies{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Recorder: &events.FakeRecorder{}, Clock: clock.RealClock{},
		Policies: policy.New(mgr.GetClient(), mgr.GetAPIReader(), detector, clock.RealClock{}),
	})
	built, err := r.SetupWithManager(mgr)
	if err != nil {
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
	if !mgr.GetCache().WaitForCacheSync(t.Context()) {
		t.Fatal("the cache does not fill")
	}
	watch := &ciliumWatch{cache: mgr.GetCache(), controller: built, detector: detector, toIncidents: r.OfPod}
	watched := make(chan error, 1)
	go func() { watched <- watch.Start(ctx) }()
	select {
	case err := <-watched:
		t.Fatalf("there is no Cilium, and its watch began: %v", err)
	case <-time.After(2 * time.Second):
	}
	crds := envtest.CRDInstallOptions{Paths: []string{filepath.Join("internal", "policy", "testdata", "ciliumnetworkpolicies.yaml")}, MaxTime: time.Minute}
	if _, err := envtest.InstallCRDs(server, crds); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	select {
	case err := <-watched:
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("watched %s after the definition was established", time.Since(start))
	case <-time.After(2 * ciliumCheck / 3):
		t.Fatal("Cilium is there and not watched")
	}
}
