package freeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/testneeds"
)

// place is where a method's folders are.
type place struct {
	method v1alpha1.FreezeMethod
	root   string
}

func (p place) container(folder string) Container {
	if p.method == v1alpha1.FreezeCgroupV1 {
		return Container{ID: "c1", Freezer: folder, Cgroup: "/nonexistent"}
	}
	return Container{ID: "c1", Cgroup: folder, Freezer: "/nonexistent"}
}

// places returns those of this machine, and demands one at least.
func places(t *testing.T) (found []place) {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "making a cgroup needs root")
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var stat unix.Statfs_t
		if unix.Statfs(root, &stat) == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC {
			found = append(found, place{v1alpha1.FreezeCgroupV2, root})
			break
		}
	}
	if root, err := freezerRoot(); err != nil {
		t.Fatal(err)
	} else if root != "" {
		found = append(found, place{v1alpha1.FreezeCgroupV1, root})
	}
	testneeds.That(t, len(found) > 0, "no cgroup freezer is mounted")
	return found
}

// makeContainer makes a folder with one process that counts into a file.
func makeContainer(t *testing.T, at place) (container Container, folder, counter string) {
	t.Helper()
	folder = filepath.Join(at.root, fmt.Sprintf("freeze-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	do(t, os.Mkdir(folder, 0o700))
	t.Cleanup(func() { removeFolder(t, folder) })
	_, counter = stray(t, folder)
	container = at.container(folder)
	t.Cleanup(func() {
		if _, err := New(at.method).Thaw(context.WithoutCancel(t.Context()), container); err != nil {
			t.Error(err)
		}
	})
	return container, folder, counter
}

func size(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

func waitForGrowth(t *testing.T, file string) {
	t.Helper()
	before := size(t, file)
	for range 6000 { // 30 s at least
		time.Sleep(5 * time.Millisecond)
		if size(t, file) > before {
			return
		}
	}
	t.Fatal("the process does not run")
}

func TestFreezeStopsEveryProcessAndThawResumesThem(t *testing.T) {
	for _, at := range places(t) {
		t.Run(string(at.method), func(t *testing.T) {
			container, _, counter := makeContainer(t, at)
			freezer := New(at.method)
			for range 2 { // the second time it is frozen already
				state, err := freezer.Freeze(t.Context(), container)
				if err != nil || state != Frozen {
					t.Fatalf("Freeze = %q, %v", state, err)
				}
			}
			if state, err := freezer.State(container); err != nil || state != Frozen {
				t.Errorf("State = %q, %v", state, err)
			}
			before := size(t, counter)
			time.Sleep(100 * time.Millisecond)
			if after := size(t, counter); after != before {
				t.Errorf("the frozen process wrote %d bytes", after-before)
			}
			for range 2 {
				state, err := freezer.Thaw(t.Context(), container)
				if err != nil || state != Thawed {
					t.Fatalf("Thaw = %q, %v", state, err)
				}
			}
			if state, err := freezer.State(container); err != nil || state != Thawed {
				t.Errorf("State = %q, %v", state, err)
			}
			waitForGrowth(t, counter)
		})
	}
}

func TestWithoutAProcessAContainerIsGone(t *testing.T) {
	for _, at := range places(t) {
		t.Run(string(at.method), func(t *testing.T) {
			freezer := New(at.method)
			folder := filepath.Join(at.root, fmt.Sprintf("freeze-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
			for _, of := range []string{"no folder", "an empty folder"} {
				if state, err := freezer.Freeze(t.Context(), at.container(folder)); err != nil || state != Gone {
					t.Errorf("Freeze of %s = %q, %v", of, state, err)
				}
				if state, err := freezer.State(at.container(folder)); err != nil || state != Gone {
					t.Errorf("State of %s = %q, %v", of, state, err)
				}
				if state, err := freezer.Thaw(t.Context(), at.container(folder)); err != nil || state != Gone {
					t.Errorf("Thaw of %s = %q, %v", of, state, err)
				}
				if err := os.Mkdir(folder, 0o700); err == nil {
					t.Cleanup(func() { removeFolder(t, folder) })
				}
			}
		})
	}
}

// TestFreezeReachesBelowTheContainersFolder has the only process in a folder that a container made for itself.
func TestFreezeReachesBelowTheContainersFolder(t *testing.T) {
	for _, at := range places(t) {
		t.Run(string(at.method), func(t *testing.T) {
			above := filepath.Join(at.root, fmt.Sprintf("freeze-above-%d-%d", os.Getpid(), time.Now().UnixNano()))
			do(t, os.Mkdir(above, 0o700))
			t.Cleanup(func() { removeFolder(t, above) })
			_, _, counter := makeContainer(t, place{at.method, above})
			freezer := New(at.method)
			if state, err := freezer.Freeze(t.Context(), at.container(above)); err != nil || state != Frozen {
				t.Errorf("Freeze = %q, %v", state, err)
			}
			before := size(t, counter)
			time.Sleep(50 * time.Millisecond)
			if after := size(t, counter); after != before {
				t.Errorf("the frozen process wrote %d bytes", after-before)
			}
			if state, err := freezer.Thaw(t.Context(), at.container(above)); err != nil || state != Thawed {
				t.Errorf("Thaw = %q, %v", state, err)
			}
			waitForGrowth(t, counter)
		})
	}
}

// TestAContainerOfManyFoldersIsNotTakenForOneWithoutAProcess makes more than are looked at, and none has a process.
func TestAContainerOfManyFoldersIsNotTakenForOneWithoutAProcess(t *testing.T) {
	root, err := freezerRoot()
	do(t, err)
	testneeds.That(t, root != "" && os.Geteuid() == 0, "no v1 freezer")
	above := filepath.Join(root, fmt.Sprintf("freeze-many-%d-%d", os.Getpid(), time.Now().UnixNano()))
	do(t, os.Mkdir(above, 0o700))
	t.Cleanup(func() { removeFolder(t, above) })
	for i := range maxFolders {
		folder := filepath.Join(above, strconv.Itoa(i))
		do(t, os.Mkdir(folder, 0o700))
		t.Cleanup(func() { removeFolder(t, folder) })
	}
	freezer, container := New(v1alpha1.FreezeCgroupV1), Container{ID: "c1", Freezer: above}
	if state, err := freezer.Freeze(t.Context(), container); err != nil || state != Frozen {
		t.Errorf("Freeze = %q, %v", state, err)
	}
	// Nor for one in which nothing stays frozen.
	if state, err := freezer.Thaw(t.Context(), container); err != nil || state != FrozenBelow {
		t.Errorf("Thaw = %q, %v", state, err)
	}
}

// TestKilledFrozenContainerIsGoneOnceThawed kills as the runtime does: a signal, then a thaw.
func TestKilledFrozenContainerIsGoneOnceThawed(t *testing.T) {
	root, err := freezerRoot()
	do(t, err)
	testneeds.That(t, root != "" && os.Geteuid() == 0, "no v1 freezer")
	container, folder, _ := makeContainer(t, place{v1alpha1.FreezeCgroupV1, root})
	freezer := New(v1alpha1.FreezeCgroupV1)
	if state, err := freezer.Freeze(t.Context(), container); err != nil || state != Frozen {
		t.Fatalf("Freeze = %q, %v", state, err)
	}
	list, err := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
	do(t, err)
	for _, process := range strings.Fields(string(list)) {
		pid, err := strconv.Atoi(process)
		do(t, err)
		do(t, unix.Kill(pid, unix.SIGKILL))
	}
	do(t, os.WriteFile(filepath.Join(folder, "freezer.state"), []byte("THAWED"), 0))
	for range 6000 { // 30 s at least
		if state, err := freezer.State(container); err != nil || state == Gone {
			do(t, err)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("the killed processes are still there")
}

// TestThawUnderAFrozenFolderIsAnError freezes what is above: the container's own folder is not what holds it.
func TestThawUnderAFrozenFolderIsAnError(t *testing.T) {
	for _, at := range places(t) {
		t.Run(string(at.method), func(t *testing.T) {
			above := filepath.Join(at.root, fmt.Sprintf("freeze-above-%d-%d", os.Getpid(), time.Now().UnixNano()))
			do(t, os.Mkdir(above, 0o700))
			t.Cleanup(func() { removeFolder(t, above) })
			container, _, _ := makeContainer(t, place{at.method, above})
			freezer := New(at.method)
			if state, err := freezer.Freeze(t.Context(), at.container(above)); err != nil || state != Frozen {
				t.Errorf("Freeze = %q, %v", state, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if state, err := freezer.Thaw(ctx, container); !errors.Is(err, context.DeadlineExceeded) || state != "" {
				t.Errorf("Thaw = %q, %v", state, err)
			}
			if state, err := freezer.Thaw(t.Context(), at.container(above)); err != nil || state != Thawed {
				t.Errorf("Thaw of the upper folder = %q, %v", state, err)
			}
		})
	}
}

// TestThawLeavesFrozenWhatTheContainerFroze has a folder in the container's that somebody in there froze.
func TestThawLeavesFrozenWhatTheContainerFroze(t *testing.T) {
	for _, at := range places(t) {
		t.Run(string(at.method), func(t *testing.T) {
			above := filepath.Join(at.root, fmt.Sprintf("freeze-above-%d-%d", os.Getpid(), time.Now().UnixNano()))
			do(t, os.Mkdir(above, 0o700))
			t.Cleanup(func() { removeFolder(t, above) })
			own, _, counter := makeContainer(t, place{at.method, above})
			container, freezer := at.container(above), New(at.method)
			if state, err := freezer.Freeze(t.Context(), own); err != nil || state != Frozen {
				t.Fatalf("Freeze from inside = %q, %v", state, err)
			}
			if state, err := freezer.Freeze(t.Context(), container); err != nil || state != Frozen {
				t.Errorf("Freeze = %q, %v", state, err)
			}
			if state, err := freezer.Thaw(t.Context(), container); err != nil || state != FrozenBelow {
				t.Errorf("Thaw = %q, %v, want FrozenBelow", state, err)
			}
			before := size(t, counter)
			time.Sleep(50 * time.Millisecond)
			if after := size(t, counter); after != before {
				t.Errorf("what the container froze wrote %d bytes", after-before)
			}
			if state, err := freezer.Thaw(t.Context(), own); err != nil || state != Thawed {
				t.Errorf("Thaw from inside = %q, %v", state, err)
			}
			if state, err := freezer.Thaw(t.Context(), container); err != nil || state != Thawed {
				t.Errorf("Thaw = %q, %v", state, err)
			}
			waitForGrowth(t, counter)
		})
	}
}

// TestAFrozenFolderWithoutAProcessKeepsNothingFrozen has the container freeze one beside its process.
func TestAFrozenFolderWithoutAProcessKeepsNothingFrozen(t *testing.T) {
	for _, at := range places(t) {
		t.Run(string(at.method), func(t *testing.T) {
			container, folder, _ := makeContainer(t, at)
			empty := filepath.Join(folder, "empty")
			do(t, os.Mkdir(empty, 0o700))
			t.Cleanup(func() { removeFolder(t, empty) })
			file, value := "cgroup.freeze", "1"
			if at.method == v1alpha1.FreezeCgroupV1 {
				file, value = "freezer.state", "FROZEN"
			}
			do(t, os.WriteFile(filepath.Join(empty, file), []byte(value), 0))
			freezer := New(at.method)
			if state, err := freezer.Freeze(t.Context(), container); err != nil || state != Frozen {
				t.Errorf("Freeze = %q, %v", state, err)
			}
			if state, err := freezer.Thaw(t.Context(), container); err != nil || state != Thawed {
				t.Errorf("Thaw = %q, %v", state, err)
			}
		})
	}
}

func TestOnlyTheWholeFreezerTreeHasItsRoot(t *testing.T) {
	const (
		part  = "36 35 0:34 /docker/1 /part rw - cgroup cgroup rw,freezer\n"
		above = "36 35 0:34 /../.. /above rw - cgroup cgroup rw,freezer\n"
		other = "37 35 0:35 / /cpu rw - cgroup cgroup rw,cpu\n"
		two   = "38 35 0:36 / /unified rw - cgroup2 cgroup2 rw\n"
		whole = "39 35 0:34 / /whole rw,relatime shared:9 - cgroup cgroup rw,cpu,freezer\n"
	)
	tests := map[string]struct{ mountinfo, want string }{
		"none":                 {other + two, ""},
		"a part":               {part + other, ""},
		"seen from below":      {above, ""},
		"whole":                {other + whole, "/whole"},
		"whole behind a part":  {part + above + whole, "/whole"},
		"nothing is mounted":   {"", ""},
		"whole before a part":  {whole + part, "/whole"},
		"with other trees too": {two + other + whole, "/whole"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := readFreezerRoot(strings.NewReader(tt.mountinfo)); err != nil || got != tt.want {
				t.Errorf("readFreezerRoot = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestAnUnknownCgroupIsNeitherFrozenNorSaidToBeThawed(t *testing.T) {
	containers := map[v1alpha1.FreezeMethod]Container{
		v1alpha1.FreezeCgroupV1: {ID: "c1", Cgroup: "/nonexistent"},
		v1alpha1.FreezeCgroupV2: {ID: "c1", Freezer: "/nonexistent"},
	}
	for method, container := range containers {
		if _, err := New(method).Freeze(t.Context(), container); !errors.Is(err, ErrNoCgroup) {
			t.Errorf("%s: Freeze = %v, want ErrNoCgroup", method, err)
		}
		if _, err := New(method).State(container); !errors.Is(err, ErrNoCgroup) {
			t.Errorf("%s: State = %v, want ErrNoCgroup", method, err)
		}
		if state, err := New(method).Thaw(t.Context(), container); err != nil || state != Unknown {
			t.Errorf("%s: Thaw = %q, %v, want Unknown", method, state, err)
		}
	}
}

func TestMethodFollowsWhatTheRuntimeLooksAt(t *testing.T) {
	tests := map[string]struct {
		magic int64
		want  v1alpha1.FreezeMethod
	}{
		"pure cgroup v2":       {unix.CGROUP2_SUPER_MAGIC, v1alpha1.FreezeCgroupV2},
		"hybrid or cgroup v1":  {unix.TMPFS_MAGIC, v1alpha1.FreezeCgroupV1},
		"v1 controller itself": {unix.CGROUP_SUPER_MAGIC, v1alpha1.FreezeCgroupV1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := methodFor(test.magic); got != test.want {
				t.Errorf("methodFor(%#x) = %s, want %s", test.magic, got, test.want)
			}
		})
	}
}

func TestDetectAgreesWithTheMountedFileSystem(t *testing.T) {
	var stat unix.Statfs_t
	err := unix.Statfs("/sys/fs/cgroup", &stat)
	testneeds.That(t, err == nil, "no /sys/fs/cgroup")
	got, err := Detect("/sys/fs/cgroup")
	if want := methodFor(stat.Type); err != nil || got != want {
		t.Errorf("Detect = %s, %v, want %s", got, err, want)
	}
	if _, err := Detect(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Detect of a missing folder = %v, want ErrNotExist", err)
	}
}
