package hold_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/hold"
)

const incident = "0123456789abcdef"

// everywhere runs a test against every containerd there is.
func everywhere(t *testing.T, test func(t *testing.T, r *runtime, h *hold.Holder)) {
	t.Helper()
	for _, binary := range binaries(t) {
		t.Run(filepath.Base(filepath.Dir(binary)), func(t *testing.T) {
			r := start(t, binary)
			test(t, r, hold.New(r.Client))
		})
	}
}

func write(t *testing.T, folder, name, content string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
}

func read(t *testing.T, folder, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(folder, name))
	must(t, err)
	return string(content)
}

func TestHeldFilesSurviveTheContainerAndGarbageCollection(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		root := r.container(t, "web", r.image(t))
		write(t, root, "dropped", "malware")
		held, err := h.Hold(t.Context(), incident, "web")
		must(t, err)
		// The container goes on writing into what is held.
		write(t, root, "later", "after the hold")
		want := hold.Held{
			ContainerID: "web", Snapshotter: snapshotter, Snapshot: "evidence-" + incident + "-web", Parent: "image",
			Image: "docker.io/library/nginx:latest", HeldAt: held.HeldAt,
		}
		if diff := cmp.Diff(want, held); diff != "" || time.Since(held.HeldAt) > time.Minute {
			t.Errorf("held at %s (-want +got):\n%s", held.HeldAt, diff)
		}
		r.remove(t, "web")
		r.collect(t)
		view, err := h.View(t.Context(), incident, "web")
		must(t, err)
		for name, content := range map[string]string{"dropped": "malware", "later": "after the hold", "from-image": "image"} {
			if got := read(t, view.Root(), name); got != content {
				t.Errorf("%s holds %q", name, got)
			}
		}
		must(t, view.Close())
	})
}

func TestWithoutAHoldTheFilesAreGone(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, _ *hold.Holder) {
		r.container(t, "web", r.image(t))
		r.remove(t, "web")
		r.collect(t)
		if got := r.names(t); len(got) != 0 {
			t.Errorf("snapshots left: %v", got)
		}
	})
}

func TestHoldIsIdempotentAlsoAfterTheContainerIsGone(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		r.container(t, "web", r.image(t))
		first, err := h.Hold(t.Context(), incident, "web")
		must(t, err)
		again, err := hold.New(r.Client).Hold(t.Context(), incident, "web")
		must(t, err)
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("second hold differs:\n%s", diff)
		}
		r.remove(t, "web")
		again, err = h.Hold(t.Context(), incident, "web")
		must(t, err)
		first.Image = ""
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("hold after removal differs:\n%s", diff)
		}
	})
}

func TestHoldNamesWhatIsMissing(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		if _, err := h.Hold(t.Context(), incident, "nobody"); !errors.Is(err, hold.ErrContainerNotFound) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("hold of nobody: %v", err)
		}
		if _, err := h.View(t.Context(), incident, "nobody"); !errors.Is(err, hold.ErrNotHeld) {
			t.Errorf("view of nobody: %v", err)
		}
		r.container(t, "bare", r.image(t))
		must(t, r.SnapshotService(snapshotter).Remove(t.Context(), "bare"))
		if _, err := h.Hold(t.Context(), incident, "bare"); !errors.Is(err, hold.ErrSnapshotNotFound) {
			t.Errorf("hold without a snapshot: %v", err)
		}
	})
}

func TestViewIsReadOnlyAndRepeatable(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		root := r.container(t, "web", r.image(t))
		write(t, root, "file", "content")
		must(t, unix.Mknod(filepath.Join(root, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		_, err := h.Hold(t.Context(), incident, "web")
		must(t, err)
		// The first view belongs to an agent that died without closing it.
		left, err := h.View(t.Context(), incident, "web")
		must(t, err)
		t.Cleanup(func() { must(t, left.Close()) })
		view, err := h.View(t.Context(), incident, "web")
		must(t, err)
		if err := os.WriteFile(filepath.Join(view.Root(), "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("write into the view: %v, want EROFS", err)
		}
		if _, err := os.Open(filepath.Join(view.Root(), "null")); !errors.Is(err, unix.EACCES) {
			t.Errorf("open a device in the view: %v, want EACCES", err)
		}
		must(t, view.Close())
		if _, err := os.Stat(view.Root()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("mount point is still there: %v", err)
		}
		for _, name := range r.names(t) {
			if strings.HasPrefix(name, "view-") {
				t.Errorf("snapshot %s is still there", name)
			}
		}
	})
}

func TestReleaseLeavesARunningContainerItsFiles(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		root := r.container(t, "web", r.image(t))
		write(t, root, "file", "content")
		held, err := h.Hold(t.Context(), incident, "web")
		must(t, err)
		_, err = h.View(t.Context(), incident, "web")
		must(t, err)
		kept := errors.Is(h.Release(t.Context(), incident, "web"), hold.ErrLeaseKept)
		if !kept {
			must(t, h.Release(t.Context(), incident, "web"))
		}
		r.collect(t)
		if diff := cmp.Diff([]string{held.Snapshot}, r.names(t)); diff != "" {
			t.Fatalf("snapshots under a running container (-want +got):\n%s", diff)
		}
		if got := read(t, root, "file"); got != "content" {
			t.Errorf("file holds %q", got)
		}
		r.remove(t, "web")
		if kept {
			must(t, h.Release(t.Context(), incident, "web"))
		}
		r.collect(t)
		if got := r.names(t); len(got) != 0 {
			t.Errorf("snapshots left after the container: %v", got)
		}
		must(t, h.Release(t.Context(), incident, "web"))
	})
}

func TestTwoIncidentsShareOneHold(t *testing.T) {
	const second = "fedcba9876543210"
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		root := r.container(t, "web", r.image(t))
		write(t, root, "file", "content")
		first, err := h.Hold(t.Context(), incident, "web")
		must(t, err)
		shared, err := h.Hold(t.Context(), second, "web")
		must(t, err)
		if diff := cmp.Diff(first, shared); diff != "" {
			t.Errorf("second incident holds something else:\n%s", diff)
		}
		r.remove(t, "web")
		must(t, h.Release(t.Context(), incident, "web"))
		r.collect(t)
		view, err := h.View(t.Context(), second, "web")
		must(t, err)
		if got := read(t, view.Root(), "file"); got != "content" {
			t.Errorf("file holds %q", got)
		}
		must(t, view.Close())
		must(t, h.Release(t.Context(), second, "web"))
		r.collect(t)
		if got := r.names(t); len(got) != 0 {
			t.Errorf("snapshots left: %v", got)
		}
	})
}

func TestAReleasedContainerCanBeHeldAgain(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		root := r.container(t, "web", r.image(t))
		write(t, root, "file", "content")
		_, err := h.Hold(t.Context(), incident, "web")
		must(t, err)
		if err := h.Release(t.Context(), incident, "web"); err != nil && !errors.Is(err, hold.ErrLeaseKept) {
			t.Fatal(err)
		}
		_, err = h.Hold(t.Context(), "fedcba9876543210", "web")
		must(t, err)
		r.remove(t, "web")
		r.collect(t)
		view, err := h.View(t.Context(), "fedcba9876543210", "web")
		must(t, err)
		if got := read(t, view.Root(), "file"); got != "content" {
			t.Errorf("file holds %q", got)
		}
		must(t, view.Close())
	})
}

func TestHeldNamesEveryContainerOfTheIncidentAndNoOther(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		image := r.image(t)
		for _, name := range []string{"web", "side"} {
			r.container(t, name, image)
			_, err := h.Hold(t.Context(), incident, name)
			must(t, err)
		}
		_, err := h.Hold(t.Context(), "fedcba9876543210", "web")
		must(t, err)
		r.remove(t, "web")
		held, err := h.Held(t.Context(), incident)
		must(t, err)
		slices.Sort(held)
		if diff := cmp.Diff([]string{"side", "web"}, held); diff != "" {
			t.Error(diff)
		}
		must(t, h.Release(t.Context(), incident, "web"))
		if held, err = h.Held(t.Context(), incident); err != nil || len(held) != 1 {
			t.Errorf("held after a release: %v, %v", held, err)
		}
	})
}
