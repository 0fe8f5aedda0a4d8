package freeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
)

// need skips a test that this machine cannot run, or fails it where every test must run.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("REQUIRE_ALL") == "1":
		t.Fatal(what)
	default:
		t.Skip(what)
	}
}

// makeCgroup makes a cgroup2 folder with one process that counts into a file, and returns both.
func makeCgroup(t *testing.T) (folder, counter string) {
	t.Helper()
	need(t, os.Geteuid() == 0, "making a cgroup needs root")
	root := ""
	for _, candidate := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var stat unix.Statfs_t
		if unix.Statfs(candidate, &stat) == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC {
			root = candidate
			break
		}
	}
	need(t, root != "", "no cgroup2 is mounted")
	folder = filepath.Join(root, fmt.Sprintf("freeze-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	counter = filepath.Join(t.TempDir(), "count")
	process := exec.Command("sh", "-c", `while :; do echo >> "$0"; sleep 0.002; done`, counter)
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(filepath.Join(folder, "cgroup.kill"), []byte("1"), 0); err != nil && !vanished(err) {
			t.Error(err)
		}
		_ = process.Wait()
		deadline := time.Now().Add(2 * time.Second)
		for {
			err := os.Remove(folder)
			if err == nil || errors.Is(err, os.ErrNotExist) {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("remove %s: %v", folder, err)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), fmt.Appendf(nil, "%d", process.Process.Pid), 0); err != nil {
		t.Fatal(err)
	}
	waitForGrowth(t, counter)
	return folder, counter
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
	for range 400 {
		time.Sleep(5 * time.Millisecond)
		if size(t, file) > before {
			return
		}
	}
	t.Fatal("the process does not run")
}

func TestFreezeStopsEveryProcessAndThawResumesThem(t *testing.T) {
	folder, counter := makeCgroup(t)
	freezer := New(v1alpha1.FreezeCgroupV2, nil)
	container := Container{ID: "c1", Cgroup: folder}

	for range 2 { // the second time it is frozen already
		state, err := freezer.Freeze(t.Context(), container)
		if err != nil || state != Frozen {
			t.Fatalf("Freeze = %q, %v", state, err)
		}
	}
	if state, err := freezer.State(t.Context(), container); err != nil || state != Frozen {
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
	waitForGrowth(t, counter)
}

func TestFreezeOfAKilledContainerIsGone(t *testing.T) {
	folder, _ := makeCgroup(t)
	freezer := New(v1alpha1.FreezeCgroupV2, nil)
	container := Container{ID: "c1", Cgroup: folder}
	if _, err := freezer.Freeze(t.Context(), container); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "cgroup.kill"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	for range 400 {
		events, err := os.ReadFile(filepath.Join(folder, "cgroup.events"))
		if err == nil && has(events, "populated 0") {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for name, act := range map[string]func(context.Context, Container) (State, error){"freeze": freezer.Freeze, "thaw": freezer.Thaw} {
		if state, err := act(t.Context(), container); err != nil || state != Gone {
			t.Errorf("%s with no process left = %q, %v", name, state, err)
		}
	}
	missing := Container{ID: "c2", Cgroup: folder + "-missing"}
	if state, err := freezer.Freeze(t.Context(), missing); err != nil || state != Gone {
		t.Errorf("Freeze without a cgroup = %q, %v", state, err)
	}
}

func TestFreezeOfAnUnknownCgroupIsAnError(t *testing.T) {
	_, err := New(v1alpha1.FreezeCgroupV2, nil).Freeze(t.Context(), Container{ID: "c1"})
	if !errors.Is(err, ErrNoCgroup) {
		t.Errorf("Freeze = %v, want ErrNoCgroup", err)
	}
}

func TestThawOfAnUnknownCgroupHasNothingToThaw(t *testing.T) {
	state, err := New(v1alpha1.FreezeCgroupV2, nil).Thaw(t.Context(), Container{ID: "c1"})
	if err != nil || state != Gone {
		t.Errorf("Thaw = %q, %v, want Gone", state, err)
	}
}

func TestMethodFollowsWhatTheRuntimeLooksAt(t *testing.T) {
	tests := map[string]struct {
		magic int64
		want  v1alpha1.FreezeMethod
	}{
		"pure cgroup v2":       {unix.CGROUP2_SUPER_MAGIC, v1alpha1.FreezeCgroupV2},
		"hybrid or cgroup v1":  {unix.TMPFS_MAGIC, v1alpha1.FreezeRuntimePause},
		"v1 controller itself": {unix.CGROUP_SUPER_MAGIC, v1alpha1.FreezeRuntimePause},
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
	if err := unix.Statfs("/sys/fs/cgroup", &stat); err != nil {
		need(t, false, "no /sys/fs/cgroup")
	}
	got, err := Detect("/sys/fs/cgroup")
	if want := methodFor(stat.Type); err != nil || got != want {
		t.Errorf("Detect = %s, %v, want %s", got, err, want)
	}
	if _, err := Detect(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Detect of a missing folder = %v, want ErrNotExist", err)
	}
}

// tasks records which call the Freezer made.
type tasks struct{ calls []string }

func (r *tasks) Pause(_ context.Context, id string) (State, error) {
	r.calls = append(r.calls, "pause "+id)
	return Frozen, nil
}

func (r *tasks) Resume(_ context.Context, id string) (State, error) {
	r.calls = append(r.calls, "resume "+id)
	return Thawed, nil
}

func (r *tasks) State(_ context.Context, id string) (State, error) {
	r.calls = append(r.calls, "state "+id)
	return Frozen, nil
}

func TestRuntimePauseNeverTouchesTheCgroup(t *testing.T) {
	runtime := &tasks{}
	freezer := New(v1alpha1.FreezeRuntimePause, runtime)
	container := Container{ID: "c1", Cgroup: "/nonexistent"}
	if state, err := freezer.Freeze(t.Context(), container); err != nil || state != Frozen {
		t.Errorf("Freeze = %q, %v", state, err)
	}
	if state, err := freezer.Thaw(t.Context(), container); err != nil || state != Thawed {
		t.Errorf("Thaw = %q, %v", state, err)
	}
	if got := fmt.Sprint(runtime.calls); got != "[pause c1 resume c1]" {
		t.Errorf("calls = %s", got)
	}
}
