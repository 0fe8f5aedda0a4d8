package freeze

import (
	"context"
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

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

// onOwnNode has the test run once more in a process that is process 1, as the node's first process is: that of this
// machine may not be looked at. It returns true in there.
func onOwnNode(t *testing.T) bool {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "a pid namespace needs root")
	const inside = "FREEZE_TEST_INSIDE"
	if os.Getenv(inside) == "1" {
		if err := errors.Join(
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""),
		); err != nil {
			t.Fatal(err)
		}
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

// makePod makes the cgroup of a pod, with a container whose process counts into a file beside it, and one outside of it.
func makePod(t *testing.T) (pod, outside string) {
	t.Helper()
	for _, at := range places(t) {
		if at.method == v1alpha1.FreezeCgroupV2 {
			_, outside, _ = makeContainer(t, at)
		}
	}
	testneeds.That(t, outside != "", "no cgroup2 is mounted")
	pod = filepath.Join(filepath.Dir(outside), filepath.Base(outside)+"-pod")
	for _, folder := range []string{pod, filepath.Join(pod, "c1"), filepath.Join(pod, straysName)} {
		if filepath.Base(folder) != straysName {
			do(t, os.Mkdir(folder, 0o700))
		}
		t.Cleanup(func() { removeFolder(t, folder) })
	}
	return pod, outside
}

func removeFolder(t *testing.T, folder string) {
	t.Helper()
	err := os.Remove(folder)
	for range 6000 { // 30 s at least
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(5 * time.Millisecond)
		err = os.Remove(folder)
	}
	t.Errorf("remove %s: %v", folder, err)
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stray starts a process that counts into a file, in a cgroup.
func stray(t *testing.T, folder string) (Stray, string) {
	t.Helper()
	counter := filepath.Join(t.TempDir(), "count")
	process := exec.Command("sh", "-c", `while :; do echo >> "$0"; sleep 0.002; done`, counter)
	process.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	do(t, process.Start())
	t.Cleanup(func() {
		_ = unix.Kill(-process.Process.Pid, unix.SIGKILL)
		_ = process.Wait()
	})
	put(t, process.Process.Pid, folder)
	waitForGrowth(t, counter)
	return named(t, process.Process.Pid), counter
}

func put(t *testing.T, process int, folder string) {
	t.Helper()
	do(t, os.WriteFile(filepath.Join(folder, "cgroup.procs"), fmt.Appendf(nil, "%d", process), 0))
}

func named(t *testing.T, process int) Stray {
	t.Helper()
	now, err := proc.Read(strconv.Itoa(process))
	do(t, err)
	return Stray{process, now.Started}
}

// idle starts a process that waits, and has no children that come and go.
func idle(t *testing.T, folder string) Stray {
	t.Helper()
	process := exec.Command("sleep", "60")
	do(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	put(t, process.Process.Pid, folder)
	return named(t, process.Process.Pid)
}

func wantIn(t *testing.T, folder string, strays ...Stray) {
	t.Helper()
	found, err := listed(folder)
	do(t, err)
	for _, stray := range strays {
		if !found[strconv.Itoa(stray.PID)] {
			t.Errorf("process %d is not in %s: %v", stray.PID, folder, found)
		}
	}
}

func wantState(t *testing.T, folder string, want State) {
	t.Helper()
	if state, err := readState(folder); err != nil || state != want {
		t.Errorf("state of %s = %q, %v, want %q", folder, state, err, want)
	}
}

func TestStopFreezesStraysInTheirPodUntilTheyAreStarted(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	for _, method := range []v1alpha1.FreezeMethod{v1alpha1.FreezeCgroupV2, v1alpha1.FreezeCgroupV1} {
		pod, outside := makePod(t)
		freezer, folder := New(method), filepath.Join(pod, straysName)
		first, counter := stray(t, outside)
		for range 2 { // the second time it is there already
			if stopped, err := freezer.Stop(t.Context(), pod, []Stray{first}); err != nil || stopped != 1 {
				t.Fatalf("%s: Stop = %d, %v", method, stopped, err)
			}
			wantIn(t, folder, first)
			wantState(t, folder, Frozen)
		}
		second, _ := stray(t, outside)
		if stopped, err := freezer.Stop(t.Context(), pod, []Stray{second}); err != nil || stopped != 1 {
			t.Errorf("%s: Stop of a second = %d, %v", method, stopped, err)
		}
		wantIn(t, folder, first, second)
		wantState(t, folder, Frozen)
		wantState(t, outside, Thawed)
		if got, processes, err := freezer.Stopped(pod); err != nil || got != folder || processes != 2 {
			t.Errorf("%s: Stopped = %s, %d, %v", method, got, processes, err)
		}
		for range 2 {
			do(t, freezer.StartStrays(t.Context(), pod))
			wantState(t, folder, Thawed)
		}
		waitForGrowth(t, counter)
		if got, _, err := freezer.Stopped(pod); err != nil || got != "" {
			t.Errorf("%s: Stopped = %s, %v once they run", method, got, err)
		}
		if stopped, err := freezer.Stop(t.Context(), pod, nil); err != nil || stopped != 0 {
			t.Errorf("%s: Stop of none = %d, %v", method, stopped, err)
		}
		wantState(t, folder, Frozen)
	}
}

func TestStopLeavesALaterProcessWithTheSameIDAlone(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	pod, outside := makePod(t)
	freezer := New(v1alpha1.FreezeCgroupV2)
	innocent := idle(t, outside)
	over := exec.Command("true")
	do(t, over.Run())
	gone := Stray{over.Process.Pid, innocent.StartTime}
	caught := idle(t, outside)
	stopped, err := freezer.Stop(t.Context(), pod, []Stray{{innocent.PID, innocent.StartTime - 1}, gone, caught})
	if err != nil || stopped != 1 {
		t.Errorf("Stop = %d, %v, want 1", stopped, err)
	}
	wantIn(t, outside, innocent)
	wantIn(t, filepath.Join(pod, straysName), caught)
	// One that ended and is still in its parent's table still has a start time, and the kernel says that it was moved.
	ended := exec.Command("true")
	do(t, ended.Start())
	t.Cleanup(func() { _ = ended.Wait() })
	for range 6000 { // 30 s at least
		if now, err := proc.Read(strconv.Itoa(ended.Process.Pid)); err != nil || now.State == "Z" {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for name, over := range map[string]Stray{"over": gone, "ended": named(t, ended.Process.Pid)} {
		if stopped, err := freezer.Stop(t.Context(), pod, []Stray{over}); err != nil || stopped != 0 {
			t.Errorf("Stop of one that is %s = %d, %v", name, stopped, err)
		}
	}
}

func TestStopNamesWhatItCannotStopAndStopsTheOthers(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	const tree = "/sys/fs/cgroup/freezer"
	_, err := os.Stat(tree)
	testneeds.That(t, err == nil, "no v1 freezer to hold a process uninterruptibly")
	pod, outside := makePod(t)
	held := filepath.Join(tree, filepath.Base(outside))
	do(t, os.Mkdir(held, 0o700))
	t.Cleanup(func() { removeFolder(t, held) })
	stuck, free := idle(t, outside), idle(t, outside)
	put(t, stuck.PID, held)
	set := func(want State) {
		if state, err := setFreezer(context.WithoutCancel(t.Context()), held, want, never); err != nil || (state != want && state != Gone) {
			t.Fatalf("setFreezer = %s, %v", state, err)
		}
	}
	set(Frozen)
	t.Cleanup(func() { set(Thawed) })

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	stopped, err := New(v1alpha1.FreezeCgroupV2).Stop(ctx, pod, []Stray{stuck, free})
	if stopped != 1 || !errors.Is(err, errRuns) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Stop = %d, %v", stopped, err)
	}
	if text := fmt.Sprint(err); !strings.Contains(text, fmt.Sprintf("process %d:", stuck.PID)) ||
		strings.Contains(text, fmt.Sprintf("process %d:", free.PID)) {
		t.Errorf("the error names others than %d: %s", stuck.PID, text)
	}
	// Where containers are frozen in the v1 freezer it leaves that tree, and is frozen once.
	stopped, err = New(v1alpha1.FreezeCgroupV1).Stop(t.Context(), pod, []Stray{stuck, free})
	if stopped != 2 || err != nil {
		t.Errorf("Stop out of the v1 freezer = %d, %v", stopped, err)
	}
	wantState(t, filepath.Join(pod, straysName), Frozen)
}

func TestStopReportsAProcessThatCannotBeMoved(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	pod, outside := makePod(t)
	folder := filepath.Join(pod, straysName)
	do(t, os.Mkdir(folder, 0o700))
	caught := idle(t, outside)
	// A file that may not be written in place of the folder's list.
	list := filepath.Join(t.TempDir(), "list")
	do(t, os.WriteFile(list, nil, 0o600))
	inPlace := filepath.Join(folder, "cgroup.procs")
	do(t, unix.Mount(list, inPlace, "", unix.MS_BIND, ""))
	do(t, unix.Mount("", inPlace, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	freezer := New(v1alpha1.FreezeCgroupV2)
	stopped, err := freezer.Stop(t.Context(), pod, []Stray{caught})
	if stopped != 0 || !errors.Is(err, unix.EROFS) || !strings.Contains(fmt.Sprint(err), strconv.Itoa(caught.PID)) {
		t.Errorf("Stop = %d, %v", stopped, err)
	}
	do(t, unix.Unmount(inPlace, 0))
	if stopped, err := freezer.Stop(t.Context(), pod, []Stray{caught}); stopped != 1 || err != nil {
		t.Errorf("Stop = %d, %v", stopped, err)
	}
}

func TestStopWorksBesideAThreadedContainer(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	pod, outside := makePod(t)
	do(t, os.WriteFile(filepath.Join(pod, "c1", "cgroup.type"), []byte("threaded"), 0))
	inside, caught := idle(t, filepath.Join(pod, "c1")), idle(t, outside)
	freezer := New(v1alpha1.FreezeCgroupV2)
	if stopped, err := freezer.Stop(t.Context(), pod, []Stray{caught}); stopped != 1 || err != nil {
		t.Errorf("Stop = %d, %v", stopped, err)
	}
	folder, processes, err := freezer.Stopped(pod)
	if err != nil || processes != 1 {
		t.Errorf("Stopped = %s, %d, %v", folder, processes, err)
	}
	wantIn(t, folder, caught)
	wantIn(t, filepath.Join(pod, "c1"), inside)
}

func TestStopNeedsAPodAndStartNeedsNone(t *testing.T) {
	freezer := New(v1alpha1.FreezeCgroupV2)
	if stopped, err := freezer.Stop(t.Context(), "", []Stray{{PID: os.Getpid()}}); !errors.Is(err, ErrNoCgroup) || stopped != 0 {
		t.Errorf("Stop = %d, %v, want ErrNoCgroup", stopped, err)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := freezer.Stop(t.Context(), missing, []Stray{{PID: os.Getpid()}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stop in a pod that is gone = %v, want ErrNotExist", err)
	}
	for _, pod := range []string{"", missing} {
		if err := freezer.StartStrays(t.Context(), pod); err != nil {
			t.Errorf("StartStrays(%q) = %v", pod, err)
		}
		if folder, processes, err := freezer.Stopped(pod); folder != "" || processes != 0 || err != nil {
			t.Errorf("Stopped(%q) = %s, %d, %v", pod, folder, processes, err)
		}
	}
	if stopped, err := freezer.Stop(t.Context(), missing, nil); stopped != 0 || err != nil {
		t.Errorf("Stop of none = %d, %v", stopped, err)
	}
}
