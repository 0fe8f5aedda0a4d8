package volatile

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/testneeds"
)

// unanswered listens for the permission to open files and never answers, as a server does that is frozen.
func unanswered(t *testing.T, files ...*os.File) {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "listening for opens needs root")
	listener, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	testneeds.That(t, err == nil, "this kernel has no fanotify")
	t.Cleanup(func() { _ = unix.Close(listener) })
	for _, file := range files {
		path := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
		err = unix.FanotifyMark(listener, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM, unix.AT_FDCWD, path)
		testneeds.That(t, err == nil, "this kernel does not ask for the permission to open")
	}
}

// deletedFiles are open files of one filesystem that have no name.
func deletedFiles(t *testing.T, number int) []*os.File {
	t.Helper()
	folder := t.TempDir()
	var files []*os.File
	for i := range number {
		file, err := os.Create(filepath.Join(folder, fmt.Sprint(i)))
		must(t, err)
		t.Cleanup(func() { _ = file.Close() })
		_, err = file.WriteString("payload")
		must(t, err)
		must(t, os.Remove(file.Name()))
		files = append(files, file)
	}
	return files
}

func memfd(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	must(t, err)
	file := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { _ = file.Close() })
	_, err = file.WriteString("payload")
	must(t, err)
	return file
}

// memoryFile is a file without a name in mounted memory.
func memoryFile(t *testing.T) *os.File {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "mounting needs root")
	at := t.TempDir()
	must(t, unix.Mount("memory", at, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
	file, err := os.Create(at + "/in memory")
	must(t, err)
	t.Cleanup(func() { _ = file.Close() })
	_, err = file.WriteString("payload")
	must(t, err)
	must(t, os.Remove(file.Name()))
	return file
}

func holding(files ...*os.File) func(*exec.Cmd) {
	return func(command *exec.Cmd) { command.ExtraFiles = files }
}

// contentOf reads all files that are found and returns those of which something could be read, and the reader.
func contentOf(t *testing.T, target Target) (map[string]bool, *fileReader) {
	t.Helper()
	r := newFileReader(Options{Limits: Limits{Patience: time.Second}.withDefaults(), NodeMounts: "/proc/self/mountinfo"})
	t.Cleanup(r.close)
	read := map[string]bool{}
	must(t, r.all(t.Context(), target, func(file *File) error {
		for i := range file.Runs {
			var content strings.Builder
			if err := file.CopyRun(&content, i); err != nil {
				return err
			}
			read[string(file.Path)] = content.String() == "payload"
		}
		return nil
	}))
	return read, r
}

func TestAFilesystemThatDoesNotAnswerForAFileCostsOneThread(t *testing.T) {
	silent := deletedFiles(t, maxAbandoned+1)
	held := append(silent, memfd(t, "planted"), memoryFile(t))
	unanswered(t, silent...)
	read, r := contentOf(t, start(t, "wait", holding(held...)).target())
	if r.guard.abandoned != 1 {
		t.Errorf("%d threads wait", r.guard.abandoned)
	}
	if len(read) != 2 || !read["/memfd:planted (deleted)"] {
		t.Errorf("read are %v", read)
	}
	gaps := r.gaps.Gaps()
	if len(gaps) != 1 || gaps[0].Reason != GapBlocked || gaps[0].Count != int64(len(silent)) {
		t.Errorf("gaps %+v", gaps)
	}
}

func TestAMemfdThatDoesNotAnswerHidesNoOther(t *testing.T) {
	silent := memfd(t, "silent")
	unanswered(t, silent)
	read, r := contentOf(t, start(t, "wait", holding(silent, memfd(t, "planted"))).target())
	if r.guard.abandoned != 1 || len(read) != 1 || !read["/memfd:planted (deleted)"] {
		t.Errorf("%d threads wait, read are %v", r.guard.abandoned, read)
	}
}

func TestAFileThatStopsAnsweringIsAskedOnce(t *testing.T) {
	g := newGuard(Limits{}.withDefaults())
	s := newServers(g)
	for name, test := range map[string]struct {
		file  *os.File
		known bool
	}{"on a disk": {deletedFiles(t, 1)[0], true}, "in memory that is not mounted": {memfd(t, "silent"), false}} {
		t.Run(name, func(t *testing.T) {
			file := pinnedFile(t, test.file)
			opened, err := s.open(t.Context(), file, time.Second)
			must(t, err)
			opened.release()
			must(t, s.heed(file, nil))
			if err := s.heed(file, fmt.Errorf("read: %w", errBlocked)); !errors.Is(err, errBlocked) {
				t.Error("heeding changes the error:", err)
			}
			opened, err = s.open(t.Context(), file, time.Second)
			if known := errors.Is(err, errBlocked); known != test.known {
				t.Errorf("opened again: %v", err)
			}
			if err == nil {
				opened.release()
			}
		})
	}
}

func pinnedFile(t *testing.T, file *os.File) pinned {
	t.Helper()
	h, err := open(Process{PID: os.Getpid()}, time.Second)
	must(t, err)
	defer h.release()
	object, err := pin(h, fmt.Sprintf("fd/%d", file.Fd()))
	must(t, err)
	t.Cleanup(object.release)
	return object
}

func TestOnceManyThreadsWaitOnlyFilesInMemoryAreOpened(t *testing.T) {
	g := newGuard(Limits{}.withDefaults())
	s := newServers(g)
	h, err := open(Process{PID: os.Getpid()}, time.Second)
	must(t, err)
	defer h.release()
	for name, test := range map[string]struct {
		file *os.File
		kind string
		want error
	}{
		"on an overlay":                 {deletedFiles(t, 1)[0], "overlay", errBlocked},
		"in mounted memory":             {memoryFile(t), "tmpfs", nil},
		"in memory that is not mounted": {memfd(t, "planted"), "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			file := pinnedFile(t, test.file)
			mount := evidence.VolatileMount{ID: int(file.stat.Mnt_id), Type: evidence.Text(test.kind)}
			g.abandoned = 0
			must(t, s.refuse(t.Context(), file, []evidence.VolatileMount{mount}, h))
			g.abandoned = maxAsking
			opened, err := s.open(t.Context(), file, time.Second)
			if !errors.Is(err, test.want) {
				t.Errorf("opened: %v", err)
			}
			if err == nil {
				opened.release()
			}
		})
	}
	// Where no list names the mount, the filesystem says what it is.
	g.abandoned = 0
	unlisted := pinnedFile(t, memoryFile(t))
	must(t, s.refuse(t.Context(), unlisted, nil, h))
	g.abandoned = maxAsking
	opened, err := s.open(t.Context(), unlisted, time.Second)
	must(t, err)
	opened.release()
}
