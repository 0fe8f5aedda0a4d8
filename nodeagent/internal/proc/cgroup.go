package proc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OnNode runs do on a thread that has joined the node's cgroup namespace, that of process 1.
//
// Both mountinfo and /proc/PID/cgroup show paths relative to the cgroup namespace of the thread that reads them, and where
// cgroup2 is mounted with nsdelegate, as systemd does, the kernel moves no process into or out of what the writer's
// namespace does not show. On a pure cgroup v2 host the runtime gives this container a namespace of its own, where every
// other pod is `/../..`.
func OnNode(do func() error) error {
	const file = "/proc/1/ns/cgroup"
	node, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open the node's cgroup namespace: %w", err)
	}
	err = Within(int(node.Fd()), unix.CLONE_NEWCGROUP, do)
	return errors.Join(err, node.Close())
}
