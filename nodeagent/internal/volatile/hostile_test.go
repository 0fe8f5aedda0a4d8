package volatile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/testneeds"
)

func TestCollectReadsFrozenAndStoppedProcesses(t *testing.T) {
	ways := map[string]func(*testing.T, actor){
		"stopped": pause,
	}
	if os.Geteuid() == 0 {
		for root, how := range freezers(t) {
			ways[root] = func(t *testing.T, a actor) { freeze(t, a, root, how) }
		}
	}
	for name, stop := range ways {
		t.Run(name, func(t *testing.T) {
			a := start(t, "network", namespaces(unix.CLONE_NEWNET))
			stop(t, a)
			s := collect(t, a.target(), Options{})
			p := s.processes[a.Process.Pid]
			if len(p.Argv) == 0 || len(p.Environment) == 0 || len(p.Maps) == 0 || len(p.Descriptors) < 8 || p.Executable.SHA256 == "" {
				t.Errorf("record %+v", p)
			}
			if len(p.Threads) == 0 || p.Threads[0].Syscall == "" || p.Threads[0].Syscall == "running" || len(p.Threads[0].Stack) == 0 {
				t.Errorf("threads %+v", p.Threads)
			}
			for _, missing := range p.Missing {
				if missing.Part != "sockets" {
					t.Errorf("missing %+v", missing)
				}
			}
		})
	}
}

func TestAnEndedProcessIsARecordAndNoError(t *testing.T) {
	a, b := start(t, "wait", nil), start(t, "wait", nil)
	must(t, a.Process.Kill())
	_ = a.Wait()
	reused := b.process()
	reused.StartTicks = 1
	s := collect(t, Target{Processes: []Process{a.process(), reused}}, Options{})
	for _, pid := range []int{a.Process.Pid, b.Process.Pid} {
		if p := s.processes[pid]; !p.Ended || len(p.Argv) != 0 || p.Executable != nil {
			t.Errorf("record %+v", p)
		}
	}
	if s.trailer.Ended != 2 || s.trailer.Processes != 2 || len(s.gaps) != 0 {
		t.Errorf("trailer %+v, gaps %+v", s.trailer, s.gaps)
	}
}

func TestAProcessThatEndsWhileItIsReadHasARecord(t *testing.T) {
	a := start(t, "wait", nil)
	var out bytes.Buffer
	c, err := newCollector(&out, Options{})
	must(t, err)
	h, err := open(a.process(), time.Second)
	must(t, err)
	record := &evidence.VolatileProcess{Kind: evidence.VolatileKindProcess, PID: a.Process.Pid}
	r := &reading{handle: h, collector: c, ctx: t.Context(), record: record}
	r.identity(part(r, "process", func(found *findings) (identity, error) { return readIdentity(h, found) }))
	must(t, a.Process.Kill())
	_ = a.Wait()
	r.threads()
	r.memory()
	r.objects(r.mounts())
	r.descriptors()
	r.settle()
	must(t, r.report())
	if !record.Ended || record.Comm != "exe" || len(record.Descriptors) != 0 || record.Executable != nil {
		t.Errorf("record %+v", record)
	}
	if len(record.Missing) == 0 || len(c.gaps.Gaps()) != 0 {
		t.Errorf("missing %+v, gaps %+v", record.Missing, c.gaps.Gaps())
	}
	h.release()
}

func TestAZombieIsReadAsThat(t *testing.T) {
	a := start(t, "wait", nil)
	must(t, a.Process.Kill())
	waitForState(t, fmt.Sprintf("/proc/%d/stat", a.Process.Pid), "Z")
	s := collect(t, a.target(), Options{})
	if p := s.processes[a.Process.Pid]; p.State != "Z" || p.Ended || p.Comm != "exe" || p.Parent != os.Getpid() {
		t.Errorf("record %+v", p)
	}
	if len(s.gaps) != 0 {
		t.Errorf("gaps %+v", s.gaps)
	}
}

// deadLeader is a program whose main thread ends before another.
func deadLeader(t *testing.T) *exec.Cmd {
	t.Helper()
	python, err := exec.LookPath("python3")
	testneeds.That(t, err == nil, "ending a main thread alone needs python3")
	command := exec.Command(python, "-c", `
import ctypes, os, threading, time
fd = os.memfd_create("of the living")
os.write(fd, b"still here")
threading.Thread(target=lambda: time.sleep(600)).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)`)
	must(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	waitForState(t, fmt.Sprintf("/proc/%d/stat", command.Process.Pid), "Z")
	return command
}

func TestAProcessWithoutItsMainThreadIsReadThroughAnother(t *testing.T) {
	testneeds.That(t, os.Geteuid() == 0, "reading other processes needs root")
	command := deadLeader(t)
	s := collect(t, targetOf(command.Process.Pid), Options{})
	p := s.processes[command.Process.Pid]
	if p.State != "Z" || p.ReadThrough == 0 || p.ReadThrough == p.PID || len(p.Argv) != 3 || p.Executable.SHA256 == "" || len(p.Maps) == 0 {
		t.Errorf("record %+v", p)
	}
	memfd := slices.ContainsFunc(p.Descriptors, func(d evidence.VolatileDescriptor) bool { return d.Kind == evidence.DescriptorMemfd })
	if !memfd || p.Ended || len(p.Missing) != 0 {
		t.Errorf("memfd %v, ended %v, missing %+v", memfd, p.Ended, p.Missing)
	}
}

func TestDescriptorsOfAThreadWithItsOwnTableAreRead(t *testing.T) {
	a := start(t, "thread", nil)
	p := collect(t, a.target(), Options{}).processes[a.Process.Pid]
	own := slices.ContainsFunc(p.Descriptors, func(d evidence.VolatileDescriptor) bool {
		return d.Thread == a.TID && d.Target == "/memfd:of one thread (deleted)"
	})
	if !own {
		t.Errorf("descriptors %+v", p.Descriptors)
	}
}

func TestAnExecutableThatCannotBeOpenedDoesNotHoldUpTheRest(t *testing.T) {
	testneeds.That(t, os.Geteuid() == 0, "listening for opens needs root")
	program := copyOfMe(t)
	a := start(t, "wait", func(command *exec.Cmd) { command.Path = program })
	// We listen for the permission to open and never answer, as a pod could.
	listener, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	testneeds.That(t, err == nil, "this kernel has no fanotify")
	t.Cleanup(func() { _ = unix.Close(listener) })
	err = unix.FanotifyMark(listener, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM, unix.AT_FDCWD, program)
	testneeds.That(t, err == nil, "this kernel does not ask for the permission to open")
	s := collect(t, a.target(), Options{Limits: Limits{Patience: 2 * time.Second}})
	p := s.processes[a.Process.Pid]
	if p.Executable == nil || p.Executable.SHA256 != "" || len(p.Descriptors) == 0 {
		t.Errorf("executable %+v, %d descriptors", p.Executable, len(p.Descriptors))
	}
	if len(s.gaps) != 1 || s.gaps[0].Reason != GapBlocked {
		t.Errorf("gaps %+v", s.gaps)
	}
}

func copyOfMe(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	program := filepath.Join(t.TempDir(), "program")
	must(t, os.WriteFile(program, content, 0o700))
	return program
}

func TestADescriptorOnAFilesystemWithoutAServerIsReadWithoutWaiting(t *testing.T) {
	testneeds.That(t, os.Geteuid() == 0, "mounting needs root")
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	testneeds.That(t, err == nil, "this machine has no /dev/fuse")
	defer func() { _ = device.Close() }()
	folder := t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device.Fd())
	must(t, unix.Mount("nobody", folder, "fuse", 0, options))
	t.Cleanup(func() { _ = unix.Unmount(folder, unix.MNT_DETACH) })
	fd, err := unix.Open(folder, unix.O_PATH, 0)
	must(t, err)
	held := os.NewFile(uintptr(fd), folder)
	a := start(t, "wait", func(command *exec.Cmd) { command.ExtraFiles = []*os.File{held} })
	must(t, held.Close())
	s := collect(t, a.target(), Options{})
	found := slices.ContainsFunc(s.processes[a.Process.Pid].Descriptors, func(d evidence.VolatileDescriptor) bool {
		return string(d.Target) == folder && d.Kind == evidence.DescriptorDirectory
	})
	if !found || len(s.gaps) != 0 {
		t.Errorf("gaps %+v", s.gaps)
	}
}

func TestADescriptorWhosePathIsTooLongIsStillARecord(t *testing.T) {
	testneeds.That(t, os.Geteuid() == 0, "reading other processes needs root")
	name := strings.Repeat("d", 250)
	at, err := unix.Open(t.TempDir(), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range 18 {
		must(t, unix.Mkdirat(at, name, 0o700))
		next, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(at))
		at = next
	}
	deep := os.NewFile(uintptr(at), "deep")
	a := start(t, "wait", func(command *exec.Cmd) { command.ExtraFiles = []*os.File{deep} })
	must(t, deep.Close())
	s := collect(t, a.target(), Options{})
	found := slices.ContainsFunc(s.processes[a.Process.Pid].Descriptors, func(d evidence.VolatileDescriptor) bool {
		return d.Number == 3 && d.Kind == evidence.DescriptorDirectory && d.Target == "" && d.Inode != 0
	})
	if !found || len(s.gaps) != 1 || s.gaps[0].Reason != GapUnreadable {
		t.Errorf("found %v, gaps %+v", found, s.gaps)
	}
}

func TestCollectEndsWithItsContext(t *testing.T) {
	a := start(t, "wait", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Collect(ctx, io.Discard, a.target(), Options{}); !errors.Is(err, context.Canceled) {
		t.Error("a cancelled collection has no error:", err)
	}
}

func TestCollectNamesWhatItHasNoTimeFor(t *testing.T) {
	a := start(t, "wait", nil)
	s := collect(t, a.target(), Options{Limits: Limits{Duration: 1}})
	if len(s.processes) != 1 || !s.trailer.Truncated {
		t.Errorf("trailer %+v", s.trailer)
	}
	if missing := s.processes[a.Process.Pid].Missing; len(missing) != 1 || missing[0].Reason != GapMaxDuration {
		t.Errorf("missing %+v", missing)
	}
}
