package storetest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
)

// SmallDisk mounts a file system of so many MiB until the test ends, and returns a folder in it and a function that
// gives it another size. It needs root.
func SmallDisk(t testing.TB, mebibytes string) (folder string, resize func(mebibytes string)) {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "mounting needs root")
	folder = t.TempDir()
	if err := unix.Mount("small", folder, "tmpfs", 0, "size="+mebibytes+"m"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return folder, func(mebibytes string) {
		if err := unix.Mount("", folder, "", unix.MS_REMOUNT, "size="+mebibytes+"m"); err != nil {
			t.Fatalf("resize: %v", err)
		}
	}
}
