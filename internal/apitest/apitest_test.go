package apitest

import (
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// failing is a test that may fail without the test that it stands in.
type failing struct {
	testing.TB
	failed   bool
	cleanups []func()
}

func (f *failing) Cleanup(end func()) { f.cleanups = append(f.cleanups, end) }

func (f *failing) Fatal(...any) {
	f.failed = true
	runtime.Goexit()
}

func TestWhatStartedInPartIsStopped(t *testing.T) {
	needBinaries(t)
	environment := &envtest.Environment{
		CRDDirectoryPaths: []string{filepath.Join(t.TempDir(), "missing")}, ErrorIfCRDPathMissing: true,
	}
	inner, ended := &failing{TB: t}, make(chan struct{})
	go func() {
		defer close(ended)
		Run(inner, environment)
	}()
	<-ended
	if !inner.failed {
		t.Error("a server without its kinds counts as started")
	}
	server, etcd := environment.ControlPlane.APIServer.ListenAddr, environment.ControlPlane.Etcd.URL
	addresses := map[string]string{"kube-apiserver": net.JoinHostPort(server.Address, server.Port), "etcd": etcd.Host}
	for name, address := range addresses {
		if err := dial(t, address); err != nil {
			t.Errorf("%s is gone before the test is: %v", name, err)
		}
	}
	for _, end := range slices.Backward(inner.cleanups) {
		end()
	}
	for name, address := range addresses {
		if err := dial(t, address); err == nil {
			t.Errorf("%s listens after the test", name)
		}
	}
}

func dial(t *testing.T, address string) error {
	t.Helper()
	connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return err
	}
	return connection.Close()
}
