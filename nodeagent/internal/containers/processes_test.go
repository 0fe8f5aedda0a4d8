package containers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onOwnNode has the test run once more in a process that is process 1, as the node's first process is: that of this
// machine may not be looked at. It returns true in there.
func onOwnNode(t *testing.T) bool {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "a pid namespace needs root")
	const inside = "CONTAINERS_TEST_INSIDE"
	if os.Getenv(inside) == "1" {
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		must(t, unix.Mount("proc", "/proc", "proc", 0, ""))
		return true
	}
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v") // #nosec G204 -- this test
	again.Env = append(os.Environ(), inside+"=1")
	again.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	if output, err := again.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
	return false
}

// makePod makes the cgroup2 folder of a pod with that of a container in it, and returns both.
func makePod(t *testing.T) (pod, container string) {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "making a cgroup needs root")
	root := ""
	for _, candidate := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var stat unix.Statfs_t
		if unix.Statfs(candidate, &stat) == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC {
			root = candidate
			break
		}
	}
	testneeds.That(t, root != "", "no cgroup2 is mounted")
	above := filepath.Join(root, fmt.Sprintf("containers-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	pod = filepath.Join(above, "pod"+uid)
	container = filepath.Join(pod, "c1")
	for _, folder := range []string{above, pod, container} {
		makeFolder(t, folder)
	}
	return pod, container
}

// makeFolder makes a cgroup that is removed at the end of the test, once the kernel has let its processes go.
func makeFolder(t *testing.T, folder string) {
	t.Helper()
	must(t, os.Mkdir(folder, 0o700))
	t.Cleanup(func() {
		err := os.Remove(folder)
		for deadline := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(deadline); err = os.Remove(folder) {
			time.Sleep(5 * time.Millisecond)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

// start starts a process in a cgroup.
func start(t *testing.T, folder string) int {
	t.Helper()
	process := run(t, 0, "sleep", "60")
	move(t, process, folder)
	return process
}

// run starts a process in namespaces of its own and ends it with the test, before the folders made so far are removed.
func run(t *testing.T, namespaces uintptr, command ...string) int {
	t.Helper()
	process := exec.Command(command[0], command[1:]...) // #nosec G204 -- a command of a test
	process.SysProcAttr = &unix.SysProcAttr{Cloneflags: namespaces, Setpgid: true}
	must(t, process.Start())
	t.Cleanup(func() {
		_ = unix.Kill(-process.Process.Pid, unix.SIGKILL) // and its children
		_ = process.Wait()
	})
	return process.Process.Pid
}

func move(t *testing.T, process int, folder string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(folder, "cgroup.procs"), fmt.Appendf(nil, "%d", process), 0))
}

func threaded(t *testing.T, folder string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(folder, "cgroup.type"), []byte("threaded"), 0))
}

func TestProcessesOfThreadedCgroupsAreListedOnce(t *testing.T) {
	_, container := makePod(t)
	own := filepath.Join(container, "own")
	makeFolder(t, own)
	want := []int{start(t, container)}
	threaded(t, own)
	want = append(want, start(t, own))
	slices.Sort(want)
	if _, err := os.ReadFile(filepath.Join(own, "cgroup.procs")); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("reading cgroup.procs of a threaded cgroup = %v", err)
	}
	for name, tt := range map[string]struct {
		folder string
		want   []int
	}{
		"from above": {container, want}, "the threaded one": {own, want[1:]},
	} {
		if got, err := processes(tt.folder); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: processes = %v, %v, want %v", name, got, err, tt.want)
		}
	}
}

func TestPodWithAThreadedContainerIsLocated(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	pod, container := makePod(t)
	threaded(t, container)
	process := start(t, container)
	found := Pod{UID: uid, Containers: []Container{{ID: "c1", Process: process}}}
	must(t, found.locate())
	if found.Cgroup != pod || found.Containers[0].Cgroup != container || !slices.Equal(found.Processes, []int{process}) {
		t.Errorf("found %+v", found)
	}
}

func TestPodWhoseProcessesCannotBeListedHasItsFirstOnes(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	pod, container := makePod(t)
	process := start(t, container)
	// A file in place of the cgroup's list: reading it gives no number.
	broken := filepath.Join(t.TempDir(), "broken")
	must(t, os.WriteFile(broken, []byte("no number\n"), 0o600))
	must(t, unix.Mount(broken, filepath.Join(container, "cgroup.procs"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(filepath.Join(container, "cgroup.procs"), 0)) })
	if _, err := processes(pod); err == nil {
		t.Fatal("the list was read")
	}
	found := Pod{UID: uid, Containers: []Container{{ID: "c1", Process: process}}}
	must(t, found.locate())
	if found.Cgroup != pod || !slices.Equal(found.Processes, []int{process}) {
		t.Errorf("found %+v", found)
	}
}
