package volatile

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

// networkPatience is how many times the patience for one part of a process a whole network namespace is given.
const networkPatience = 5

// namespace is a network namespace held open.
type namespace struct {
	*shared
	inode uint64
	// path that led to it, for gaps.
	path string
}

// networksOf reads the namespaces of all threads of the processes, each once.
func (c *collector) networksOf(ctx context.Context, processes []Process) error {
	if err := c.findNode(); err != nil {
		return err
	}
	for _, process := range processes {
		if c.guard.late() {
			return nil // every process names it
		}
		h, err := open(process, c.options.Limits.Patience)
		if err != nil {
			continue // it is told by the process's own record
		}
		err = c.networksOfThreads(ctx, h)
		h.release()
		if err != nil {
			return err
		}
	}
	return nil
}

// findNode looks which namespace is the node's own.
func (c *collector) findNode() error {
	path := c.options.NodeNetwork
	if path == "" {
		path = "/proc/1/ns/net"
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return c.gaps.add(path, GapUnreadable, fmt.Errorf("tell the node's own network apart: %w", err))
	}
	c.node = stat.Ino
	return nil
}

func (c *collector) networksOfThreads(ctx context.Context, h *handle) error {
	links := map[uint64]string{}
	seen := 0
	err := h.names("task", func(name string) bool {
		path := "task/" + name + "/ns/net"
		if link, err := h.link(path); err == nil {
			if inode, err := inodeOf(link); err == nil {
				links[inode] = path
			}
		}
		seen++
		return seen < c.options.Limits.Threads
	})
	if err != nil && !gone(err) {
		return c.gaps.add("/proc/"+strconv.Itoa(h.PID)+"/task", reasonOf(err), err)
	}
	for inode, link := range links {
		namespace, err := c.openNetwork(ctx, h, inode, link)
		if err == nil && namespace.shared != nil {
			err = c.network(ctx, namespace)
			namespace.release()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// later keeps a namespace that a descriptor holds, to be read after the processes.
func (r *reading) later(h *handle, inode uint64, link string) {
	namespace, err := r.openNetwork(r.ctx, h, inode, link)
	switch {
	case err != nil:
		r.miss("networks", err)
	case namespace.shared != nil:
		r.late = append(r.late, namespace)
	}
}

// openNetwork opens a namespace unless it was looked at before. What cannot be opened is a gap.
func (c *collector) openNetwork(ctx context.Context, h *handle, inode uint64, link string) (namespace, error) {
	if c.networks[inode] {
		return namespace{}, nil
	}
	path := "/proc/" + strconv.Itoa(h.PID) + "/" + link
	if len(c.networks) >= c.options.Limits.Networks {
		cause := limited("more network namespaces", int64(c.options.Limits.Networks))
		return namespace{}, c.gaps.add(path, GapLimit, cause)
	}
	opened, _, err := watched(ctx, c.guard, h.shared, h.patience, func(*findings) (*shared, error) {
		return openNamespace(h, inode, link)
	})
	switch {
	case ctx.Err() != nil:
		return namespace{}, ctx.Err()
	case gone(err):
		return namespace{}, nil // another thread or process leads to it, or it is gone with the last
	case err != nil:
		return namespace{}, c.gaps.add(path, reasonOf(err), err)
	}
	c.networks[inode] = true
	return namespace{opened, inode, path}, nil
}

func openNamespace(h *handle, inode uint64, link string) (*shared, error) {
	pinned, err := pin(h, link)
	if err != nil {
		return nil, err
	}
	defer pinned.release()
	if pinned.stat.Ino != inode {
		return nil, fmt.Errorf("open %s: it was exchanged: %w", link, unix.ESRCH)
	}
	return reopen(pinned.shared)
}

// network reads one namespace and writes its record.
func (c *collector) network(ctx context.Context, at namespace) error {
	limits := c.options.Limits
	read, found, err := watched(ctx, c.guard, at.shared, networkPatience*limits.Patience,
		func(found *findings) (*evidence.VolatileNetwork, error) { return readNetwork(at, limits, found) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		found.add("network", reasonOf(err), err)
	}
	if read == nil {
		read = emptyNetwork(at.inode)
	}
	read.Node = at.inode == c.node
	if !c.sockets.add(at.inode, read.Sockets) {
		found.add("sockets", GapLimit, limited("sockets in all, to be joined with descriptors", maxIndexed))
	}
	for _, f := range found {
		missing := evidence.VolatileMissing{Part: f.part, Reason: f.reason, Message: f.cause.Error()}
		read.Missing = append(read.Missing, missing)
		if err := c.gaps.add(at.path+"/"+f.part, f.reason, f.cause); err != nil {
			return err
		}
	}
	c.networksCollected++
	return c.write(read)
}

func emptyNetwork(inode uint64) *evidence.VolatileNetwork {
	return &evidence.VolatileNetwork{
		Kind: evidence.VolatileKindNetwork, Namespace: inode, ReadAt: time.Now().UTC(),
		Interfaces: []evidence.VolatileInterface{}, Routes: []evidence.VolatileRoute{}, Rules: []evidence.VolatileRule{},
		Neighbours: []evidence.VolatileNeighbour{}, Sockets: []evidence.VolatileSocket{},
	}
}

// readNetwork reads on a thread of its own that has joined the namespace.
func readNetwork(at namespace, limits Limits, found *findings) (*evidence.VolatileNetwork, error) {
	network := emptyNetwork(at.inode)
	err := proc.Within(at.fd, unix.CLONE_NEWNET, func() error {
		readTables(network, limits, found)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read network namespace %d: %w", at.inode, err)
	}
	return network, nil
}

func readTables(network *evidence.VolatileNetwork, limits Limits, found *findings) {
	for part, read := range map[string]func() error{
		"sockets":    func() error { return readSockets(network, limits.Sockets, found) },
		"interfaces": func() error { return readInterfaces(network, limits.Devices, found) },
		"routes":     func() error { return readRoutes(network, limits.Routes, found) },
		"rules":      func() error { return readRules(network, limits.Routes, found) },
		"neighbours": func() error { return readNeighbours(network, limits.Neighbours, found) },
	} {
		err := read()
		// A family that this kernel does not have.
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EPROTONOSUPPORT) {
			found.add(part, GapUnreadable, err)
		}
	}
}
