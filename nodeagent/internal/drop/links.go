package drop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// settle is the least time between two rounds of changes: a pod that makes devices without end costs no more than its share,
// and one new device is still covered within 100 ms.
const settle = 40 * time.Millisecond

// links listens in the network namespaces of pods for devices that come, go or change.
type links struct {
	mutex sync.Mutex
	// sockets by pod and inode of the namespace. One keeps its namespace in being until the pod is let go.
	sockets map[string]map[uint64]*os.File
	dirty   map[string]bool
	wake    chan struct{}
	readers sync.WaitGroup
}

func newLinks() *links {
	return &links{sockets: map[string]map[uint64]*os.File{}, dirty: map[string]bool{}, wake: make(chan struct{}, 1)}
}

// follow listens in every network namespace of the pod but the node's. It lets go of those that are not among them any more.
func (l *links) follow(podUID string, pod namespaces, node uint64) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	known := l.sockets[podUID]
	if known == nil {
		known = map[uint64]*os.File{}
		l.sockets[podUID] = known
	}
	var errs []error
	for inode, socket := range known {
		if pod[inode] == nil && len(pod) > 0 {
			errs = append(errs, socket.Close())
			delete(known, inode)
		}
	}
	for inode, namespace := range pod {
		if inode == node || known[inode] != nil {
			continue
		}
		socket, err := listen(namespace)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		known[inode] = socket
		l.readers.Go(func() { l.read(podUID, socket) })
	}
	return errors.Join(errs...)
}

// listen returns a netlink socket that gets a message for each change of a device in the namespace.
func listen(namespace *os.File) (*os.File, error) {
	var socket int
	err := proc.Within(int(namespace.Fd()), unix.CLONE_NEWNET, func() (err error) {
		socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		if err := unix.Bind(socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
			return errors.Join(err, unix.Close(socket))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listen for devices: %w", err)
	}
	return os.NewFile(uintptr(socket), "netlink"), nil // #nosec G115 -- a descriptor is not negative
}

// read marks the pod at every message, whatever it says, until the socket is closed. Messages that were lost because too
// many came are a change as well.
func (l *links) read(podUID string, socket *os.File) {
	buffer := make([]byte, 4096)
	for {
		_, err := socket.Read(buffer)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		l.mutex.Lock()
		l.dirty[podUID] = true
		l.mutex.Unlock()
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (l *links) watch(ctx context.Context, changed func(ctx context.Context, podUID string)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		l.mutex.Lock()
		dirty := maps.Clone(l.dirty)
		clear(l.dirty)
		l.mutex.Unlock()
		for podUID := range dirty {
			changed(ctx, podUID)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
	}
}

func (l *links) unfollow(podUID string) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	var errs []error
	for _, socket := range l.sockets[podUID] {
		if err := socket.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			errs = append(errs, err)
		}
	}
	delete(l.sockets, podUID)
	delete(l.dirty, podUID)
	return errors.Join(errs...)
}

func (l *links) close() error {
	l.mutex.Lock()
	pods := make([]string, 0, len(l.sockets))
	for podUID := range l.sockets {
		pods = append(pods, podUID)
	}
	l.mutex.Unlock()
	var errs []error
	for _, podUID := range pods {
		errs = append(errs, l.unfollow(podUID))
	}
	l.readers.Wait()
	return errors.Join(errs...)
}
