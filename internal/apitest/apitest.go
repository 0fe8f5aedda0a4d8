package apitest

import (
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/manifests"
)

// patience with a machine on which several API servers start at a time.
const patience = time.Minute

// Start runs an API server that knows our kinds, and those of further files or folders, until the test ends.
func Start(tb testing.TB, definitions ...string) *rest.Config {
	tb.Helper()
	return Run(tb, &envtest.Environment{CRDDirectoryPaths: append([]string{ours(tb)}, definitions...), ErrorIfCRDPathMissing: true})
}

// Run starts an environment and stops it when the test ends, also where it started in part. The test needs the binaries in
// the folder that KUBEBUILDER_ASSETS names. What is returned is the administrator's, without a limit of requests; what
// controllers log is discarded.
func Run(tb testing.TB, environment *envtest.Environment) *rest.Config {
	tb.Helper()
	needBinaries(tb)
	log.SetLogger(logr.Discard())
	environment.CRDInstallOptions.MaxTime, environment.WebhookInstallOptions.MaxTime = patience, patience
	environment.ControlPlaneStartTimeout, environment.ControlPlaneStopTimeout = patience, patience
	tb.Cleanup(func() {
		if err := environment.Stop(); err != nil {
			tb.Error(err)
		}
	})
	config, err := environment.Start()
	if err != nil {
		tb.Fatal(err)
	}
	config.QPS = -1
	return config
}

// ours is a folder with the definitions that are shipped.
func ours(tb testing.TB) string {
	tb.Helper()
	definitions, err := manifests.Definitions()
	if err != nil {
		tb.Fatal(err)
	}
	folder := tb.TempDir()
	if err := os.CopyFS(folder, definitions); err != nil {
		tb.Fatal(err)
	}
	return folder
}

func needBinaries(tb testing.TB) {
	tb.Helper()
	testneeds.That(tb, os.Getenv("KUBEBUILDER_ASSETS") != "", "KUBEBUILDER_ASSETS does not name a folder with kube-apiserver and etcd")
}
