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

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/containers"
	"ugallu.io/forensics/nodeagent/internal/proc"
	"ugallu.io/forensics/nodeagent/internal/volatile"
)

// standstill tells of a whole pod whether it stands still: whatever of it runs may reach the files of all.
type standstill struct {
	// pod lists it.
	pod func(context.Context) (containers.Pod, error)
	// frozen says whether nothing of a container with a process runs.
	frozen func(containers.Container) bool
	// strays are the processes that the freeze of the containers does not reach.
	strays func(containers.Pod) ([]containers.Stray, error)
	// apart says that its containers are known to be in pid namespaces of their own. In the node's an orphan may run on of which
	// nothing tells once the first processes are gone; in the sandbox's, the sandbox's own process may run what was put into it.
	apart bool
	// ran are the containers that had a process at an earlier look.
	ran map[string]bool
}

// run says whether something of the pod runs, or may, or did since the last look: a container that started meanwhile ran
// until it was frozen.
func (s *standstill) run() bool {
	ctx, cancel := context.WithTimeout(context.Background(), stateWithin)
	defer cancel()
	found, err := s.pod(ctx)
	if err != nil {
		return true
	}
	if came := s.came(found); came || !s.apart {
		return true
	}
	for _, container := range found.Containers {
		if container.Process != 0 && !s.frozen(container) {
			return true
		}
	}
	strays, err := s.strays(found)
	return err != nil || len(strays) > 0
}

// came says whether a container has a process that had none at the looks before. At the first look none has.
func (s *standstill) came(found containers.Pod) bool {
	first, came := s.ran == nil, false
	if first {
		s.ran = map[string]bool{}
	}
	for _, container := range found.Containers {
		if container.Process != 0 {
			came = came || !s.ran[container.ID]
			s.ran[container.ID] = true
		}
	}
	return came && !first
}

// standstill of a pod, as far as it can be told without the runtime.
func (p captureParts) standstill(podUID string, live *corev1.Pod) *standstill {
	return &standstill{
		pod:    func(ctx context.Context) (containers.Pod, error) { return p.lister.Pod(ctx, podUID) },
		frozen: func(container containers.Container) bool { return frozen(p.freezer, container) },
		strays: func(found containers.Pod) ([]containers.Stray, error) {
			running, _, err := strays(p.freezer, found)
			return running, err
		},
		apart: live != nil && !live.Spec.HostPID && !ptr.Deref(live.Spec.ShareProcessNamespace, false),
	}
}

// tell lets the pid namespaces of the containers that run tell where the pod's spec could not be read.
func (s *standstill) tell(found containers.Pod, live *corev1.Pod) {
	if live != nil {
		return
	}
	running := func(container containers.Container) bool { return container.Process != 0 }
	if slices.ContainsFunc(found.Containers, running) {
		_, err := s.strays(found)
		s.apart = err == nil
	}
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
// read and are again after it, so it is theirs; and so is the container, which was looked for in between. An id that is
// another process's by now, or none of the pod's, is a gap; a process that ended is left out.
func stillThere(noted, listed []volatile.Process) (same []volatile.Process, replaced []evidence.Gap, err error) {
	for _, process := range noted {
		at := slices.IndexFunc(listed, func(one volatile.Process) bool { return one.PID == process.PID })
		if at >= 0 && listed[at].StartTicks == process.StartTicks {
			same = append(same, listed[at])
			continue
		}
		started, err := proc.Started(process.PID)
		if proc.Over(err) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		message := fmt.Sprintf("process %d ended while it was looked for; its id is another process's", process.PID)
		if started == process.StartTicks {
			message = fmt.Sprintf("process %d was not among the pod's any more when they were listed again", process.PID)
		}
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
