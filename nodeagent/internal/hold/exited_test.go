package hold_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/hold"
)

// exitCode of the process that the test runs in a container.
const exitCode = 7

// TestMain lets this program be the process of a container: it leaves a file behind and ends.
func TestMain(m *testing.M) {
	if os.Getenv("HOLD_TEST_ACT") != "leave a file" {
		os.Exit(m.Run())
	}
	if err := os.WriteFile("/left", []byte("by a process that is gone"), 0o600); err != nil {
		os.Exit(1)
	}
	os.Exit(exitCode)
}

// program puts this program into an image.
func (r *runtime) program(t *testing.T) {
	t.Helper()
	service := r.SnapshotService(snapshotter)
	root := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "test"})
	mounts, err := service.Prepare(t.Context(), "program-preparation", "", root)
	must(t, err)
	folder := r.mount(t, mounts)
	from, err := os.Open("/proc/self/exe")
	must(t, err)
	to, err := os.OpenFile(filepath.Join(folder, "program"), os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(to, from)
	must(t, err)
	must(t, to.Close())
	must(t, from.Close())
	must(t, service.Commit(t.Context(), "program", "program-preparation", root))
}

// TestAContainerThatExitedIsHeld covers what the kubelet has not removed yet: init containers that are done, crashed
// predecessors, ephemeral containers that ended. Neither a process nor a mount of theirs is left.
func TestAContainerThatExitedIsHeld(t *testing.T) {
	_, err := exec.LookPath("runc")
	testneeds.That(t, err == nil, "needs runc")
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		r.program(t)
		leased, done, err := r.WithLease(t.Context())
		must(t, err)
		_, err = r.SnapshotService(snapshotter).Prepare(leased, "init", "program")
		must(t, err)
		container, err := r.NewContainer(leased, "init", containerd.WithSnapshotter(snapshotter), containerd.WithSnapshot("init"),
			containerd.WithRuntime("io.containerd.runc.v2", nil),
			containerd.WithNewSpec(oci.WithProcessArgs("/program"), oci.WithEnv([]string{"HOLD_TEST_ACT=leave a file"})))
		must(t, err)
		must(t, done(t.Context()))
		task, err := container.NewTask(t.Context(), cio.NullIO)
		must(t, err)
		exited, err := task.Wait(t.Context())
		must(t, err)
		must(t, task.Start(t.Context()))
		if status := <-exited; status.ExitCode() != exitCode {
			t.Fatalf("the process ended with %d: %v", status.ExitCode(), status.Error())
		}
		_, err = task.Delete(t.Context())
		must(t, err)

		_, err = h.Hold(t.Context(), incident, "init")
		must(t, err)
		must(t, container.Delete(t.Context()))
		r.collect(t)
		upper, err := h.Upper(t.Context(), incident, "init")
		must(t, err)
		view, err := h.View(t.Context(), incident, "init")
		must(t, err)
		for _, folder := range []string{upper, view.Root()} {
			if got := read(t, folder, "left"); got != "by a process that is gone" {
				t.Errorf("%s: %q", folder, got)
			}
		}
		must(t, view.Close())
		must(t, h.Release(t.Context(), incident, "init"))
		r.collect(t)
		if _, err := os.Stat(upper); !os.IsNotExist(err) {
			t.Errorf("upper layer after the release: %v", err)
		}
	})
}
