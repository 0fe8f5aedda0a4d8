package freeze

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/testneeds"
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

// restless starts the program in the container's folder.
func restless(t *testing.T, freezer *Freezer, container Container, folder string) {
	t.Helper()
	process := exec.Command("/proc/self/exe")
	process.Env = append(os.Environ(), restlessVariable+"=1")
	do(t, process.Start())
	t.Cleanup(func() {
		do(t, process.Process.Kill())
		_, err := freezer.Thaw(context.WithoutCancel(t.Context()), container)
		do(t, err)
		_ = process.Wait() // it was killed
	})
	put(t, process.Process.Pid, folder)
}

func never() bool { return false }

// onV1 returns the place of the v1 freezer.
func onV1(t *testing.T) (at place) {
	t.Helper()
	root, err := freezerRoot()
	do(t, err)
	testneeds.That(t, os.Geteuid() == 0 && root != "", "no v1 freezer is mounted")
	return place{v1alpha1.FreezeCgroupV1, root}
}

// TestAnExecIsLetEndOnlyWhereThatIsAllowed has nothing else of the container run meanwhile.
func TestAnExecIsLetEndOnlyWhereThatIsAllowed(t *testing.T) {
	at := onV1(t)
	container, folder, counter := makeContainer(t, at)
	freezer := New(at.method)
	restless(t, freezer, container, folder)
	asked, before := 0, int64(0)
	refuse := func() bool {
		if asked++; asked == 1 {
			before = size(t, counter)
		}
		return false
	}
	var err error
	for range 1000 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = setFreezer(ctx, folder, Frozen, refuse)
		cancel()
		if asked > 0 {
			break
		}
		do(t, err)
		_, err = setFreezer(t.Context(), folder, Thawed, never)
		do(t, err)
		time.Sleep(3 * time.Millisecond)
	}
	if asked < 2 || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("asked %d times to let an exec end, err = %v: no freeze met one, or it ended all the same", asked, err)
	}
	if after := size(t, counter); after != before {
		t.Errorf("another process of the container wrote %d bytes while the exec waited", after-before)
	}
	if state, err := freezer.Freeze(t.Context(), container); err != nil || state != Frozen {
		t.Errorf("Freeze, which lets it end = %q, %v", state, err)
	}
}

// TestAWaitThatIsNoExecLetsNothingRun freezes beside a process that waits for a file system whose server does not answer.
func TestAWaitThatIsNoExecLetsNothingRun(t *testing.T) {
	at := onV1(t)
	container, folder, counter := makeContainer(t, at)
	waiting := exec.Command("ls", silentFileSystem(t))
	do(t, waiting.Start())
	put(t, waiting.Process.Pid, folder)
	freezer := New(at.method)
	t.Cleanup(func() {
		do(t, waiting.Process.Kill())
		_, err := freezer.Thaw(context.WithoutCancel(t.Context()), container)
		do(t, err)
		_ = waiting.Wait() // it was killed
	})
	for { // until it has asked
		where, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", waiting.Process.Pid))
		do(t, err)
		if string(where) == "request_wait_answer" {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}

	do(t, os.WriteFile(filepath.Join(folder, "freezer.state"), []byte("FROZEN"), 0))
	before := size(t, counter)
	for equal := 0; equal < 10; { // all that can be frozen is, and does not just wait for a processor
		time.Sleep(50 * time.Millisecond)
		if now := size(t, counter); now == before {
			equal++
		} else {
			before, equal = now, 0
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if state, err := freezer.Freeze(ctx, container); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Freeze = %q, %v: the process does not wait as it should", state, err)
	}
	if after := size(t, counter); after != before {
		t.Errorf("another process of the container wrote %d bytes while one waited", after-before)
	}
	do(t, waiting.Process.Kill()) // which it takes where it waits
	if state, err := freezer.Freeze(t.Context(), container); err != nil || state != Frozen {
		t.Errorf("Freeze after the wait = %q, %v", state, err)
	}
}

// silentFileSystem mounts one that is set up and answers nothing more.
func silentFileSystem(t *testing.T) string {
	t.Helper()
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	testneeds.That(t, err == nil, "no /dev/fuse")
	folder := t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device)
	do(t, unix.Mount("silent", folder, "fuse", 0, options))
	t.Cleanup(func() { do(t, errors.Join(unix.Close(device), unix.Unmount(folder, unix.MNT_DETACH))) })
	request := make([]byte, 1<<20)
	_, err = unix.Read(device, request)
	do(t, err)
	// fuse_out_header: length, error, unique of the request; fuse_init_out: version 7.31, zeros for the rest.
	answer := make([]byte, 16+64)
	binary.NativeEndian.PutUint32(answer, uint32(len(answer)))
	copy(answer[8:16], request[8:16])
	binary.NativeEndian.PutUint32(answer[16:], 7)
	binary.NativeEndian.PutUint32(answer[20:], 31)
	_, err = unix.Write(device, answer)
	do(t, err)
	return folder
}

func TestAContainerIsLetThroughASmallNumberOfTimesUntilItIsThawed(t *testing.T) {
	freezer := New(v1alpha1.FreezeCgroupV1)
	for range 2 {
		for time := range maxThrough {
			if !freezer.mayThrough("c1") {
				t.Errorf("time %d is refused", time)
			}
		}
		if freezer.mayThrough("c1") {
			t.Error("no time is refused")
		}
		if !freezer.mayThrough("c2") {
			t.Error("another container is refused")
		}
		folder := filepath.Join(t.TempDir(), "gone")
		if state, err := freezer.Thaw(t.Context(), Container{ID: "c1", Freezer: folder}); state != Gone || err != nil {
			t.Fatalf("Thaw = %q, %v", state, err)
		}
		freezer.forget("c2")
	}
}

// TestFreezeStopsAProcessThatReplacesItself meets it in its exec, which waits for a thread that was frozen before.
func TestFreezeStopsAProcessThatReplacesItself(t *testing.T) {
	for _, at := range places(t) {
		t.Run(string(at.method), func(t *testing.T) {
			container, folder, _ := makeContainer(t, at)
			freezer := New(at.method)
			restless(t, freezer, container, folder)
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
