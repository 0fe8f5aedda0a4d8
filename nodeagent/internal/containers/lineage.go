package containers

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// descendants returns the processes that a container of the pod started, with their start times, wherever they are now.
//
// It is how processes of a pod in the node's pid namespace are told from the node's: whatever a container's first process
// or an exec starts descends from the pod's shim, which takes in those whose parent ends. The kernel names the parent; no
// process chooses one, and none of another pod gets the pod's shim above it.
func (p *Pod) descendants(t trees) (map[int]uint64, error) {
	all, err := readFamily()
	if err != nil {
		return nil, err
	}
	verdicts := map[int]bool{}
	for _, sandbox := range p.Sandboxes {
		shim := all[sandbox.Process].Parent
		if !all.has(sandbox) || !isShim(shim, sandbox.ID) {
			continue
		}
		for process, at := range all {
			if at.Parent == shim {
				verdicts[process] = !isHelper(process, shim, t)
			}
		}
	}
	for _, container := range p.Containers {
		if all.has(container) {
			verdicts[container.Process] = true
		}
	}
	found := map[int]uint64{}
	for process := range all {
		if all.descends(process, verdicts) {
			found[process] = all[process].Started
		}
	}
	return found, nil
}

// isShim says whether a process is the shim of a sandbox. A sandbox whose shim was killed is a child of whichever process
// took it in, and so may be those of other pods.
func isShim(process int, sandboxID string) bool {
	if process <= 1 || sandboxID == "" {
		return false
	}
	line, err := os.ReadFile("/proc/" + strconv.Itoa(process) + "/cmdline")
	return err == nil && slices.Contains(strings.Split(string(line), "\x00"), sandboxID)
}

// isHelper says whether a child of a shim may be a runc that the shim started for a moment. It is where the shim is.
func isHelper(process, shim int, t trees) bool {
	here, err := t.placeOf(strconv.Itoa(process))
	if err != nil {
		return true
	}
	mounts, err := readNamespace(process, "mnt")
	if err != nil {
		return !proc.Over(err) // a first thread that ended has none, and no helper ends that one alone
	}
	shimPlace, err := t.placeOf(strconv.Itoa(shim))
	if err != nil {
		return true
	}
	shimMounts, err := readNamespace(shim, "mnt")
	return err != nil || (here == shimPlace && mounts == shimMounts)
}

// family is every process of the node with its parent.
type family map[int]proc.Stat

// has says whether a container's first process is among them, and not a later one with its id.
func (f family) has(container Container) bool {
	at, found := f[container.Process]
	return found && at.Started == container.StartTime
}

// readFamily reads every process twice, and leaves out what is not the same. A parent that was read between two equal
// looks at its child, and is itself the same in both, is the child's parent and no later process with its id.
func readFamily() (family, error) {
	first, err := readAll()
	if err != nil {
		return nil, err
	}
	second, err := readAll()
	if err != nil {
		return nil, err
	}
	for process, at := range first {
		if again, found := second[process]; !found || again.Parent != at.Parent || again.Started != at.Started {
			delete(first, process)
		}
	}
	return first, nil
}

func readAll() (family, error) {
	found := family{}
	all, err := everyProcess()
	if err != nil {
		return nil, err
	}
	for _, process := range all {
		at, err := proc.Read(strconv.Itoa(process))
		if proc.Over(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found[process] = at
	}
	return found, nil
}

// everyProcess returns the ids of all processes, in their order.
func everyProcess() ([]int, error) {
	folder, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer func() { _ = folder.Close() }()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	found := make([]int, 0, len(names))
	for _, name := range names {
		if process, err := strconv.Atoi(name); err == nil {
			found = append(found, process)
		}
	}
	slices.Sort(found)
	return found, nil
}

// descends follows a process's parents up to one with a verdict, and gives that verdict to all on the way.
func (f family) descends(process int, verdicts map[int]bool) bool {
	var way []int
	verdict := false
	for len(way) <= len(f) {
		known, decided := verdicts[process]
		if decided {
			verdict = known
			break
		}
		at, found := f[process]
		if !found {
			break
		}
		way = append(way, process)
		process = at.Parent
	}
	for _, one := range way {
		verdicts[one] = verdict
	}
	return verdict
}
