package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/containers"
	"ugallu.io/forensics/nodeagent/internal/proc"
	"ugallu.io/forensics/nodeagent/internal/volatile"
)

// podStrays are the processes of a pod that the freeze of its containers does not reach.
type podStrays struct {
	captureParts
	podUID string
}

// run says whether one of them runs, or may.
func (p podStrays) run() bool {
	ctx, cancel := context.WithTimeout(context.Background(), stateWithin)
	defer cancel()
	running, _, err := lister{p.lister, p.freezer}.Strays(ctx, p.podUID)
	return err != nil || len(running) > 0
}

// volatileTarget says which container each process of the pod is in. One that ended meanwhile is left out.
func volatileTarget(pod containers.Pod) (volatile.Target, error) {
	target := volatile.Target{PodUID: pod.UID}
	owner := map[int]string{}
	for _, container := range pod.Containers {
		target.Containers = append(target.Containers, volatile.Container{ID: container.ID, Name: container.Name})
		if container.Process == 0 {
			continue
		}
		owner[container.Process] = container.ID
		members, err := processesBelow(container.Cgroup)
		if err != nil {
			return volatile.Target{}, err
		}
		for _, pid := range members {
			owner[pid] = container.ID
		}
	}
	for _, pid := range pod.Processes {
		started, err := proc.Started(pid)
		if proc.Over(err) {
			continue
		}
		if err != nil {
			return volatile.Target{}, err
		}
		target.Processes = append(target.Processes, volatile.Process{PID: pid, ContainerID: owner[pid], StartTicks: started})
	}
	return target, nil
}

// stillThere keeps the processes that the pod still has under the same id and start. They were listed before the start was
// read and are again after it, so it is theirs. An id that is another process's by now is a gap; a process that ended is
// left out.
func stillThere(noted []volatile.Process, listed []int) (same []volatile.Process, replaced []evidence.Gap, err error) {
	for _, process := range noted {
		started, err := proc.Started(process.PID)
		if proc.Over(err) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if started == process.StartTicks && slices.Contains(listed, process.PID) {
			same = append(same, process)
			continue
		}
		message := fmt.Sprintf("process %d ended while it was looked for; its id is another process's", process.PID)
		replaced = append(replaced, evidence.Gap{Reason: volatile.GapEnded, Message: message, Count: 1})
	}
	return same, replaced, nil
}

// processesBelow lists the processes in a cgroup2 folder and in those below it. A folder that went away has none.
func processesBelow(folder string) ([]int, error) {
	if folder == "" {
		return nil, nil
	}
	var pids []int
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(path, "cgroup.procs")) // #nosec G304 -- below the container's cgroup
		// A threaded folder does not list processes; its root does.
		if err != nil {
			return nil
		}
		for line := range bytes.Lines(content) {
			pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
			if err != nil {
				return fmt.Errorf("read the processes of %s: %w", path, err)
			}
			pids = append(pids, pid)
		}
		return nil
	})
	return pids, err
}
