package proc

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Within runs work on a thread of its own that has joined a namespace, given by a descriptor and its CLONE_NEW flag. The
// thread ends with the work: it is never used by other goroutines.
func Within(namespace, kind int, work func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- join(namespace, kind, work)
			return
		}
		// The first thread never ends: it would stay in the namespace and keep it, and /proc/self would show that one. While
		// this goroutine holds it, the next gets another.
		defer runtime.UnlockOSThread()
		done <- Within(namespace, kind, work)
	}()
	return <-done
}

func join(namespace, kind int, work func() error) error {
	if kind == unix.CLONE_NEWNS {
		// A thread that shares its working folder with others cannot change its mount namespace.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare the thread's folders: %w", err)
		}
	}
	if err := unix.Setns(namespace, kind); err != nil {
		return fmt.Errorf("join the namespace: %w", err)
	}
	return work()
}
