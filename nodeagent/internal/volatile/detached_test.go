package volatile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// playDetached holds files of memory whose mounts it takes away, or never attaches.
func playDetached(folder string) (told, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return told{}, err
	}
	lazy, never, part, stays := folder+"/lazy", folder+"/never", folder+"/part", folder+"/stays"
	for _, at := range []string{lazy, never, part, stays} {
		if err := memoryWith(at); err != nil {
			return told{}, err
		}
	}
	// Of one only an empty folder stays mounted.
	if err := unix.Mount(part+"/empty", folder+"/bind", "", unix.MS_BIND, ""); err != nil {
		return told{}, err
	}
	if err := mapFile(lazy + "/mapped"); err != nil {
		return told{}, err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, never, unix.OPEN_TREE_CLONE)
	if err != nil {
		return told{}, err
	}
	if _, err := unix.Openat(tree, "never-open", unix.O_RDONLY, 0); err != nil {
		return told{}, err
	}
	for _, name := range []string{lazy + "/lazy-open", part + "/part-open", stays + "/stays-open"} {
		if _, err := unix.Open(name, unix.O_RDONLY, 0); err != nil {
			return told{}, err
		}
	}
	for _, at := range []string{lazy, never, part} {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			return told{}, err
		}
	}
	return told{}, detachedClone(folder + "/clone")
}

// detachedClone holds a file through a clone of the mount that a folder is on.
func detachedClone(folder string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, folder, unix.OPEN_TREE_CLONE)
	if err == nil {
		_, err = unix.Openat(tree, "clone-open", unix.O_RDONLY, 0)
	}
	return err
}

// memoryWith mounts memory with some files in it.
func memoryWith(at string) error {
	if err := unix.Mount("memory", at, "tmpfs", 0, "size=1m"); err != nil {
		return err
	}
	for _, name := range []string{filepath.Base(at) + "-open", "mapped", "closed"} {
		if err := os.WriteFile(filepath.Join(at, name), []byte("payload "+name), 0o600); err != nil {
			return err
		}
	}
	return os.Mkdir(at+"/empty", 0o700)
}

func mapFile(name string) error {
	fd, err := unix.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	mapped, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	kept = append(kept, mapped)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// playHolder mounts memory in its own namespace.
func playHolder(folder string) (told, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return told{}, err
	}
	return told{}, memoryWith(folder)
}

func detachedFolder(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for _, name := range []string{"lazy", "never", "part", "stays", "bind", "clone"} {
		must(t, os.Mkdir(filepath.Join(folder, name), 0o700))
	}
	must(t, os.WriteFile(folder+"/clone/clone-open", []byte("on the disk"), 0o600))
	return folder
}

func paths(f filesOf) []string {
	found := []string{}
	for path := range f.index {
		found = append(found, path)
	}
	slices.Sort(found)
	return found
}

func TestFilesHoldsWhatLiesOnAMountThatNoPathLeadsTo(t *testing.T) {
	a := start(t, "detached "+detachedFolder(t), namespaces(unix.CLONE_NEWNS))
	f := writeFiles(t, a.target(), Options{})
	want := []string{"/lazy-open", "/mapped", "/never-open", "/part-open"}
	if got := paths(f); !slices.Equal(got, want) {
		t.Fatalf("stored are %q, want %q", got, want)
	}
	for _, path := range want {
		if got := string(f.content(t, path)); got != "payload "+path[1:] {
			t.Errorf("%s holds %q", path, got)
		}
	}
	// Three mounts, each named once, however many files of it are open; the memory that is still mounted is not one.
	if len(f.gaps) != 3 || f.result.Truncated {
		t.Errorf("gaps %+v", f.gaps)
	}
	for _, gap := range f.gaps {
		if gap.Reason != GapDetached {
			t.Errorf("gap %+v", gap)
		}
	}
}

func TestFilesHoldsWhatLiesInANamespaceThatOnlyADescriptorHolds(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "held")
	must(t, os.Mkdir(folder, 0o700))
	holder := start(t, "holder "+folder, namespaces(unix.CLONE_NEWNS))
	within := fmt.Sprintf("/proc/%d/", holder.Process.Pid)
	space, err := os.Open(within + "ns/mnt")
	must(t, err)
	file, err := os.Open(within + "root" + folder + "/held-open")
	must(t, err)
	a := start(t, "wait", func(command *exec.Cmd) {
		command.ExtraFiles = []*os.File{space, file}
		namespaces(unix.CLONE_NEWNS)(command)
	})
	must(t, space.Close())
	must(t, file.Close())
	// While a process of the pod is in it, a path leads there.
	both := writeFiles(t, targetOf(a.Process.Pid, holder.Process.Pid), Options{})
	if len(both.index) != 0 || len(both.gaps) != 0 {
		t.Errorf("index %+v, gaps %+v", both.index, both.gaps)
	}
	must(t, holder.Process.Kill())
	_ = holder.Wait()
	f := writeFiles(t, a.target(), Options{})
	if len(f.index) != 1 || len(f.gaps) != 1 || f.gaps[0].Reason != GapDetached {
		t.Fatalf("index %+v, gaps %+v", f.index, f.gaps)
	}
	for path := range f.index {
		if got := string(f.content(t, path)); got != "payload held-open" {
			t.Errorf("%s holds %q", path, got)
		}
	}
}

func TestFilesLeavesWhatAPathOfTheNodeLeadsTo(t *testing.T) {
	inherited, err := os.Create(filepath.Join(t.TempDir(), "of the node"))
	must(t, err)
	jail := func(command *exec.Cmd) {
		command.ExtraFiles = []*os.File{inherited}
		namespaces(unix.CLONE_NEWNS)(command)
	}
	a := start(t, "wait", jail)
	// Nothing of its own list of mounts leads to its executable.
	chroot := start(t, "chroot "+t.TempDir(), jail)
	must(t, inherited.Close())
	f := writeFiles(t, targetOf(a.Process.Pid, chroot.Process.Pid), Options{})
	if len(f.index) != 0 || len(f.gaps) != 0 {
		t.Errorf("index %+v, gaps %+v", f.index, f.gaps)
	}
}

// TestAMountThatIsNewerThanTheListsIsNotDetached mounts memory after the lists were read, as a pod can that is not frozen.
func TestAMountThatIsNewerThanTheListsIsNotDetached(t *testing.T) {
	first := start(t, "wait", nil)
	options := Options{Limits: Limits{}.withDefaults(), NodeMounts: "/proc/self/mountinfo"}
	r := newFileReader(options)
	defer r.close()
	must(t, r.findMounted(t.Context(), first.target()))
	at := filepath.Join(t.TempDir(), "newer")
	must(t, os.Mkdir(at, 0o700))
	must(t, memoryWith(at))
	mounted := true
	defer func() {
		if mounted {
			must(t, unix.Unmount(at, unix.MNT_DETACH))
		}
	}()
	file, err := os.Open(at + "/newer-open")
	must(t, err)
	a := start(t, "wait", func(command *exec.Cmd) { command.ExtraFiles = []*os.File{file} })
	must(t, file.Close())
	must(t, r.find(t.Context(), a.process()))
	if len(r.held) != 0 || len(r.gaps.Gaps()) != 0 {
		t.Errorf("held %v, gaps %+v", r.held, r.gaps.Gaps())
	}
	mounted = false
	must(t, unix.Unmount(at, unix.MNT_DETACH))
	must(t, r.find(t.Context(), a.process()))
	if gaps := r.gaps.Gaps(); len(r.held) != 1 || len(gaps) != 1 || gaps[0].Reason != GapDetached {
		t.Errorf("held %v, gaps %+v", r.held, gaps)
	}
}

func TestFilesSaysWhereMountsAreNotKnown(t *testing.T) {
	a := start(t, "detached "+detachedFolder(t), namespaces(unix.CLONE_NEWNS))
	f := writeFiles(t, a.target(), Options{NodeMounts: "/proc/self/none"})
	if len(f.index) != 0 || len(f.gaps) != 1 || f.gaps[0].Reason != GapUnreadable || f.gaps[0].Path != "/proc/self/none" {
		t.Errorf("index %+v, gaps %+v", f.index, f.gaps)
	}
	h, err := open(a.process(), time.Second)
	must(t, err)
	defer h.release()
	m := newMounted()
	if err := m.read(h, 10, 1); reasonOf(err) != GapLimit {
		t.Errorf("more mounts than there is room for: %v", err)
	}
	m.partial = true
	lost, err := h.look("exe")
	must(t, err)
	lost.Mnt_id, lost.Dev_major = 1<<40, 1<<20
	if m.nowhere(&lost) {
		t.Error("a file is said to be on no mount while not all are known")
	}
	m.partial = false
	if !m.nowhere(&lost) {
		t.Error("a file on an unknown mount is not found")
	}
}

// TestAMountOfAnotherNamespaceThatIsNewerThanTheListsIsNotSaidToBeWithoutAPath holds a file of a mount that has a path, in a
// namespace that was made after the lists were read.
func TestAMountOfAnotherNamespaceThatIsNewerThanTheListsIsNotSaidToBeWithoutAPath(t *testing.T) {
	first := start(t, "wait", nil)
	r := newFileReader(Options{Limits: Limits{}.withDefaults(), NodeMounts: "/proc/self/mountinfo"})
	defer r.close()
	must(t, r.findMounted(t.Context(), first.target()))
	folder := filepath.Join(t.TempDir(), "held")
	must(t, os.Mkdir(folder, 0o700))
	holder := start(t, "holder "+folder, namespaces(unix.CLONE_NEWNS))
	file, err := os.Open(fmt.Sprintf("/proc/%d/root%s/held-open", holder.Process.Pid, folder))
	must(t, err)
	a := start(t, "wait", func(command *exec.Cmd) { command.ExtraFiles = []*os.File{file} })
	must(t, file.Close())
	must(t, r.find(t.Context(), a.process()))
	gaps := r.gaps.Gaps()
	if len(r.held) != 1 || len(gaps) != 1 || gaps[0].Reason != GapDetached {
		t.Fatalf("held %v, gaps %+v", r.held, gaps)
	}
	if strings.Contains(gaps[0].Message, "no path leads") || !strings.Contains(gaps[0].Message, "in no list of mounts that was read") {
		t.Errorf("the gap says %q", gaps[0].Message)
	}
}

func TestAFileOfADetachedServerThatIsSilentIsGivenUpOnce(t *testing.T) {
	served := silentFile(t, "served")
	fd, err := unix.Open(served, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	held := os.NewFile(uintptr(fd), served)
	must(t, unix.Unmount(served, unix.MNT_DETACH))
	a := start(t, "wait", func(command *exec.Cmd) { command.ExtraFiles = []*os.File{held, held} })
	must(t, held.Close())
	f := writeFiles(t, a.target(), Options{Limits: Limits{Patience: 2 * time.Second}})
	reasons := map[string]int{}
	for _, gap := range f.gaps {
		reasons[gap.Reason]++
	}
	if len(f.index) != 0 || reasons[GapDetached] != 1 || reasons[GapBlocked] != 2 {
		t.Errorf("index %+v, gaps %+v", f.index, f.gaps)
	}
}
