package containers

import (
	"context"
	"fmt"
	"sort"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// Labels that containerd's CRI plugin puts on every container of a pod.
const (
	labelPodUID    = "io.kubernetes.pod.uid"
	labelContainer = "io.kubernetes.container.name"
	labelKind      = "io.cri-containerd.kind"
	kindSandbox    = "sandbox"
)

// Container is one container of a pod, running or not.
type Container struct {
	ID string
	// Name in the pod; empty for the sandbox. A restarted container's predecessor has the same name.
	Name      string
	CreatedAt time.Time
	// Process is the container's first process, 0 when it does not run. Of one whose shim does not answer it is the one
	// with the lowest id in its cgroup. A container that was created does not run before it is started: what there is of it
	// waits for the runtime, and frozen it could never start.
	Process int
	// StartTime of Process: field 22 of its stat file, clock ticks since the boot. Another process that gets the same id
	// later has another one.
	StartTime uint64
	// Cgroup is the container's cgroup2 folder, empty when it does not run or its folder is not known to be the pod's.
	Cgroup string
	// Freezer is the container's folder in the v1 freezer's tree: empty when it does not run, the folder is not known, or no
	// such tree is visible here.
	Freezer string
	// Network is where on the node the network namespace is mounted that the runtime made for a sandbox: whatever a process
	// joined since. It is empty for one that uses the node's, and where the runtime's specification does not tell.
	Network string
	// freezer is the same as /proc/PID/cgroup shows it.
	freezer string
	// lost says that it runs and the runtime did not tell its first process.
	lost bool
	// created is the process of the runtime that becomes the first one of a container that was created and not started.
	created Stray
}

// Pod is what of a pod is on this node.
type Pod struct {
	UID string
	// Sandboxes of the pod: one, or more while a dead one waits for its removal.
	Sandboxes []Container
	// Containers of the pod, the newest first.
	Containers []Container
	// Cgroup is the pod's cgroup2 folder, parent of its containers'; empty when it is not known for certain.
	Cgroup string
	// Processes of the pod: every process in its cgroup, or the first of each container when that is not known or cannot
	// be listed.
	Processes []int
}

// engine is what of containerd's client a Lister needs.
type engine interface {
	Containers(ctx context.Context, filters ...string) ([]containerd.Container, error)
	LoadContainer(ctx context.Context, id string) (containerd.Container, error)
	Subscribe(ctx context.Context, filters ...string) (<-chan *events.Envelope, <-chan error)
}

// Lister finds pods through containerd.
type Lister struct{ client engine }

// New returns a Lister on a client whose default namespace is the kubelet's. The caller closes the client.
func New(client *containerd.Client) *Lister { return &Lister{client: client} }

// podFilter is containerd's filter for the containers of a pod. The uid is quoted: it comes from an object of the API.
func podFilter(uid string) string { return fmt.Sprintf("labels.%q==%q", labelPodUID, uid) }

// Pod returns what of the pod is on this node. A pod that is gone has neither sandboxes nor containers; that is no error.
// Where a shim does not answer, the container counts as running and is found by its cgroup; when no process is in there
// either, the error names the container.
func (l *Lister) Pod(ctx context.Context, uid string) (Pod, error) {
	list, err := l.client.Containers(ctx, podFilter(uid))
	if err != nil {
		return Pod{}, fmt.Errorf("list the containers of pod %s: %w", uid, err)
	}
	found := make([]described, len(list))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, container := range list {
		group.Go(func() (err error) {
			found[i], err = describe(groupCtx, container)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Pod{}, err
	}
	pod := Pod{UID: uid}
	for _, d := range found {
		switch {
		case d.sandbox:
			pod.Sandboxes = append(pod.Sandboxes, d.container)
		default:
			pod.Containers = append(pod.Containers, d.container)
		}
	}
	sort.Slice(pod.Containers, func(i, j int) bool {
		return pod.Containers[i].CreatedAt.After(pod.Containers[j].CreatedAt)
	})
	return pod, pod.locate()
}

// Container returns one container of a pod. One that is gone has no process; that is no error. What Pod
// says of a shim that does not answer holds here, too.
func (l *Lister) Container(ctx context.Context, containerID string) (Container, error) {
	loaded, err := l.client.LoadContainer(ctx, containerID)
	if errdefs.IsNotFound(err) {
		return Container{ID: containerID}, nil
	}
	if err != nil {
		return Container{}, fmt.Errorf("load container %s: %w", containerID, err)
	}
	found, err := describe(ctx, loaded)
	if err != nil {
		return Container{}, err
	}
	labels, err := loaded.Labels(ctx)
	if err != nil && !errdefs.IsNotFound(err) {
		return Container{}, fmt.Errorf("read the labels of container %s: %w", containerID, err)
	}
	pod := Pod{UID: labels[labelPodUID], Containers: []Container{found.container}}
	err = pod.locate()
	return pod.Containers[0], err
}

// PodOf returns the uid of the pod that a container belongs to, empty when it belongs to none or is gone.
func (l *Lister) PodOf(ctx context.Context, containerID string) (string, error) {
	container, err := l.client.LoadContainer(ctx, containerID)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("load container %s: %w", containerID, err)
	}
	labels, err := container.Labels(ctx)
	if err != nil && !errdefs.IsNotFound(err) {
		return "", fmt.Errorf("read the labels of container %s: %w", containerID, err)
	}
	return labels[labelPodUID], nil
}

// described is a container, and whether it is a sandbox.
type described struct {
	container Container
	sandbox   bool
}

func describe(ctx context.Context, container containerd.Container) (described, error) {
	info, err := container.Info(ctx, containerd.WithoutRefreshedMetadata)
	if err != nil {
		return described{}, fmt.Errorf("describe container %s: %w", container.ID(), err)
	}
	out := described{
		container: Container{ID: info.ID, Name: info.Labels[labelContainer], CreatedAt: info.CreatedAt},
		sandbox:   info.Labels[labelKind] == kindSandbox,
	}
	if out.sandbox {
		// Without it the pod is found all the same, and cut off by what networks its processes are in.
		out.container.Network, _ = networkOf(info)
	}
	task, err := container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return out, nil
	}
	if err != nil {
		return described{}, fmt.Errorf("load the task of container %s: %w", info.ID, err)
	}
	process := int(task.Pid())
	// Read before the runtime is asked whether the process still runs: what does was no other when this was read.
	started, startErr := proc.Started(process)
	if startErr != nil && !proc.Over(startErr) {
		return described{}, startErr
	}
	status, err := task.Status(ctx)
	if err != nil && !errdefs.IsNotFound(err) {
		return described{}, fmt.Errorf("read the status of container %s: %w", info.ID, err)
	}
	if err == nil {
		out.container.judge(process, started, startErr != nil, status.Status)
	}
	return out, nil
}

// running returns the sandboxes and containers that have a process.
func (p *Pod) running() []*Container {
	return p.those(func(c *Container) bool { return c.Process != 0 })
}

// those returns the sandboxes and containers that are so.
func (p *Pod) those(so func(*Container) bool) []*Container {
	found := make([]*Container, 0, len(p.Sandboxes)+len(p.Containers))
	for _, list := range [][]Container{p.Sandboxes, p.Containers} {
		for i := range list {
			if so(&list[i]) {
				found = append(found, &list[i])
			}
		}
	}
	return found
}

// locate fills in the processes of the lost, the cgroups and the pod's processes.
func (p *Pod) locate() error {
	p.Processes = nil
	if len(p.running()) == 0 && len(p.lost()) == 0 {
		return nil
	}
	err := onNode(func(t trees) error {
		if err := p.seek(t); err != nil {
			return err
		}
		return p.settle(t)
	})
	if err != nil {
		return err
	}
	for _, container := range p.running() {
		p.Processes = append(p.Processes, container.Process)
	}
	if p.Cgroup == "" {
		return nil
	}
	// What the suspect does to its cgroups must not keep the pod from being found, frozen and let go.
	if all, err := processes(p.Cgroup); err == nil {
		p.Processes = all
	}
	return nil
}
