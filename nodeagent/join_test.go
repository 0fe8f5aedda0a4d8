package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/freeze"
	"ugallu.io/forensics/nodeagent/internal/order"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

// onOwnNode has the test run once more in a process that is process 1, as the node's first process is: that of this
// machine may not be looked at. It returns true in there.
func onOwnNode(t *testing.T) bool {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "a pid namespace needs root")
	const inside = "AGENT_TEST_INSIDE"
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeFolder makes a cgroup that is removed at the end of the test, once the kernel has let its processes go.
func makeFolder(t *testing.T, folder string) {
	t.Helper()
	must(t, os.Mkdir(folder, 0o700))
	removeLater(t, folder)
}

func removeLater(t *testing.T, folder string) {
	t.Helper()
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

// podCgroup makes the cgroup2 folder of a pod, named as the kubelet does.
func podCgroup(t *testing.T, uid string) string {
	t.Helper()
	root := ""
	for _, candidate := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var stat unix.Statfs_t
		if unix.Statfs(candidate, &stat) == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC {
			root = candidate
			break
		}
	}
	testneeds.That(t, root != "", "no cgroup2 is mounted")
	above := filepath.Join(root, fmt.Sprintf("agent-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	pods := filepath.Join(above, "kubepods")
	pod := filepath.Join(pods, "pod"+uid)
	for _, folder := range []string{above, pods, pod} {
		makeFolder(t, folder)
	}
	return pod
}

// TestStraysOfAPodOfWhichNothingElseRunsGoOn has the runtime know no process of the pod, and so not its cgroup.
func TestStraysOfAPodOfWhichNothingElseRunsGoOn(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	const uid = "11111111-2222-3333-4444-555555555555"
	pod := podCgroup(t, uid)
	removeLater(t, filepath.Join(pod, "ugallu-strays"))
	process := exec.Command("sleep", "60")
	must(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	started, err := proc.Started(process.Process.Pid)
	must(t, err)
	stopper := freezer{freeze.New(v1alpha1.FreezeCgroupV2)}
	known, unknown := order.Pod{UID: uid, Cgroup: pod}, order.Pod{UID: uid}
	stopped, err := stopper.Stop(t.Context(), known, []order.Stray{{Process: process.Process.Pid, Started: started}})
	if err != nil || stopped != 1 {
		t.Fatalf("stopped %d, %v", stopped, err)
	}
	must(t, stopper.StartStrays(t.Context(), order.Pod{UID: "99999999-2222-3333-4444-555555555555"}))
	if _, still, err := stopper.Stopped(pod); err != nil || still != 1 {
		t.Errorf("after the release of another pod %d are stopped, %v", still, err)
	}
	must(t, stopper.StartStrays(t.Context(), unknown))
	if folder, _, err := stopper.Stopped(pod); err != nil || folder != "" {
		t.Errorf("after the release %s is frozen, %v", folder, err)
	}
}
