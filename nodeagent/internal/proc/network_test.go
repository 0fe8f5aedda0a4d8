package proc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
)

// TestANamespaceIsFoundByItsPathInAnotherRoot has what is mounted outside of the root stand where a link leads that is followed
// from the wrong root.
func TestANamespaceIsFoundByItsPathInAnotherRoot(t *testing.T) {
	testneeds.That(t, os.Geteuid() == 0, "mounting a namespace needs root")
	root := t.TempDir()
	folder := filepath.Join(root, "run/netns")
	if err := errors.Join(
		os.MkdirAll(folder, 0o700), os.Mkdir(filepath.Join(root, "var"), 0o700), os.Symlink("/run", filepath.Join(root, "var/run")),
		os.Symlink("../../../../../proc/self/ns/net", filepath.Join(folder, "outside")),
		os.WriteFile(filepath.Join(folder, "up"), nil, 0o600), os.WriteFile(filepath.Join(folder, "down"), nil, 0o600),
		unix.Mount("/proc/self/ns/net", filepath.Join(folder, "up"), "", unix.MS_BIND, ""),
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(filepath.Join(folder, "up"), 0); err != nil {
			t.Error(err)
		}
	})
	var want unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &want); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/var/run/netns/up", "/run/netns/up", "run/netns/../netns/up"} {
		file, inode, err := Namespace(root, path)
		if err != nil || inode != want.Ino {
			t.Errorf("%s: %d, %v", path, inode, err)
			continue
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
	for path, want := range map[string]error{
		"/var/run/netns/down": errNotMounted, "/run": errNotMounted,
		"/var/run/netns/none": fs.ErrNotExist, "/run/netns/outside": fs.ErrNotExist,
	} {
		if _, _, err := Namespace(root, path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}
