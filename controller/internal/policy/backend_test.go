package policy_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"ugallu.io/forensics/api/v1alpha1"
)

func installCilium(t *testing.T, config *rest.Config, f fixture) {
	t.Helper()
	_, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{
		Paths: []string{
			filepath.Join("testdata", "ciliumnetworkpolicies.yaml"), filepath.Join("testdata", "clusterwide.yaml"),
			filepath.Join("testdata", "networkpolicyapi.yaml"),
		},
		ErrorIfPathMissing: true, MaxTime: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, f, v1alpha1.BackendCilium)
}

// survivesCilium: a pod that was cut off by a policy of Cilium's gets one of Kubernetes when Cilium goes, both from a
// process that knew Cilium and from one that starts afterwards.
func survivesCilium(t *testing.T, config *rest.Config, f fixture) {
	t.Helper()
	known := f.ensure(t, nil)
	if known.Backend != v1alpha1.BackendCilium {
		t.Fatalf("applied %+v", known)
	}
	uninstallCilium(t, config, f)
	for name, process := range map[string]fixture{"that knew Cilium": f, "that starts": newFixture(t, config)} {
		again := process.ensure(t, known)
		if again.Backend != v1alpha1.BackendCoreV1 || again.Reapplied != known.Reapplied+1 || again.Ref.UID == known.Ref.UID {
			t.Fatalf("process %s: %+v", name, again)
		}
		found, err := process.read(t, v1alpha1.BackendCoreV1)
		if err != nil || string(found.GetUID()) != again.Ref.UID {
			t.Fatalf("process %s: %v, %v", name, found, err)
		}
		if kept := process.ensure(t, again); kept != again {
			t.Fatalf("process %s: applied again: %+v", name, kept)
		}
		for range 2 {
			if err := process.policies.Remove(t.Context(), process.pod); err != nil {
				t.Fatalf("process %s: %v", name, err)
			}
		}
	}
	if others := f.ensure(t, nil).Others; len(others) != 5 {
		t.Fatalf("without Cilium's kinds %v", others)
	}
}

func uninstallCilium(t *testing.T, config *rest.Config, f fixture) {
	t.Helper()
	err := envtest.UninstallCRDs(config, envtest.CRDInstallOptions{
		Paths: []string{filepath.Join("testdata", "ciliumnetworkpolicies.yaml"), filepath.Join("testdata", "clusterwide.yaml")},
	})
	if err != nil {
		t.Fatal(err)
	}
	served, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return withoutCilium(ctx, f, served)
	})
	if err != nil {
		t.Fatalf("Cilium's kinds do not go: %v", err)
	}
	waitFor(t, f, v1alpha1.BackendCoreV1)
}

// withoutCilium tells whether both definitions are gone and neither kind is served any more, each of which takes its time.
func withoutCilium(ctx context.Context, f fixture, served *discovery.DiscoveryClient) (bool, error) {
	for _, name := range []string{"ciliumnetworkpolicies.cilium.io", "ciliumclusterwidenetworkpolicies.cilium.io"} {
		err := f.client.Get(ctx, client.ObjectKey{Name: name}, &apiextensionsv1.CustomResourceDefinition{})
		if !apierrors.IsNotFound(err) {
			return false, err
		}
	}
	left, err := served.ServerResourcesForGroupVersionWithContext(ctx, "cilium.io/v2")
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return err == nil && len(left.APIResources) == 0, err
}

func waitFor(t *testing.T, f fixture, wanted v1alpha1.FreezeBackend) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		backend, err := f.detector.Backend(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if backend == wanted {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("backend is %s, want %s", backend, wanted)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
