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

// deletedFiles are open files in one folder that have no name.
func deletedFiles(t *testing.T, folder string, number int) []*os.File {
	t.Helper()
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

// memory is a folder of mounted memory.
func memory(t *testing.T) string {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "mounting needs root")
	at := t.TempDir()
	must(t, unix.Mount("memory", at, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
	return at
}

// overlay is a folder of an overlay, on memory.
func overlay(t *testing.T) string {
	t.Helper()
	below, at := memory(t), t.TempDir()
	for _, layer := range []string{"/lower", "/upper", "/work"} {
		must(t, os.Mkdir(below+layer, 0o700))
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", below)
	err := unix.Mount("overlay", at, "overlay", 0, options)
	testneeds.That(t, err == nil, "this kernel mounts no overlay")
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
	return at
}

func holding(files ...*os.File) func(*exec.Cmd) {
	return func(command *exec.Cmd) { command.ExtraFiles = files }
}

// contentOf reads all files that are found and returns those of which something could be read, and the reader.
func contentOf(t *testing.T, target Target) (map[string]bool, *fileReader) {
	t.Helper()
	r := newFileReader(Options{Limits: Limits{Patience: 2 * time.Second}.withDefaults(), NodeMounts: "/proc/self/mountinfo"})
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

func TestAFilesystemThatDoesNotAnswerForTwoFilesIsNotAskedForAnother(t *testing.T) {
	silent := deletedFiles(t, overlay(t), maxAbandoned+1)
	held := append(silent, memfd(t, "planted"))
	held = append(held, deletedFiles(t, memory(t), 1)...)
	unanswered(t, silent...)
	read, r := contentOf(t, start(t, "wait", holding(held...)).target())
	if r.guard.abandoned != 2 {
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

func TestAFileThatDoesNotAnswerHidesNoOther(t *testing.T) {
	for name, test := range map[string]struct {
		files  func() []*os.File
		silent int
	}{
		"on an overlay":     {func() []*os.File { return deletedFiles(t, overlay(t), 2) }, 1},
		"in mounted memory": {func() []*os.File { return deletedFiles(t, memory(t), 3) }, 2},
		"memfds": {func() []*os.File {
			return []*os.File{memfd(t, "0"), memfd(t, "1"), memfd(t, "2")}
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			files := test.files()
			unanswered(t, files[:test.silent]...)
			read, r := contentOf(t, start(t, "wait", holding(files...)).target())
			if r.guard.abandoned != test.silent || len(read) != 1 {
				t.Errorf("%d threads wait, read are %v", r.guard.abandoned, read)
			}
			for path, whole := range read {
				if !whole || !strings.HasSuffix(path, fmt.Sprintf("%d (deleted)", test.silent)) {
					t.Errorf("read are %v", read)
				}
			}
		})
	}
}

// onType has a mount of a type in the list of the process.
func onType(t *testing.T, s *servers, file pinned, kind string) {
	t.Helper()
	mount := evidence.VolatileMount{ID: int(file.stat.Mnt_id), Type: evidence.Text(kind)}
	must(t, s.refuse(t.Context(), file, []evidence.VolatileMount{mount}, &handle{}))
}

func TestOnlyAFilesystemThatMayHaveAServerIsTakenForSilent(t *testing.T) {
	for kind, silent := range map[string]bool{"overlay": true, "ecryptfs": true, "ext4": false, "xfs": false, "tmpfs": false} {
		t.Run(kind, func(t *testing.T) {
			s := newServers(newGuard(Limits{}.withDefaults()))
			var files []pinned
			for _, file := range deletedFiles(t, t.TempDir(), 3) {
				files = append(files, pinnedFile(t, file))
			}
			onType(t, s, files[0], kind)
			for i, gone := range []bool{false, false, silent} {
				opened, err := s.open(t.Context(), files[2], time.Minute)
				if errors.Is(err, errBlocked) != gone || (err != nil) != gone {
					t.Errorf("after %d were given up: %v", i, err)
				}
				if err == nil {
					opened.release()
				}
				must(t, s.heed(files[min(i, 1)], nil))
				for range 2 { // the same file twice is one file
					if err := s.heed(files[min(i, 1)], fmt.Errorf("read: %w", errBlocked)); !errors.Is(err, errBlocked) {
						t.Error("heeding changes the error:", err)
					}
				}
			}
		})
	}
}

func TestAFilesystemIsNotTakenForSilentWhenItWasNotAsked(t *testing.T) {
	g := newGuard(Limits{}.withDefaults())
	s := newServers(g)
	var files []pinned
	for _, file := range deletedFiles(t, t.TempDir(), 3) {
		files = append(files, pinnedFile(t, file))
	}
	onType(t, s, files[0], "overlay")
	for _, waiting := range []int{maxAsking, maxAbandoned} {
		g.abandoned = waiting
		for _, file := range files {
			_, err := s.open(t.Context(), file, time.Minute)
			if !errors.Is(err, errNotBegun) || reasonOf(err) != GapBlocked {
				t.Errorf("opened: %v", err)
			}
			_, _, err = watched(t.Context(), g, file.shared, time.Minute, func(*findings) (int, error) { return 0, nil })
			if err = s.heed(file, err); errors.Is(err, errNotBegun) != (waiting == maxAbandoned) {
				t.Errorf("begun: %v", err)
			}
		}
	}
	if message := errNotBegun.Error(); message != "not begun: for too many others the kernel did not answer in time" {
		t.Error(message)
	}
	g.abandoned = 0
	opened, err := s.open(t.Context(), files[2], time.Minute)
	must(t, err)
	opened.release()
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

// TestADiskThatOnceDidNotSayWhatItIsIsRead lists it only for the second file that is met.
func TestADiskThatOnceDidNotSayWhatItIsIsRead(t *testing.T) {
	s := newServers(newGuard(Limits{}.withDefaults()))
	file := pinnedFile(t, deletedFiles(t, t.TempDir(), 1)[0])
	unsaid := fmt.Errorf("ask the filesystem: %w", errBlocked)
	s.answers[file.device()] = unsaid
	for _, listed := range []string{"overlay", "ext4"} {
		onType(t, s, file, listed)
		opened, err := s.open(t.Context(), file, time.Minute)
		if plain := listed == "ext4"; (err == nil) != plain || errors.Is(err, unsaid) == plain {
			t.Errorf("listed as %s: %v", listed, err)
		}
		if err == nil {
			opened.release()
		}
	}
	must(t, s.refuse(t.Context(), file, nil, &handle{}))
}

func TestOnceManyThreadsWaitOnlyFilesInMemoryAndOnDisksAreOpened(t *testing.T) {
	h, err := open(Process{PID: os.Getpid()}, time.Minute)
	must(t, err)
	defer h.release()
	g := newGuard(Limits{}.withDefaults())
	for name, test := range map[string]struct {
		file *os.File
		kind string
		// enough threads that wait for it not to be opened.
		enough int
	}{
		"on an overlay":                 {deletedFiles(t, t.TempDir(), 1)[0], "overlay", maxAsking},
		"on a disk":                     {deletedFiles(t, t.TempDir(), 1)[0], "ext4", maxOnDisk},
		"in mounted memory":             {deletedFiles(t, memory(t), 1)[0], "tmpfs", maxAbandoned},
		"in memory that is not mounted": {memfd(t, "planted"), "", maxAbandoned},
	} {
		t.Run(name, func(t *testing.T) {
			file := pinnedFile(t, test.file)
			g.abandoned = 0
			s := newServers(g)
			onType(t, s, file, test.kind)
			for _, waiting := range []int{test.enough - 1, test.enough} {
				g.abandoned = waiting
				opened, err := s.open(t.Context(), file, time.Minute)
				if errors.Is(err, errNotBegun) != (waiting == test.enough) {
					t.Errorf("opened while %d wait: %v", waiting, err)
				}
				if err == nil {
					opened.release()
				}
			}
		})
	}
	// Where no list names the mount, the filesystem says what it is.
	g.abandoned = 0
	s := newServers(g)
	unlisted := pinnedFile(t, deletedFiles(t, memory(t), 1)[0])
	must(t, s.refuse(t.Context(), unlisted, nil, h))
	g.abandoned = maxAsking
	opened, err := s.open(t.Context(), unlisted, time.Minute)
	must(t, err)
	opened.release()
}
