package volatile

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
)

// silentFile is a file that is a filesystem of its own, whose server never answers.
func silentFile(t *testing.T, name string) string {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "mounting needs root")
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	testneeds.That(t, err == nil, "this machine has no /dev/fuse")
	t.Cleanup(func() { must(t, device.Close()) })
	served := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(served, nil, 0o600))
	options := fmt.Sprintf("fd=%d,rootmode=100644,user_id=0,group_id=0,allow_other", device.Fd())
	must(t, unix.Mount("nobody", served, "fuse", 0, options))
	t.Cleanup(func() { _ = unix.Unmount(served, unix.MNT_DETACH) })
	return served
}

func TestAFileOfAServerIsNotOpenedThroughAMountThatIsNotInTheListOfItsProcess(t *testing.T) {
	tests := map[string]struct {
		change func(*exec.Cmd)
		limits Limits
	}{
		"in the list of another namespace": {namespaces(unix.CLONE_NEWNS), Limits{Patience: 200 * time.Millisecond}},
		"beyond the limit":                 {func(*exec.Cmd) {}, Limits{Patience: 200 * time.Millisecond, Mounts: 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fd, err := unix.Open(silentFile(t, "served (deleted)"), unix.O_PATH|unix.O_CLOEXEC, 0)
			must(t, err)
			held := os.NewFile(uintptr(fd), "served")
			a := start(t, "wait", func(command *exec.Cmd) {
				test.change(command)
				command.ExtraFiles = []*os.File{held}
			})
			must(t, held.Close())
			f := writeFiles(t, a.target(), Options{Limits: test.limits})
			blocked := 0
			for _, gap := range f.gaps {
				if gap.Reason == GapBlocked && strings.HasSuffix(gap.Path, "/fd/3") {
					blocked++
				}
			}
			if len(f.index) != 0 || blocked != 1 {
				t.Errorf("index %+v, gaps %+v", f.index, f.gaps)
			}
		})
	}
}

// running is a process whose executable is a file; of its folder in /proc there is nothing else.
func running(t *testing.T, executable string) *handle {
	t.Helper()
	folder := t.TempDir()
	must(t, os.Symlink(executable, folder+"/exe"))
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	h := &handle{shared: share(fd), patience: 20 * time.Millisecond}
	t.Cleanup(h.release)
	return h
}

func TestADeviceThatIsSilentCostsOneThreadHoweverManyProcessesRunItsFiles(t *testing.T) {
	limits := Limits{}.withDefaults()
	g := newGuard(limits)
	s := newHashes(g)
	h := running(t, silentFile(t, "served"))
	for range maxAbandoned + 1 {
		if _, err := s.executable(t.Context(), h, nil, limits); !errors.Is(err, errBlocked) {
			t.Fatal(err)
		}
	}
	if g.abandoned != 1 {
		t.Errorf("%d threads wait", g.abandoned)
	}
	program := copyOfMe(t)
	other := running(t, program)
	other.patience = limits.Duration
	if sum, err := s.executable(t.Context(), other, nil, limits); err != nil || sum != fileDigest(t, program) {
		t.Errorf("another executable: %q, %v", sum, err)
	}
}

func TestManySilentDevicesLeaveThreadsForTheRest(t *testing.T) {
	limits := Limits{}.withDefaults()
	g := newGuard(limits)
	s := newHashes(g)
	program := running(t, copyOfMe(t))
	for i := range maxAbandoned + 1 {
		_, err := s.executable(t.Context(), running(t, silentFile(t, strconv.Itoa(i))), nil, limits)
		if !errors.Is(err, errBlocked) {
			t.Fatal(err)
		}
	}
	if g.abandoned != maxAsking {
		t.Errorf("%d threads wait", g.abandoned)
	}
	if _, err := s.executable(t.Context(), program, nil, limits); !errors.Is(err, errBlocked) {
		t.Errorf("an executable is still opened: %v", err)
	}
	unhurried := newGuard(limits)
	unhurried.abandoned = g.abandoned
	if _, _, err := watched(t.Context(), unhurried, program.shared, time.Hour, func(*findings) (int, error) { return 0, nil }); err != nil {
		t.Error("nothing else is begun:", err)
	}
}

// TestExecutablesLeaveThreadsForTheRest has each lie where no server is: on such devices each costs a thread.
func TestExecutablesLeaveThreadsForTheRest(t *testing.T) {
	limits := Limits{}.withDefaults()
	for name, lies := range map[string]kind{"in memory": inMemory, "on a disk": onDisk} {
		t.Run(name, func(t *testing.T) {
			g := newGuard(limits)
			s := newHashes(g)
			for i := range maxAbandoned + 1 {
				silent := silentFile(t, strconv.Itoa(i))
				var stat unix.Statx_t
				must(t, unix.Statx(unix.AT_FDCWD, silent, unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &stat))
				s.servers.know(device(stat.Dev_major, stat.Dev_minor), lies)
				if _, err := s.executable(t.Context(), running(t, silent), nil, limits); !errors.Is(err, errBlocked) {
					t.Fatal(err)
				}
			}
			if g.abandoned != maxAsking {
				t.Errorf("%d threads wait", g.abandoned)
			}
		})
	}
}

func TestSilentDevicesHideNoMemfd(t *testing.T) {
	var held []*os.File
	for i := range maxAsking + 1 {
		fd, err := unix.Open(silentFile(t, strconv.Itoa(i)+" (deleted)"), unix.O_PATH|unix.O_CLOEXEC, 0)
		must(t, err)
		held = append(held, os.NewFile(uintptr(fd), "held"))
	}
	first := start(t, "wait", func(command *exec.Cmd) { command.ExtraFiles = held })
	for _, file := range held {
		must(t, file.Close())
	}
	second := start(t, "descriptors "+t.TempDir()+" 0", nil)
	limits := Limits{Patience: 500 * time.Millisecond, Mounts: 1}
	f := writeFiles(t, targetOf(first.Process.Pid, second.Process.Pid), Options{Limits: limits})
	if _, ok := f.index["/memfd:planted (deleted)"]; !ok || len(f.index) != 1 {
		t.Errorf("index %+v", f.index)
	}
	blocked := 0
	for _, gap := range f.gaps {
		if gap.Reason == GapBlocked {
			blocked++
		}
	}
	// Beside them the file of the second process that lies beyond the limit of mounts and cannot be asked for any more.
	if blocked != maxAsking+2 {
		t.Errorf("gaps %+v", f.gaps)
	}
}
