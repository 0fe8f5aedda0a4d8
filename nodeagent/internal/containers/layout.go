package containers

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// split cuts a container's folder into the pod's cgroup and the container's own, which is the pod's direct child. The
// folders are the ones that the process is in; the uid only tells where the pod's begins, since a process may have made
// cgroups of its own below its container's. Without the uid in it the folder is not known to be the pod's, and nothing
// is returned: the folder above an unknown one may be the whole node's.
func split(folder, podUID string) (pod, container string) {
	above := "/"
	for part := range strings.SplitSeq(strings.Trim(folder, "/"), "/") {
		here := path.Join(above, part)
		if pod != "" {
			return pod, here
		}
		if isPods(part, podUID) {
			pod = here
		}
		above = here
	}
	return pod, ""
}

// isPods says whether a folder of this name is the pod's. The systemd driver writes dashes as underscores: a dash there
// stands for a slash.
func isPods(name, podUID string) bool {
	return strings.Contains(strings.ReplaceAll(name, "_", "-"), "pod"+podUID)
}

// layout is where the runtime put a pod in one of the cgroup trees, as the pod's sandbox shows it: its one process is the
// node's own and stays where it was put. Where a container's process is says less, since a privileged one moves itself.
type layout struct {
	// pod is the pod's cgroup, empty when the sandbox does not tell.
	pod string
	// sandbox is the sandbox's own folder in it, and id the sandbox's: `ID`, or `cri-containerd-ID.scope`. A container's
	// folder has the name that its own id gives. Both are empty when the sandbox's has not its id in it.
	sandbox, id string
}

func layoutOf(folder, podUID, sandboxID string) layout {
	pod, own := split(folder, podUID)
	if own == "" || sandboxID == "" || !strings.Contains(path.Base(own), sandboxID) {
		return layout{pod: pod}
	}
	return layout{pod: pod, sandbox: path.Base(own), id: sandboxID}
}

// container returns the folder that the runtime made for a container: the one of its name, or where that does not exist
// the one that its first process is in, if it is the pod's. It is empty when it is not known.
func (l layout) container(containerID, current, podUID string, exists func(string) bool) string {
	if l.id != "" {
		if named := path.Join(l.pod, strings.Replace(l.sandbox, l.id, containerID, 1)); exists(named) {
			return named
		}
	}
	pod, own := split(current, podUID)
	if l.pod != "" && pod != l.pod {
		return ""
	}
	return own
}

// settle finds the cgroups of the pod and of its running containers.
func (p *Pod) settle(t trees) error {
	places := map[int]place{}
	for _, container := range p.running() {
		at, err := t.placeOf(strconv.Itoa(container.Process))
		if err != nil && !proc.Over(err) {
			return fmt.Errorf("find the cgroups of pod %s: %w", p.UID, err)
		}
		places[container.Process] = at
	}
	var unified, freezer layout
	for i := range p.Sandboxes {
		at := places[p.Sandboxes[i].Process]
		_, p.Sandboxes[i].Cgroup = split(at.unified, p.UID)
		if here := layoutOf(at.unified, p.UID, p.Sandboxes[i].ID); here.pod != "" {
			unified = here
		}
		if here := layoutOf(at.freezer, p.UID, p.Sandboxes[i].ID); here.pod != "" {
			freezer = here
		}
	}
	p.Cgroup = unified.pod
	for i := range p.Containers {
		container := &p.Containers[i]
		if container.Process == 0 {
			continue
		}
		at := places[container.Process]
		container.Cgroup = unified.container(container.ID, at.unified, p.UID, isFolder)
		if p.Cgroup == "" {
			p.Cgroup, _ = split(at.unified, p.UID)
		}
		container.freezer = freezer.container(container.ID, at.freezer, p.UID, func(name string) bool {
			folder, shown := resolve(t.freezer, name)
			return shown && isFolder(folder)
		})
		if container.freezer != "" {
			container.Freezer, _ = resolve(t.freezer, container.freezer)
		}
	}
	return nil
}

func isFolder(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}
