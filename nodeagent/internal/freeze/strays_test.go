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
)

// onOwnNode has the test run once more in a process that is process 1, as the node's first process is: that of this
// machine may not be looked at. It returns true in there.
func onOwnNode(t *testing.T) bool {
	t.Helper()
	need(t, os.Geteuid() == 0, "a pid namespace needs root")
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
	outside, _ = makeCgroup(t)
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
	for range 400 {
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
	now, err := readStat(strconv.Itoa(process))
	do(t, err)
	return Stray{process, now.started}
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
	for _, method := range []v1alpha1.FreezeMethod{v1alpha1.FreezeCgroupV2, v1alpha1.FreezeRuntimePause} {
		pod, outside := makePod(t)
		freezer, folder := New(method, nil), filepath.Join(pod, straysName)
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
	freezer := New(v1alpha1.FreezeCgroupV2, nil)
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
	for range 400 {
		if now, err := readStat(strconv.Itoa(ended.Process.Pid)); err != nil || now.state == "Z" {
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
	need(t, err == nil, "no v1 freezer to hold a process uninterruptibly")
	pod, outside := makePod(t)
	held := filepath.Join(tree, filepath.Base(outside))
	do(t, os.Mkdir(held, 0o700))
	t.Cleanup(func() { removeFolder(t, held) })
	stuck, free := idle(t, outside), idle(t, outside)
	put(t, stuck.PID, held)
	set := func(state string) {
		do(t, os.WriteFile(filepath.Join(held, "freezer.state"), []byte(state), 0))
	}
	set("FROZEN")
	t.Cleanup(func() { set("THAWED") })
	if state, err := confirmPaused(t.Context(), held); err != nil || state != Frozen {
		t.Fatalf("confirmPaused = %s, %v", state, err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	stopped, err := New(v1alpha1.FreezeCgroupV2, nil).Stop(ctx, pod, []Stray{stuck, free})
	if stopped != 1 || !errors.Is(err, errRuns) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Stop = %d, %v", stopped, err)
	}
	if text := fmt.Sprint(err); !strings.Contains(text, fmt.Sprintf("process %d:", stuck.PID)) ||
		strings.Contains(text, fmt.Sprintf("process %d:", free.PID)) {
		t.Errorf("the error names others than %d: %s", stuck.PID, text)
	}
	// With the runtime's pause it leaves the v1 freezer, and is frozen once.
	stopped, err = New(v1alpha1.FreezeRuntimePause, nil).Stop(t.Context(), pod, []Stray{stuck, free})
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
	freezer := New(v1alpha1.FreezeCgroupV2, nil)
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
	freezer := New(v1alpha1.FreezeCgroupV2, nil)
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
	freezer := New(v1alpha1.FreezeCgroupV2, nil)
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

// freezerTasks pauses with the v1 freezer, and believes in the state that it last reached, as containerd's shim does.
type freezerTasks struct {
	tasks
	folder string
	paused bool
	// broken leaves the freezer as it is.
	broken bool
}

func (r *freezerTasks) Pause(ctx context.Context, id string) (State, error) {
	if r.paused || r.broken {
		return r.tasks.Pause(ctx, id)
	}
	r.paused = true
	return Frozen, os.WriteFile(filepath.Join(r.folder, "freezer.state"), []byte("FROZEN"), 0)
}

func (r *freezerTasks) Resume(context.Context, string) (State, error) {
	r.paused = false
	return Thawed, os.WriteFile(filepath.Join(r.folder, "freezer.state"), []byte("THAWED"), 0)
}

func TestPausedContainerIsFrozenOnlyIfTheFreezerSaysSo(t *testing.T) {
	const tree = "/sys/fs/cgroup/freezer"
	_, err := os.Stat(tree)
	need(t, err == nil && os.Geteuid() == 0, "no v1 freezer")
	folder := filepath.Join(tree, fmt.Sprintf("freeze-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	do(t, os.Mkdir(folder, 0o700))
	t.Cleanup(func() { removeFolder(t, folder) })
	idle(t, folder)
	runtime := &freezerTasks{folder: folder}
	t.Cleanup(func() { _, _ = runtime.Resume(context.Background(), "c1") })
	freezer := New(v1alpha1.FreezeRuntimePause, runtime)
	container := Container{ID: "c1", Freezer: folder}
	for range 2 { // the second time a process of the pod has thawed it
		if state, err := freezer.Freeze(t.Context(), container); err != nil || state != Frozen {
			t.Errorf("Freeze = %q, %v", state, err)
		}
		if state, err := confirmPaused(t.Context(), folder); err != nil || state != Frozen {
			t.Errorf("the freezer says %q, %v", state, err)
		}
		do(t, os.WriteFile(filepath.Join(folder, "freezer.state"), []byte("THAWED"), 0))
	}
	runtime.broken = true
	if state, err := freezer.Freeze(t.Context(), container); !errors.Is(err, errThawed) || state != "" {
		t.Errorf("Freeze that freezes nothing = %q, %v", state, err)
	}
	container.Freezer += "-missing"
	if state, err := freezer.Freeze(t.Context(), container); err != nil || state != Gone {
		t.Errorf("Freeze of one whose folder is gone = %q, %v", state, err)
	}
}
