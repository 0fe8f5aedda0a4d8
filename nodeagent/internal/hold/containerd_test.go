package hold_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
)

// snapshotter that the tests use: the one of nearly every node.
const snapshotter = "overlayfs"

// runtime is a containerd of the test's own.
type runtime struct {
	*containerd.Client
}

// binaries lists the containerds to test against: FORENSICS_CONTAINERD, separated by colons, else the one on the PATH.
func binaries(t testing.TB) []string {
	t.Helper()
	if listed := os.Getenv("FORENSICS_CONTAINERD"); listed != "" {
		return strings.Split(listed, ":")
	}
	found, err := exec.LookPath("containerd")
	testneeds.That(t, err == nil, "needs containerd: set FORENSICS_CONTAINERD")
	return []string{found}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start runs a containerd with nothing but what snapshots need.
func start(t testing.TB, binary string) *runtime {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "needs root")
	folder := t.TempDir()
	// The path of a socket has 108 bytes at most, and a test's folder may be longer.
	sockets, err := os.MkdirTemp("", "hold")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(sockets)) })
	socket := filepath.Join(sockets, "s")
	config := filepath.Join(folder, "config.toml")
	// Version 2 is understood by every containerd from 1.3 on.
	must(t, os.WriteFile(config, fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, filepath.Join(folder, "root"), filepath.Join(folder, "state"), socket, socket+".ttrpc"), 0o600))
	log, err := os.Create(filepath.Join(folder, "log"))
	must(t, err)
	command := exec.Command(binary, "--config", config)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	must(t, command.Start())
	t.Cleanup(func() {
		must(t, command.Process.Signal(unix.SIGTERM))
		if err := command.Wait(); err != nil {
			t.Logf("containerd ended: %v", err)
		}
		must(t, log.Close())
	})
	client, err := containerd.New(socket, containerd.WithDefaultNamespace("k8s.io"), containerd.WithTimeout(30*time.Second))
	if err != nil {
		said, readErr := os.ReadFile(log.Name())
		t.Fatalf("connect: %v, %v\n%s", err, readErr, said)
	}
	t.Cleanup(func() { must(t, client.Close()) })
	// The client waits for the socket to exist, which it does before anybody listens.
	for range 300 {
		if _, err = client.Version(t.Context()); err == nil {
			return &runtime{client}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("containerd does not answer: %v", err)
	return nil
}

// image makes a committed layer with a file in it, as an unpacked image has.
func (r *runtime) image(t testing.TB) string {
	t.Helper()
	service := r.SnapshotService(snapshotter)
	root := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "test"})
	mounts, err := service.Prepare(t.Context(), "image-preparation", "", root)
	must(t, err)
	folder := r.mount(t, mounts)
	must(t, os.WriteFile(filepath.Join(folder, "from-image"), []byte("image"), 0o600))
	must(t, mount.UnmountAll(folder, 0))
	must(t, service.Commit(t.Context(), "image", "image-preparation", root))
	return "image"
}

func (r *runtime) mount(t testing.TB, mounts []mount.Mount) string {
	t.Helper()
	folder := t.TempDir()
	must(t, mount.All(mounts, folder))
	t.Cleanup(func() { must(t, mount.UnmountAll(folder, unix.MNT_DETACH)) })
	return folder
}

// emptySpec is the least that containerd takes for a container's specification.
type emptySpec struct{}

func (emptySpec) GetTypeUrl() string { return "types.containerd.io/opencontainers/runtime-spec/1/Spec" }

func (emptySpec) GetValue() []byte { return []byte("{}") }

// container makes a container the way CRI does, on an active snapshot named like it, and returns its mounted root. No
// process runs in it: what counts is the mount, which stays as it does under a running one.
func (r *runtime) container(t testing.TB, id, image string) string {
	t.Helper()
	_, err := r.ContainerService().Create(t.Context(), containers.Container{
		ID: id, Image: "docker.io/library/nginx:latest", Snapshotter: snapshotter, SnapshotKey: id,
		Runtime: containers.RuntimeInfo{Name: "io.containerd.runc.v2"}, Spec: emptySpec{},
	})
	must(t, err)
	mounts, err := r.SnapshotService(snapshotter).Prepare(t.Context(), id, image)
	must(t, err)
	return r.mount(t, mounts)
}

// remove deletes a container as kubelet does: the container, and the snapshot under its key if there still is one.
func (r *runtime) remove(t testing.TB, id string) {
	t.Helper()
	must(t, r.ContainerService().Delete(t.Context(), id))
	if err := r.SnapshotService(snapshotter).Remove(t.Context(), id); err != nil {
		t.Logf("snapshot of %s: %v", id, err)
	}
}

// collect runs a garbage collection to its end.
func (r *runtime) collect(t testing.TB) {
	t.Helper()
	lease, err := r.LeasesService().Create(t.Context(), leases.WithRandomID())
	must(t, err)
	must(t, r.LeasesService().Delete(t.Context(), lease, leases.SynchronousDelete))
}

// names lists all snapshots but the image's.
func (r *runtime) names(t testing.TB) []string {
	t.Helper()
	names := []string{}
	must(t, r.SnapshotService(snapshotter).Walk(t.Context(), func(_ context.Context, info snapshots.Info) error {
		if info.Name != "image" {
			names = append(names, info.Name)
		}
		return nil
	}))
	return names
}
