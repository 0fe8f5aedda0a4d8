package containers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// maxPodDepth is how far below a mount of cgroup2 a pod's folder is looked for. Four levels are usual; a node that is
// itself a container and sees its machine's tree has two more, /system.slice/docker-ID.scope/kubelet.slice/
// kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podUID.slice.
const maxPodDepth = 6

var (
	// errNoProcess says that nothing runs in the folder of a lost container, or that there is no such folder.
	errNoProcess = errors.New("the runtime does not tell its first process, and no cgroup with its name in that of the pod has a process")
	// errAmbiguous says that folders of more than one pod have the container's name and processes: one is forged.
	errAmbiguous = errors.New("the runtime does not tell its first process, and more than one cgroup is named like the pod's and has one of its name")
)

// judge takes over what the runtime says of a task: its first process with the start time, and whether that is over.
//
// A shim that does not answer, since a suspect in the node's pid namespace stopped it, has containerd say process 0 and
// status unknown, and no error. Its container is lost, and does not stop for it. Only the word counts that it stopped, or
// that it was created: then nothing of its program runs, and it is never lost.
func (c *Container) judge(process int, started uint64, ended bool, status containerd.ProcessStatus) {
	switch {
	case status == containerd.Stopped:
	case status == containerd.Created:
		if process != 0 && !ended {
			c.created = Stray{process, started}
		}
	case process == 0, ended && status == containerd.Unknown:
		c.lost = true
	default:
		c.Process, c.StartTime = process, started
	}
}

// lost returns the sandboxes and containers that run without their first process being known.
func (p *Pod) lost() []*Container {
	return p.those(func(c *Container) bool { return c.lost && c.Process == 0 })
}

// seek finds a process of each lost sandbox and container by the names of the pod's cgroup and of its own. The error
// names the first one without, which must not look stopped.
func (p *Pod) seek(t trees) error {
	lost := p.lost()
	if len(lost) == 0 {
		return nil
	}
	pods, unseen := t.podFolders(p.UID)
	for _, container := range lost {
		found, err := container.seek(pods, unseen)
		if err != nil {
			return fmt.Errorf("find container %s of pod %s: %w", container.ID, p.UID, err)
		}
		container.Process, container.StartTime = found.PID, found.StartTime
	}
	return nil
}

// seek returns the process with the lowest id in the container's folder of one of the pod's. What could not be looked at
// matters only when none is found.
func (c *Container) seek(pods []string, unseen error) (Stray, error) {
	var found []Stray
	for _, pod := range pods {
		process, err := lowest(pod, c.ID)
		switch {
		case err != nil:
			unseen = errors.Join(unseen, err)
		case process.PID != 0:
			found = append(found, process)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Stray{}, errAmbiguous
	case unseen != nil:
		return Stray{}, fmt.Errorf("the runtime does not tell its first process, nor do the cgroups: %w", unseen)
	default:
		return Stray{}, errNoProcess
	}
}

// lowest returns the process with the lowest id in the folders of a pod's whose name contains the container's id, and
// below them where they have none of their own: an init system in a container moves all down. It is 0 when there is none.
func lowest(pod, containerID string) (Stray, error) {
	if containerID == "" {
		return Stray{}, nil
	}
	children, err := subfolders(pod)
	if err != nil {
		return Stray{}, err
	}
	var own, all []int
	for _, name := range children {
		if !strings.Contains(name, containerID) {
			continue
		}
		folder := filepath.Join(pod, name)
		// Where this cannot be read, as in a threaded cgroup, the next says why or how.
		if here, err := readNumbers(filepath.Join(folder, "cgroup.procs")); err == nil {
			own = append(own, here...)
		}
		here, err := processes(folder)
		if err != nil {
			return Stray{}, err
		}
		all = append(all, here...)
	}
	slices.Sort(own)
	slices.Sort(all)
	for _, process := range append(own, all...) {
		started, err := proc.Started(process)
		if !proc.Over(err) {
			return Stray{process, started}, err
		}
	}
	return Stray{}, nil
}

// Folders returns the cgroup2 folders that are named as the pod's is, also of a pod of which the runtime knows nothing that
// runs. Where there is more than one, somebody made the others. The error says what could not be looked at.
func Folders(uid string) (found []string, err error) {
	err = onNode(func(t trees) (err error) {
		found, err = t.podFolders(uid)
		return err
	})
	return found, err
}

// podFolders returns the cgroup2 folders that are named as the pod's is. More than one means that somebody made the
// others. The error says what could not be looked at.
func (t trees) podFolders(uid string) (found []string, err error) {
	if uid == "" { // every folder of pods would be this one's
		return nil, nil
	}
	for _, m := range t.unified {
		here, walkErr := podFoldersBelow(m.point, uid, maxPodDepth, false)
		err = errors.Join(err, walkErr)
		for _, folder := range here {
			// A part of the tree that is mounted twice is the same part.
			below, _ := filepath.Rel(m.point, folder)
			if first, _ := resolve(t.unified, filepath.Join("/", m.root, below)); !slices.Contains(found, first) {
				found = append(found, first)
			}
		}
	}
	return found, err
}

// podFoldersBelow looks in a folder and as many levels below as depth says. A pod's is not looked into: what is in there
// was named by those in the pod.
func podFoldersBelow(folder, uid string, depth int, kubepods bool) (found []string, err error) {
	if depth == 0 {
		return nil, nil
	}
	names, err := subfolders(folder)
	for _, name := range names {
		here := filepath.Join(folder, name)
		inside := kubepods || strings.Contains(name, kubepodsName)
		switch {
		case inside && isPods(name, uid):
			found = append(found, here)
		case holdsPods(name, kubepods):
			below, belowErr := podFoldersBelow(here, uid, depth-1, inside)
			found, err = append(found, below...), errors.Join(err, belowErr)
		}
	}
	return found, err
}

// holdsPods says whether a folder of this name can have pods in or below it. Within the kubelet's tree only the folders of
// the two lower classes of service do; elsewhere all but those of a service, which is no ancestor of that tree.
func holdsPods(name string, kubepods bool) bool {
	if kubepods || strings.Contains(name, kubepodsName+"-") {
		return strings.Contains(name, "burstable") || strings.Contains(name, "besteffort")
	}
	return !strings.HasSuffix(name, ".service")
}

// subfolders returns the names of the folders in a folder, none when that is gone.
func subfolders(folder string) (found []string, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !gone(err) {
		return nil, fmt.Errorf("list cgroup %s: %w", folder, err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			found = append(found, entry.Name())
		}
	}
	return found, nil
}
