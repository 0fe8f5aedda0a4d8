package containers

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

const freezerTree = "/sys/fs/cgroup/freezer"

// act is what this program does in place of its tests.
const act = "CONTAINERS_TEST_ACT"

// TestMain lets this program be a process with several threads, with or without its first one.
func TestMain(m *testing.M) {
	switch os.Getenv(act) {
	case "idle", "end the first thread":
		runtime.LockOSThread()
		if os.Getenv(act) != "idle" && unix.Gettid() == os.Getpid() {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
		time.Sleep(time.Minute)
	default:
		os.Exit(m.Run())
	}
}

// scene is a node with a pod of a sandbox s1 and a container c1, and an innocent process of another pod.
type scene struct {
	t *testing.T
	// unified and freezer are folders of this test's own in the two trees, the second empty on a node without that tree.
	unified, freezer string
	pod              Pod
	innocent         int
}

// Folders of a scene.
const (
	thePod, theContainer, theSandbox = "pod" + uid, "pod" + uid + "/c1", "pod" + uid + "/s1"
	theOther, outside                = "pod99999999-2222-3333-4444-555555555555/c9", "outside"
)

// newScene has each of the pod's first processes, and the innocent, in a pid namespace of its own.
func newScene(t *testing.T) *scene {
	t.Helper()
	return newSceneOf(t, unix.CLONE_NEWPID)
}

func newSceneOf(t *testing.T, namespaces uintptr) *scene {
	t.Helper()
	pod, _ := makePod(t)
	s := &scene{t: t, unified: filepath.Dir(pod)}
	for _, name := range []string{theSandbox, filepath.Dir(theOther), theOther, outside} {
		makeFolder(t, filepath.Join(s.unified, name))
	}
	if _, err := os.Stat(freezerTree); err == nil {
		s.freezer = filepath.Join(freezerTree, filepath.Base(s.unified))
		for _, name := range []string{"", thePod, theSandbox, theContainer, filepath.Dir(theOther), theOther, outside} {
			makeFolder(t, filepath.Join(s.freezer, name))
		}
	}
	s.pod = Pod{
		UID:        uid,
		Sandboxes:  []Container{{ID: "s1"}},
		Containers: []Container{{ID: "c1"}},
	}
	s.first(&s.pod.Sandboxes[0], run(t, namespaces|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS, "sleep", "60"), theSandbox)
	s.innocent = run(t, namespaces|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWNS, "sleep", "60")
	s.put(s.innocent, theOther)
	return s
}

// put moves a process into the same folder of both trees.
func (s *scene) put(process int, folder string) {
	s.t.Helper()
	move(s.t, process, filepath.Join(s.unified, folder))
	if s.freezer != "" {
		move(s.t, process, filepath.Join(s.freezer, folder))
	}
}

// first has a process be the first of a container, put into a folder.
func (s *scene) first(container *Container, process int, folder string) {
	s.t.Helper()
	s.put(process, folder)
	container.Process, container.StartTime = process, started(s.t, process)
}

// container has a process with one child be the first of the container, and returns both.
func (s *scene) container(namespaces uintptr) (first, second int) {
	s.t.Helper()
	first = run(s.t, namespaces, "sh", "-c", "sleep 60 & wait")
	second = child(s.t, first)
	s.first(&s.pod.Containers[0], first, theContainer)
	s.put(second, theContainer)
	must(s.t, s.pod.locate())
	return first, second
}

// want compares the pod's strays with processes.
func (s *scene) want(what string, reach Reach, processes ...int) {
	s.t.Helper()
	s.wantWith(what, nil, reach, processes...)
}

func (s *scene) wantWith(what string, wanted error, reach Reach, processes ...int) {
	s.t.Helper()
	slices.Sort(processes)
	var want []Stray
	for _, process := range processes {
		want = append(want, Stray{process, started(s.t, process)})
	}
	got, err := s.pod.Strays(reach)
	if !errors.Is(err, wanted) {
		s.t.Errorf("%s: Strays: %v, want %v", what, err, wanted)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("%s: strays (-want +got):\n%s", what, diff)
	}
}

func started(t *testing.T, process int) uint64 {
	t.Helper()
	found, err := proc.Started(process)
	must(t, err)
	return found
}

// child waits for a process to have a child, and returns the one.
func child(t *testing.T, process int) int {
	t.Helper()
	for range 6000 { // 30 s at least
		all, err := readAll()
		must(t, err)
		for one, at := range all {
			if at.Parent == process {
				return one
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("process %d has no child", process)
	return 0
}

// eventually waits for a state of a process that the kernel reaches by itself.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for range 6000 { // 30 s at least
		if reached() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal(what)
}

// program runs this program as act says.
func program(t *testing.T, doing string, namespaces uintptr) int {
	t.Helper()
	t.Setenv(act, doing)
	process := run(t, namespaces, os.Args[0])
	must(t, os.Unsetenv(act))
	return process
}

// threads returns the threads of a process but the first, once it has some.
func threads(t *testing.T, process int) (found []int) {
	t.Helper()
	eventually(t, "the process has one thread", func() bool {
		entries, err := os.ReadDir("/proc/" + strconv.Itoa(process) + "/task")
		must(t, err)
		found = nil
		for _, entry := range entries {
			if thread, _ := strconv.Atoi(entry.Name()); thread != process {
				found = append(found, thread)
			}
		}
		return len(found) > 1
	})
	return found
}

func needCommand(t *testing.T, name string) {
	t.Helper()
	_, err := exec.LookPath(name)
	testneeds.That(t, err == nil, "no "+name)
}
