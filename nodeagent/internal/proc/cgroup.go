package proc

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// OnNode runs do on a thread that has joined the node's cgroup namespace, that of process 1.
//
// Both mountinfo and /proc/PID/cgroup show paths relative to the cgroup namespace of the thread that reads them, and where
// cgroup2 is mounted with nsdelegate, as systemd does, the kernel moves no process into or out of what the writer's
// namespace does not show. On a pure cgroup v2 host the runtime gives this container a namespace of its own, where every
// other pod is `/../..`. The thread is not handed back: it ends with its goroutine.
func OnNode(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := join("/proc/1/ns/cgroup")
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

func join(file string) error {
	descriptor, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	err = unix.Setns(descriptor, unix.CLONE_NEWCGROUP)
	if err := errors.Join(err, unix.Close(descriptor)); err != nil {
		return fmt.Errorf("join the cgroup namespace of %s: %w", file, err)
	}
	return nil
}
