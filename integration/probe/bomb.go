package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of a bomb: how many processes live at a time, how long each does, and how long it goes on. All of it ends with
// the process that was started, which is the parent of every link: one with another parent ends itself.
const (
	maxChains = 1000
	linkLife  = 20 * time.Millisecond
	bombLife  = time.Minute
)

// bomb keeps a number of chains going. Each link of a chain is a process that sends one UDP message, forks its successor
// and ends: there is never more than the number of them, and none lives for longer than linkLife and what it takes to fork.
func bomb(address, number, tag string) error {
	count, err := strconv.Atoi(number)
	if err != nil || count < 1 || count > maxChains || !isTag(tag) {
		return fmt.Errorf("how many chains, of %d at most, and as whom? %s %s", maxChains, number, tag)
	}
	// Orphans are this process's children and, since it ignores their end, nobody has to wait for them.
	signal.Ignore(syscall.SIGCHLD)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	flow, err := open("udp", target{address: address})
	if err != nil {
		return err
	}
	file, err := fileOf(flow)
	if err != nil {
		return err
	}
	content := message(tag)
	link := chain{
		socket: file.Fd(), content: uintptr(unsafe.Pointer(&content[0])), // #nosec G103 -- kept alive below
		size: uintptr(len(content)), end: time.Now().Add(bombLife).Unix(), root: uintptr(os.Getpid()),
	}
	for range count {
		if err := link.start(); err != nil {
			return fmt.Errorf("fork: %w", err)
		}
	}
	time.Sleep(bombLife)
	runtime.KeepAlive(content)
	return errors.Join(file.Close(), flow.Close())
}

// chain is what a process of it needs, in a form that needs nothing of Go's runtime: after a bare fork only one thread of
// it is left, which must not allocate, wait or let its stack grow.
type chain struct {
	socket, content, size uintptr
	end                   int64
	// root is the process that the bomb began with.
	root uintptr
}

// start forks the first process of a chain.
func (c chain) start() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, _, failed := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if failed != 0 {
		return failed
	}
	if child == 0 {
		c.run()
	}
	return nil
}

// run never returns, and has nobody to tell of an error.
//
//go:nosplit
func (c chain) run() {
	before := c.root
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, c.socket, c.content, c.size)
		pause := unix.Timespec{Nsec: int64(linkLife)}
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0) // #nosec G103 -- on this stack
		var now unix.Timespec
		_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&now)), 0) // #nosec G103 -- on this stack
		parent, _, _ := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		if now.Sec >= c.end || parent != c.root && parent != before {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		self, _, _ := unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		// Without room for a successor, as at a limit of processes, this process goes on.
		child, _, failed := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		switch {
		case failed != 0:
		case child == 0:
			before = self
		default:
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
}
