package podfiles

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatIsReleasedWhileItIsListedIsNotKept(t *testing.T) {
	k := &Keeper{Folder: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(k.Folder, "pod", "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(k.Folder, "pod", "there")
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	list, err := k.mounted("pod", []string{"gone", "there"})
	if err != nil || len(list) != 1 || list[0] != (Kept{"pod", "there"}) {
		t.Errorf("kept %v, error %v", list, err)
	}
}

func TestWhatCannotBeLookedAtIsNotTakenForGone(t *testing.T) {
	k := &Keeper{Folder: t.TempDir()}
	if err := os.WriteFile(filepath.Join(k.Folder, "pod"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := k.mounted("pod", []string{"name"}); err == nil {
		t.Errorf("below a file %v is kept", list)
	}
}
