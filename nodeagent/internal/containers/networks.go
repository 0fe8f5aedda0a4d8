package containers

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// maxDescribed is how many sandboxes of a node, which may have hundreds, the runtime is asked about at once.
const maxDescribed = 16

// othersFilter is containerd's filter for the sandboxes of all pods but one.
func othersFilter(uid string) string {
	return fmt.Sprintf("labels.%q==%q,labels.%q!=%q", labelKind, kindSandbox, labelPodUID, uid)
}

// OthersNetworks returns the inodes of the network namespaces that the sandboxes of other pods than this one run in,
// without the node's own. A sandbox that does not run has none. One whose shim does not answer is found by its cgroup; the
// error names one that cannot be told, or whose namespace cannot be looked at. It asks the runtime about every pod.
func (l *Lister) OthersNetworks(ctx context.Context, uid string) (map[uint64]bool, error) {
	list, err := l.client.Containers(ctx, othersFilter(uid))
	if err != nil {
		return nil, fmt.Errorf("list the sandboxes of other pods than %s: %w", uid, err)
	}
	found := make([]described, len(list))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(maxDescribed)
	for i, container := range list {
		group.Go(func() (err error) {
			found[i], err = describe(groupCtx, container)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := onNode(func(t trees) error { return seekSandboxes(t, found) }); err != nil {
		return nil, err
	}
	return networks(found, networkOf)
}

// seekSandboxes finds the processes of lost sandboxes, each in its own pod. One that has none anywhere does not run.
func seekSandboxes(t trees, list []described) error {
	for i := range list {
		pod := Pod{UID: list[i].podUID, Sandboxes: []Container{list[i].container}}
		if err := pod.seek(t); err != nil && !errors.Is(err, errNoProcess) {
			return err
		}
		list[i].container = pod.Sandboxes[0]
	}
	return nil
}

// networks returns the network namespaces of the sandboxes' first processes but that of process 1.
func networks(list []described, networkOf func(process int) (inode uint64, started uint64, err error)) (map[uint64]bool, error) {
	node, _, err := networkOf(1)
	if err != nil {
		return nil, err
	}
	found := map[uint64]bool{}
	for _, one := range list {
		if one.container.Process == 0 {
			continue
		}
		inode, started, err := networkOf(one.container.Process)
		if proc.Over(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find the network of sandbox %s: %w", one.container.ID, err)
		}
		// A later process with the id may be anybody's.
		if started == one.container.StartTime && inode != node {
			found[inode] = true
		}
	}
	return found, nil
}

// networkOf returns the network namespace of a process, and when the process that has the id after that started.
func networkOf(process int) (inode uint64, started uint64, err error) {
	file := namespaceFile(process, "net")
	var found unix.Stat_t
	if err := unix.Stat(file, &found); err != nil {
		return 0, 0, fmt.Errorf("look at %s: %w", file, err)
	}
	started, err = proc.Started(process)
	return found.Ino, started, err
}
