package hold_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"

	"ugallu.io/forensics/nodeagent/internal/hold"
)

func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	must(t, err)
	list := []string{}
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return list
}

func TestUpperHoldsTheChangesAlone(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		root := r.container(t, "web", r.image(t))
		write(t, root, "dropped", "malware")
		must(t, os.Remove(filepath.Join(root, "from-image")))
		_, err := h.Hold(t.Context(), incident, "web")
		must(t, err)
		upper, err := h.Upper(t.Context(), incident, "web")
		must(t, err)
		if diff := cmp.Diff([]string{"dropped", "from-image"}, names(t, upper)); diff != "" {
			t.Errorf("upper layer (-want +got):\n%s", diff)
		}
		var stat unix.Stat_t
		must(t, unix.Lstat(filepath.Join(upper, "from-image"), &stat))
		if stat.Mode&unix.S_IFMT != unix.S_IFCHR || stat.Rdev != 0 {
			t.Errorf("the removed file is %o, device %d: no whiteout", stat.Mode, stat.Rdev)
		}
		// It is the folder that the container writes to, and it is the same after the container is gone, also while a view
		// is mounted.
		write(t, root, "later", "x")
		if got := read(t, upper, "later"); got != "x" {
			t.Errorf("later holds %q", got)
		}
		r.remove(t, "web")
		r.collect(t)
		view, err := h.View(t.Context(), incident, "web")
		must(t, err)
		again, err := h.Upper(t.Context(), incident, "web")
		must(t, err)
		if again != upper || read(t, view.Root(), "later") != "x" || read(t, upper, "dropped") != "malware" {
			t.Errorf("upper layer was %s and is %s", upper, again)
		}
		must(t, view.Close())
		for _, name := range r.names(t) {
			if strings.HasPrefix(name, "upper-") {
				t.Errorf("snapshot %s is still there", name)
			}
		}
	})
}

func TestLowerViewShowsWhatTheContainerStartedFrom(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		root := r.container(t, "web", r.image(t))
		write(t, root, "from-image", "changed")
		write(t, root, "dropped", "malware")
		_, err := h.Hold(t.Context(), incident, "web")
		must(t, err)
		whole, err := h.View(t.Context(), incident, "web")
		must(t, err)
		lower, err := h.LowerView(t.Context(), incident, "web")
		must(t, err)
		if got := read(t, lower.Root(), "from-image"); got != "image" {
			t.Errorf("below: %q", got)
		}
		if got := read(t, whole.Root(), "from-image"); got != "changed" {
			t.Errorf("whole: %q", got)
		}
		if diff := cmp.Diff([]string{"from-image"}, names(t, lower.Root())); diff != "" {
			t.Errorf("below (-want +got):\n%s", diff)
		}
		if err := os.WriteFile(filepath.Join(lower.Root(), "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("write below: %v, want EROFS", err)
		}
		must(t, whole.Close())
		must(t, lower.Close())
		if diff := cmp.Diff([]string{"evidence-" + incident + "-web"}, r.names(t)); diff != "" {
			t.Errorf("snapshots (-want +got):\n%s", diff)
		}
	})
}

func TestReleaseRemovesTheLowerViewOfADeadAgent(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		r.container(t, "web", r.image(t))
		_, err := h.Hold(t.Context(), incident, "web")
		must(t, err)
		left, err := h.LowerView(t.Context(), incident, "web")
		must(t, err)
		t.Cleanup(func() { must(t, left.Close()) })
		r.remove(t, "web")
		must(t, h.Release(t.Context(), incident, "web"))
		r.collect(t)
		if got := r.names(t); len(got) != 0 {
			t.Errorf("snapshots left: %v", got)
		}
	})
}

func TestLayersOfWhatHasNone(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		// An image without layers: all that there is is the upper layer.
		root := r.container(t, "bare", "")
		write(t, root, "file", "content")
		_, err := h.Hold(t.Context(), incident, "bare")
		must(t, err)
		upper, err := h.Upper(t.Context(), incident, "bare")
		must(t, err)
		if got := read(t, upper, "file"); got != "content" {
			t.Errorf("file holds %q", got)
		}
		if _, err := h.LowerView(t.Context(), incident, "bare"); !errors.Is(err, hold.ErrNoParent) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("lower view: %v", err)
		}
		for name, err := range map[string]error{
			"upper": second(h.Upper(t.Context(), incident, "nobody")), "lower": second(h.LowerView(t.Context(), incident, "nobody")),
		} {
			if !errors.Is(err, hold.ErrNotHeld) {
				t.Errorf("%s of nobody: %v", name, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// TestASnapshotterThatCopiesHasNoUpperLayer uses the one that copies a parent's files into each child.
func TestASnapshotterThatCopiesHasNoUpperLayer(t *testing.T) {
	const copying = "native"
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		service := r.SnapshotService(copying)
		root := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "test"})
		_, err := service.Prepare(t.Context(), "preparation", "", root)
		must(t, err)
		must(t, service.Commit(t.Context(), "base", "preparation", root))
		_, err = service.Prepare(t.Context(), "copied", "base", root)
		must(t, err)
		_, err = r.ContainerService().Create(t.Context(), containers.Container{
			ID: "copied", Snapshotter: copying, SnapshotKey: "copied",
			Runtime: containers.RuntimeInfo{Name: "io.containerd.runc.v2"}, Spec: emptySpec{},
		})
		must(t, err)
		_, err = h.Hold(t.Context(), incident, "copied")
		must(t, err)
		if upper, err := h.Upper(t.Context(), incident, "copied"); !errors.Is(err, hold.ErrNoUpper) {
			t.Errorf("upper layer %q: %v", upper, err)
		}
		view, err := h.View(t.Context(), incident, "copied")
		must(t, err)
		must(t, view.Close())
	})
}
