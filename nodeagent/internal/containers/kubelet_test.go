package containers

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownKubelet looks among the processes of this test's own pid namespace, as the agent does among the node's.
func ownKubelet(t *testing.T) *Kubelet {
	t.Helper()
	return &Kubelet{node: "/proc/self/ns/pid", onNode: func(do func(trees) error) error {
		file, err := os.Open("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		found, err := readTrees(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		return do(found)
	}}
}

// pretend starts a process that is called as the kubelet is.
func pretend(t *testing.T, kubelet *Kubelet) *exec.Cmd {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), kubeletName)
	if err := os.WriteFile(program, content, 0o700); err != nil {
		t.Fatal(err)
	}
	process := exec.Command(program, "1000") // #nosec G204 -- made above
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	for end := time.Now().Add(10 * time.Second); !kubelet.is(process.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the process does not show the name")
		}
	}
	return process
}

func TestKubeletIsFoundByNameAndForgottenWhenItEnds(t *testing.T) {
	kubelet := ownKubelet(t)
	if got, err := kubelet.Cgroup(); got != 0 || err != nil {
		t.Fatalf("without a kubelet: %d, %v", got, err)
	}
	pod, _ := makePod(t)
	process := pretend(t, kubelet)
	// Not in the root, where the tests may be.
	move(t, process.Process.Pid, pod)
	var want uint64
	err := kubelet.onNode(func(trees trees) error {
		at, err := trees.placeOf(strconv.Itoa(process.Process.Pid))
		if err != nil {
			return err
		}
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, at.unified, 0)
		if err == nil {
			want = binary.NativeEndian.Uint64(handle.Bytes())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := kubelet.Cgroup(); got != want || err != nil {
			t.Errorf("cgroup %d, %v, want %d", got, err, want)
		}
	}
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait()
	if got, err := kubelet.Cgroup(); got != 0 || err != nil {
		t.Errorf("after its end: %d, %v", got, err)
	}
}

func TestTwoKubeletsAreNone(t *testing.T) {
	kubelet := ownKubelet(t)
	pod, container := makePod(t)
	one, two := pretend(t, kubelet), pretend(t, kubelet)
	for name, folders := range map[string][2]string{
		"in two folders": {pod, container}, "in one": {pod, pod}, "and one in the root": {pod, filepath.Dir(filepath.Dir(pod))},
	} {
		move(t, one.Process.Pid, folders[0])
		move(t, two.Process.Pid, folders[1])
		if got, err := kubelet.Cgroup(); got != 0 || err != nil {
			t.Errorf("%s: cgroup %d, %v", name, got, err)
		}
	}
}

func TestKubeletInTheRootIsNone(t *testing.T) {
	kubelet := ownKubelet(t)
	pod, _ := makePod(t)
	process := pretend(t, kubelet)
	move(t, process.Process.Pid, filepath.Dir(filepath.Dir(pod)))
	if got, err := kubelet.Cgroup(); got != 0 || err != nil {
		t.Errorf("in the root: cgroup %d, %v", got, err)
	}
	move(t, process.Process.Pid, pod)
	if got, err := kubelet.Cgroup(); got == 0 || err != nil {
		t.Errorf("elsewhere: cgroup %d, %v", got, err)
	}
}

func TestRootIsAMountsOwnFolder(t *testing.T) {
	mounted := trees{unified: []mount{{"/", "/sys/fs/cgroup"}, {"/part", "/mnt/"}}}
	for folder, want := range map[string]bool{
		"/sys/fs/cgroup": true, "/mnt": true, "/sys/fs/cgroup/system.slice/kubelet.service": false, "/sys/fs": false,
	} {
		if got := mounted.isRoot(folder); got != want {
			t.Errorf("isRoot(%s) = %v", folder, got)
		}
	}
}
