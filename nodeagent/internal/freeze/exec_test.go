package freeze

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// restlessVariable makes the test binary a program of several threads that replaces itself without end, as the runtime does
// once at the start of a container.
const restlessVariable = "FREEZE_TEST_RESTLESS"

func TestMain(m *testing.M) {
	if os.Getenv(restlessVariable) != "" {
		for range 3 {
			go func() {
				runtime.LockOSThread()
				for { //nolint:staticcheck // it is to be busy
				}
			}()
		}
		fmt.Fprintln(os.Stderr, unix.Exec("/proc/self/exe", os.Args, os.Environ()))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestFreezeStopsAProcessThatReplacesItself meets it in its exec, which waits for a thread that was frozen before.
func TestFreezeStopsAProcessThatReplacesItself(t *testing.T) {
	for _, at := range places(t) {
		t.Run(string(at.method), func(t *testing.T) {
			folder := filepath.Join(at.root, fmt.Sprintf("freeze-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
			do(t, os.Mkdir(folder, 0o700))
			t.Cleanup(func() { removeFolder(t, folder) })
			restless := exec.Command("/proc/self/exe")
			restless.Env = append(os.Environ(), restlessVariable+"=1")
			do(t, restless.Start())
			freezer, container := New(at.method), at.container(folder)
			defer func() {
				do(t, restless.Process.Kill())
				_, err := freezer.Thaw(t.Context(), container)
				do(t, err)
				_ = restless.Wait() // it was killed
			}()
			do(t, os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte(strconv.Itoa(restless.Process.Pid)), 0))
			began := time.Now()
			for round := range 300 {
				state, err := freezer.Freeze(t.Context(), container)
				if err != nil || state != Frozen {
					t.Fatalf("round %d: Freeze = %q, %v", round, state, err)
				}
				if state, err := freezer.Thaw(t.Context(), container); err != nil || state != Thawed {
					t.Fatalf("round %d: Thaw = %q, %v", round, state, err)
				}
				time.Sleep(time.Duration(round%7) * time.Millisecond)
			}
			t.Logf("300 freezes took %s", time.Since(began).Round(time.Millisecond))
		})
	}
}
