package containers

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// ErrSharedNamespace says that a container or sandbox is in the node's own pid namespace.
var ErrSharedNamespace = errors.New("the pod shares the node's pid namespace")

// ErrSandboxJoined says that processes of the pod are in the pid namespace of its sandbox, as with shareProcessNamespace.
// One that may trace the sandbox's own process, which nothing freezes, can have it run code of its own.
var ErrSandboxJoined = errors.New("processes of the pod are in its sandbox's pid namespace")

// Stray is a process of a pod that the freeze of the pod's containers does not reach.
type Stray struct {
	PID int
	// StartTime is field 22 of its stat file, clock ticks since the boot: with the PID it names this process and no later
	// one.
	StartTime uint64
}

// Reach is what stops once every running container of a pod is frozen.
type Reach struct {
	// V1 says that containers are frozen through their folders in the v1 freezer, and not through their cgroup2 folders.
	V1 bool
	// Stopped is a cgroup2 folder whose processes are stopped by themselves; empty for none.
	Stopped string
}

// Strays returns the pod's processes that are outside of the reach of its freeze, as far as they can be told. A process of
// which one thread is outside is outside. One that left only the tree in which nothing is frozen stops with its container,
// and is no stray. Neither is the sandbox's own process, which nothing freezes, nor the runtime's in a container that was
// created and not started. Where others of the pod are in the sandbox's pid namespace, the error is ErrSandboxJoined: the
// sandbox's process may run what they put into it.
//
// The pod's are those in the pid namespace of the first process of a container or sandbox, or in one below it. No process
// leaves its pid namespace, and its children are born there or below: so all are found, whatever other namespaces they
// joined and in whichever pod's cgroup they hide. And no process of another pod is taken for one, whatever the suspect
// joined: the runtime's first processes are where the runtime put them. Net, mount, user and cgroup namespaces would add
// nothing but others: a CNI plugin or this agent at work in the pod's network.
//
// A container in the node's pid namespace has no such mark. Of such a pod those are found that descend from a container,
// and those in the ipc or uts namespace of the sandbox unless it is the node's. Some may be missing, as ErrSharedNamespace
// beside them says: an orphan that went where the pod's shim is, and any orphan once that shim was killed.
//
// Never found: what others started at the suspect's wish, through a core pattern, the init system or the runtime's socket;
// and a container that started after the pod was listed, unless it shares its pid namespace.
//
// A look at a node of 3000 processes takes 20 ms of one core, 150 ms for a pod in the node's pid namespace, and 0.08 ms
// more for each process of the pod. The error also says how many could not be looked at.
func (p Pod) Strays(reach Reach) (found []Stray, err error) {
	if len(p.running()) == 0 {
		return nil, nil
	}
	err = onNode(func(t trees) error {
		m, err := p.membersOf(t)
		if err != nil {
			return err
		}
		defer m.close()
		all, err := everyProcess()
		if err != nil {
			return err
		}
		found, err = p.strays(all, m, p.area(reach, t))
		return errors.Join(err, p.untold(m, found))
	})
	return found, err
}

// untold says what of the pod may run although no stray is found.
func (p Pod) untold(m *members, found []Stray) error {
	suspects := slices.Clone(p.Processes)
	for _, stray := range found {
		suspects = append(suspects, stray.PID)
	}
	joined, err := m.joined(suspects)
	if joined {
		err = ErrSandboxJoined
	}
	if m.shared {
		return errors.Join(err, ErrSharedNamespace)
	}
	return err
}

// strays looks at each process. What it cannot look at does not keep it from the others.
func (p Pod) strays(all []int, m *members, reached area) ([]Stray, error) {
	exempt := map[Stray]bool{}
	for _, sandbox := range p.Sandboxes {
		exempt[Stray{sandbox.Process, sandbox.StartTime}] = true
	}
	for _, container := range p.those(func(c *Container) bool { return c.created.PID != 0 }) {
		exempt[container.created] = true
	}
	var found []Stray
	var failure error
	failures := 0
	for _, process := range all {
		// Process 1 is the node's, and this one must go on.
		if process == 1 || process == os.Getpid() {
			continue
		}
		started, stray, err := examine(process, m, reached)
		switch {
		case proc.Over(err):
		case err != nil:
			failures++
			failure = err
		case stray && !exempt[Stray{process, started}]:
			found = append(found, Stray{process, started})
		}
	}
	if failures > 0 {
		return found, fmt.Errorf("look at %d of %d processes, the last: %w", failures, len(all), failure)
	}
	return found, nil
}

// examine says whether a process is a stray, and which one: its start time is read before and after all else.
func examine(process int, m *members, reached area) (started uint64, stray bool, err error) {
	if held, err := m.hold(process); !held || err != nil {
		return 0, false, err
	}
	if started, err = proc.Started(process); err != nil {
		return 0, false, err
	}
	if held, err := m.hold(process); !held || err != nil {
		return 0, false, err
	}
	if inside, err := reached.holds(process); inside || err != nil {
		return 0, false, err
	}
	now, err := proc.Started(process)
	return started, now == started, err
}

// area is where the freeze reaches.
type area struct {
	trees trees
	v1    bool
	// unified and stopped are cgroup2 folders, freezer are paths in the v1 freezer's tree.
	unified, freezer []string
	stopped          string
	// pod is the pod's cgroup2 folder, in which the drop reaches new sockets; empty when it is not known.
	pod string
}

func (p Pod) area(reach Reach, t trees) area {
	reached := area{trees: t, v1: reach.V1, stopped: reach.Stopped, pod: p.Cgroup}
	for _, container := range p.Containers {
		// The freeze passes over a container without a process.
		if container.Process == 0 {
			continue
		}
		if container.Cgroup != "" {
			reached.unified = append(reached.unified, container.Cgroup)
		}
		if container.freezer != "" {
			reached.freezer = append(reached.freezer, container.freezer)
		}
	}
	return reached
}

// holds says whether every thread of a process is within reach: the v1 freezer's tree takes threads one by one, and so do
// the threaded cgroups of cgroup2. A thread that is ending runs nothing any more; the v1 trees show it at their roots.
func (a area) holds(process int) (bool, error) {
	id := strconv.Itoa(process) + "/task"
	threads, err := os.ReadDir("/proc/" + id)
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		id := id + "/" + thread.Name()
		at, err := a.trees.placeOf(id)
		if err == nil && a.reaches(at) {
			continue
		}
		var now proc.Stat
		if err == nil {
			now, err = proc.Read(id)
		}
		if proc.Over(err) || (err == nil && now.Exiting) {
			continue
		}
		return false, err
	}
	return true, nil
}

func (a area) reaches(at place) bool {
	if a.stopped != "" && within(at.unified, a.stopped) {
		return true
	}
	if a.pod != "" && !within(at.unified, a.pod) {
		return false
	}
	folder, folders := at.unified, a.unified
	if a.v1 && at.freezer != "" {
		folder, folders = at.freezer, a.freezer
	}
	for _, one := range folders {
		if within(folder, one) {
			return true
		}
	}
	return false
}
