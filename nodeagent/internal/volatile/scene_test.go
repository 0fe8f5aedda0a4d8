package volatile

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// actor is a running role.
type actor struct {
	told
	*exec.Cmd
	stop io.Closer
}

func (a actor) process() Process { return Process{PID: a.Process.Pid, ContainerID: "c1"} }

func (a actor) target() Target { return targetOf(a.Process.Pid) }

func targetOf(pids ...int) Target {
	target := Target{PodUID: "pod-1", Containers: []Container{{ID: "c1", Name: "main"}}}
	for _, pid := range pids {
		target.Processes = append(target.Processes, Process{PID: pid, ContainerID: "c1"})
	}
	return target
}

// start runs a role; change may set namespaces, arguments and the program.
func start(t testing.TB, role string, change func(*exec.Cmd)) actor {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "reading other processes needs root")
	command := exec.Command("/proc/self/exe")
	command.Env = []string{roleVariable + "=" + role, "PASSWORD=open sesame", "HOME=/root", "GOMAXPROCS=2"}
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if change != nil {
		change(command)
	}
	stdin, err := command.StdinPipe()
	must(t, err)
	stdout, err := command.StdoutPipe()
	must(t, err)
	// Pdeathsig is that of the thread which starts it.
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	must(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	a := actor{Cmd: command, stop: stdin}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	must(t, err)
	must(t, json.Unmarshal(line, &a.told))
	return a
}

func namespaces(flags uintptr) func(*exec.Cmd) {
	return func(command *exec.Cmd) { command.SysProcAttr.Cloneflags = flags }
}

// pause stops every thread of an actor.
func pause(t *testing.T, a actor) {
	t.Helper()
	must(t, a.Process.Signal(syscall.SIGSTOP))
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", a.Process.Pid))
	must(t, err)
	for _, thread := range threads {
		waitForState(t, thread, "T")
	}
}

func waitForState(t *testing.T, file, state string) {
	t.Helper()
	for range 6000 { // 30 s at least
		content, err := os.ReadFile(file)
		must(t, err)
		if stat, err := parseStat(string(content)); err == nil && stat.state == state {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("%s does not become %s", file, state)
}

// freezers are the folders below which a cgroup can be frozen on this machine, and how.
func freezers(t *testing.T) map[string]func(folder string) error {
	t.Helper()
	found := map[string]func(string) error{}
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var stat unix.Statfs_t
		if unix.Statfs(root, &stat) == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC {
			found[root] = func(folder string) error {
				return os.WriteFile(filepath.Join(folder, "cgroup.freeze"), []byte("1"), 0)
			}
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup/freezer/cgroup.procs"); err == nil {
		found["/sys/fs/cgroup/freezer"] = func(folder string) error {
			return os.WriteFile(filepath.Join(folder, "freezer.state"), []byte("FROZEN"), 0)
		}
	}
	testneeds.That(t, len(found) > 0, "no cgroup freezer is mounted")
	return found
}

// freeze puts an actor into a frozen cgroup of its own and waits until it stands still.
func freeze(t *testing.T, a actor, root string, how func(string) error) {
	t.Helper()
	folder := filepath.Join(root, fmt.Sprintf("volatile-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	must(t, os.Mkdir(folder, 0o700))
	t.Cleanup(func() {
		_ = os.WriteFile(filepath.Join(folder, "cgroup.freeze"), []byte("0"), 0)
		_ = os.WriteFile(filepath.Join(folder, "freezer.state"), []byte("THAWED"), 0)
		_ = a.Process.Kill()
		_ = a.Wait()
		for range 6000 { // 30 s at least
			if os.Remove(folder) == nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Error("the cgroup cannot be removed")
	})
	must(t, os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte(strconv.Itoa(a.Process.Pid)), 0))
	must(t, how(folder))
	for range 6000 { // 30 s at least
		events, _ := os.ReadFile(filepath.Join(folder, "cgroup.events"))
		state, _ := os.ReadFile(filepath.Join(folder, "freezer.state"))
		if strings.Contains(string(events), "frozen 1") || strings.HasPrefix(string(state), "FROZEN") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the process does not freeze")
}

func addressOf(memory []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&memory[0]))) }
