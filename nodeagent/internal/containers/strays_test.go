package containers

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

func TestStraysAreFoundWhereverTheyWentAndNoOthers(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	s := newScene(t)
	own, below, stopped := thePod+"/evil", theContainer+"/own", thePod+"/stopped"
	for _, folder := range []string{own, below, stopped} {
		makeFolder(t, filepath.Join(s.unified, folder))
		if s.freezer != "" {
			makeFolder(t, filepath.Join(s.freezer, folder))
		}
	}
	first, second := s.container(unix.CLONE_NEWPID)
	reach := Reach{Stopped: filepath.Join(s.unified, stopped)}
	reaches := []Reach{reach}
	if s.freezer != "" {
		reaches = append(reaches, Reach{V1: true, Stopped: reach.Stopped})
	}
	for _, reach := range reaches {
		for folder, stray := range map[string]bool{
			theContainer: false, below: false, stopped: false,
			outside: true, theOther: true, theSandbox: true, thePod: true, own: true,
		} {
			s.put(second, folder)
			if stray {
				s.want(folder, reach, second)
			} else {
				s.want(folder, reach)
			}
		}
		s.put(second, outside)
		s.put(first, theOther)
		must(t, s.pod.locate())
		s.want("the first process", reach, first, second)
		s.put(first, theContainer)
	}
}

func TestProcessOfANestedNamespaceIsAStrayAndThatOfAnothersIsNot(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	needCommand(t, "unshare")
	s := newScene(t)
	nest := func(string) (first, nested int) {
		first = run(t, unix.CLONE_NEWPID, "sh", "-c", "unshare -p -f unshare -p -f sleep 60 & wait")
		nested = child(t, child(t, child(t, first)))
		s.put(nested, outside)
		return first, nested
	}
	first, nested := nest(theContainer)
	s.first(&s.pod.Containers[0], first, theContainer)
	other, _ := nest(theOther)
	s.put(other, theOther)
	must(t, s.pod.locate())
	for process := nested; process != first; process = parent(t, process) {
		if process != nested {
			s.put(process, theContainer)
		}
	}
	s.want("two levels below", Reach{}, nested)
}

// TestWhatTheRuntimeHasNotStartedYetIsNoStray has the process of a container that was created in the namespace of another,
// as in a pod that shares one.
func TestWhatTheRuntimeHasNotStartedYetIsNoStray(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	s, next := newScene(t), thePod+"/c2"
	makeFolder(t, filepath.Join(s.unified, next))
	if s.freezer != "" {
		makeFolder(t, filepath.Join(s.freezer, next))
	}
	_, second := s.container(unix.CLONE_NEWPID)
	s.put(second, next)
	s.want("of no container", Reach{}, second)
	s.pod.Containers = append(s.pod.Containers, Container{ID: "c2", created: Stray{second, started(t, second)}})
	must(t, s.pod.locate())
	s.want("of a container that was created", Reach{})
	s.pod.Containers[1].created.StartTime++
	s.want("a later process with the same id", Reach{}, second)
}

func parent(t *testing.T, process int) int {
	t.Helper()
	found, err := proc.Read(strconv.Itoa(process))
	must(t, err)
	return found.Parent
}

func TestNamespacesThatTheSuspectJoinedMakeNobodyItsOwn(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	needCommand(t, "nsenter")
	for name, tt := range map[string]struct {
		namespaces uintptr
		want       error
	}{"in a pid namespace": {unix.CLONE_NEWPID, nil}, "in the node's": {0, ErrSharedNamespace}} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			joined := run(t, tt.namespaces, "nsenter", "-m", "-i", "-u", "-t", strconv.Itoa(s.innocent), "sleep", "60")
			eventually(t, "the namespaces were not joined", func() bool {
				one, err := readNamespace(joined, "mnt")
				must(t, err)
				other, err := readNamespace(s.innocent, "mnt")
				must(t, err)
				return one == other
			})
			s.first(&s.pod.Containers[0], joined, theContainer)
			must(t, s.pod.locate())
			s.wantWith("before it leaves", tt.want, Reach{})
			s.put(joined, theOther)
			must(t, s.pod.locate())
			s.wantWith("after", tt.want, Reach{}, joined)
		})
	}
}

func TestTheTreeInWhichThePodIsFrozenCountsAndTheOneInWhichItIsCutOff(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	s := newScene(t)
	testneeds.That(t, s.freezer != "", "no v1 freezer")
	_, second := s.container(unix.CLONE_NEWPID)
	move(t, second, filepath.Join(s.freezer, outside))
	s.want("left the v1 freezer's", Reach{})
	s.want("left the v1 freezer's", Reach{V1: true}, second)
	move(t, second, filepath.Join(s.freezer, theContainer))
	move(t, second, filepath.Join(s.unified, outside))
	s.want("left the cgroup2 folder", Reach{}, second)
	s.want("left the cgroup2 folder", Reach{V1: true}, second)
	move(t, second, filepath.Join(s.unified, thePod))
	s.want("left its container's cgroup2 folder for the pod's", Reach{V1: true})
	if got, want := s.pod.Containers[0].Freezer, filepath.Join(s.freezer, theContainer); got != want {
		t.Errorf("Freezer = %s, want %s", got, want)
	}
}

func TestProcessIsAStrayWithOneThreadOutside(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	s := newScene(t)
	testneeds.That(t, s.freezer != "", "no v1 freezer")
	first := program(t, "idle", unix.CLONE_NEWPID)
	others := threads(t, first)
	s.first(&s.pod.Containers[0], first, theContainer)
	must(t, s.pod.locate())
	s.want("no thread outside", Reach{V1: true})
	must(t, os.WriteFile(filepath.Join(s.freezer, outside, "tasks"), strconv.AppendInt(nil, int64(others[0]), 10), 0))
	s.want("one thread outside", Reach{V1: true}, first)
}

func TestEndedProcessIsNoStrayUnlessAThreadLives(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	s := newScene(t)
	// The child ends and is not waited for.
	first := run(t, unix.CLONE_NEWPID, "sh", "-c", "sleep 0 & exec sleep 60")
	zombie := child(t, first)
	s.first(&s.pod.Containers[0], first, theContainer)
	must(t, s.pod.locate())
	eventually(t, "the child does not end", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", zombie))
		must(t, err)
		return strings.Contains(string(status), "State:\tZ")
	})
	for _, reach := range []Reach{{}, {V1: true}} {
		s.want("an ended child", reach)
	}

	headless := program(t, "end the first thread", unix.CLONE_NEWPID)
	threads(t, headless)
	eventually(t, "the first thread does not end", func() bool {
		found, err := proc.Read(strconv.Itoa(headless))
		must(t, err)
		return found.Exiting
	})
	s.first(&s.pod.Containers[0], headless, theContainer)
	must(t, s.pod.locate())
	for _, reach := range []Reach{{}, {V1: true}} {
		s.want("without its first thread", reach)
	}
	s.put(headless, outside)
	for _, reach := range []Reach{{}, {V1: true}} {
		s.want("without its first thread, outside", reach, headless)
	}
}

func TestLaterProcessWithTheIDOfAFirstOneMakesNobodyThePods(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	s := newScene(t)
	_, second := s.container(unix.CLONE_NEWPID)
	s.put(second, outside)
	s.want("the same", Reach{}, second)
	s.pod.Containers[0].StartTime++
	s.want("a later one", Reach{})
}

func TestDescendantsOfAPodInTheNodesPidNamespaceAreStrays(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	s := newSceneOf(t, 0)
	_, second := s.container(0)
	s.wantWith("inside", ErrSharedNamespace, Reach{})
	s.put(second, outside)
	s.wantWith("outside", ErrSharedNamespace, Reach{}, second)
	later := run(t, 0, "sh", "-c", "sleep 60 & wait")
	child(t, later)
	s.pod.Containers = append(s.pod.Containers, Container{ID: "c2", Process: later, StartTime: started(t, later) - 1})
	s.wantWith("beside a later process", ErrSharedNamespace, Reach{}, second)
}

func TestOrphansOfAShimAreStraysAndItsHelpersAreNot(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	s := newSceneOf(t, 0)
	// The pause, an orphan that was taken in, and a helper: they differ in where they are.
	shim := run(t, 0, "sh", "-c", "sleep 61 & sleep 62 & sleep 63 & wait", "shim", "-id", "s1")
	pause, orphan, helper := named(t, shim, "61"), named(t, shim, "62"), named(t, shim, "63")
	s.put(shim, "..")
	s.put(helper, "..")
	s.first(&s.pod.Sandboxes[0], pause, theSandbox)
	s.container(0)
	s.put(orphan, outside)
	s.wantWith("orphan", ErrSharedNamespace, Reach{}, orphan)
	s.put(orphan, "..")
	s.wantWith("where the shim is", ErrSharedNamespace, Reach{})
	s.put(orphan, outside)
	s.pod.Containers[0] = Container{ID: "c1"}
	s.wantWith("its container is over", ErrSharedNamespace, Reach{}, orphan)
	s.pod.Sandboxes[0].ID = "s2"
	s.wantWith("not its shim", ErrSharedNamespace, Reach{})
}

// named waits for a child of a process with an argument.
func named(t *testing.T, process int, argument string) (found int) {
	t.Helper()
	eventually(t, "no child with the argument "+argument, func() bool {
		all, err := readAll()
		must(t, err)
		for one, at := range all {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", one))
			if at.Parent == process && strings.HasSuffix(string(line), "\x00"+argument+"\x00") {
				found = one
			}
		}
		return found != 0
	})
	return found
}

func TestProcessInTheSandboxsNamespacesIsAStray(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	needCommand(t, "nsenter")
	for _, flag := range []string{"-i", "-u"} {
		s := newSceneOf(t, 0)
		s.container(0)
		kind := map[string]string{"-i": "ipc", "-u": "uts"}[flag]
		joined := run(t, 0, "nsenter", flag, "-t", strconv.Itoa(s.pod.Sandboxes[0].Process), "sleep", "60")
		eventually(t, "the namespace was not joined", func() bool {
			one, err := readNamespace(joined, kind)
			must(t, err)
			other, err := readNamespace(s.pod.Sandboxes[0].Process, kind)
			must(t, err)
			return one == other
		})
		s.put(joined, theOther)
		s.wantWith(kind, ErrSharedNamespace, Reach{}, joined)
	}
}

// TestProcessThatMayReachTheSandboxsOwnIsToldOf has a process in the sandbox's pid namespace, as in a pod that shares it: first
// in the container's cgroup, then outside of it.
func TestProcessThatMayReachTheSandboxsOwnIsToldOf(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	needCommand(t, "nsenter")
	s := newScene(t)
	first, _ := s.container(unix.CLONE_NEWPID)
	s.want("each in its own", Reach{})
	entering := run(t, 0, "nsenter", "-p", "-t", strconv.Itoa(s.pod.Sandboxes[0].Process), "sleep", "60")
	joined := child(t, entering)
	s.put(joined, theContainer)
	must(t, s.pod.locate())
	s.wantWith("of the container's first in another", ErrSandboxJoined, Reach{})
	s.put(joined, outside)
	must(t, s.pod.locate())
	s.wantWith("outside", ErrSandboxJoined, Reach{}, joined)
	s.put(joined, theContainer)
	s.first(&s.pod.Containers[0], joined, theContainer)
	s.put(first, "..")
	must(t, s.pod.locate())
	s.wantWith("the container's first", ErrSandboxJoined, Reach{})
	must(t, unix.Kill(joined, unix.SIGKILL))
	eventually(t, "the process does not end", func() bool { return unix.Kill(joined, 0) != nil })
	s.pod.Containers = nil
	must(t, s.pod.locate())
	s.want("the sandbox's own alone", Reach{})
}

func TestFirstProcessThatLeftLeavesItsContainerKnown(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	s := newScene(t)
	const evil = "evil"
	for _, folder := range []string{evil, evil + "/" + thePod, evil + "/" + theContainer} {
		makeFolder(t, filepath.Join(s.unified, folder))
	}
	first, _ := s.container(unix.CLONE_NEWPID)
	for _, folder := range []string{outside, theOther, theSandbox, evil + "/" + theContainer} {
		move(t, first, filepath.Join(s.unified, folder))
		must(t, s.pod.locate())
		if got := s.pod.Containers[0].Cgroup; got != filepath.Join(s.unified, theContainer) || s.pod.Cgroup != filepath.Join(s.unified, thePod) {
			t.Errorf("in %s: cgroup %s of pod %s", folder, got, s.pod.Cgroup)
		}
		s.want(folder, Reach{}, first)
	}
}
