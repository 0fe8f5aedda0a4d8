package volatile

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"ugallu.io/forensics/api/evidence"
)

// reading is one process while it is read.
type reading struct {
	*handle
	*collector
	// ctx is that of the call to Collect, which this value does not outlive.
	ctx    context.Context
	record *evidence.VolatileProcess
	found  findings
}

// process reads one process and writes its record. A process that has ended is a record, not an error.
func (c *collector) process(ctx context.Context, process Process) error {
	record := &evidence.VolatileProcess{
		Kind: evidence.VolatileKindProcess, PID: process.PID, ContainerID: process.ContainerID, StartTicks: process.StartTicks,
		ReadAt: time.Now().UTC(),
	}
	h, err := open(process, c.options.Limits.Patience)
	r := &reading{handle: h, collector: c, ctx: ctx, record: record}
	switch {
	case errors.Is(err, errEnded), errors.Is(err, errReplaced):
		record.Ended = true
	case err != nil:
		r.miss("process", err)
	case c.guard.late():
		r.miss("process", errLate)
	default:
		r.all()
	}
	if h != nil {
		r.settle()
		h.release()
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("read process %d: %w", process.PID, err)
	}
	if err := r.report(); err != nil {
		return err
	}
	c.processes++
	if record.Ended {
		c.ended++
	}
	return c.write(record)
}

// all reads every part, the most volatile and the cheapest first.
func (r *reading) all() {
	r.record.StartTicks = r.StartTicks
	id := part(r, "process", func(found *findings) (identity, error) {
		return readIdentity(r.handle, found)
	})
	r.identity(id)
	if id.stat.state == "Z" || id.stat.state == "X" {
		r.through = part(r, "threads", func(found *findings) (string, error) { return findThrough(r.handle, found) })
		if r.through == "" {
			return
		}
		r.record.ReadThrough = r.reader()
	}
	r.threads()
	r.memory()
	seen := r.mounts()
	r.objects(seen)
	r.descriptors()
	label := part(r, "label", func(found *findings) (string, error) { return readLabel(r.handle, found) })
	r.record.Label = evidence.Text(label)
}

// part runs one piece of work on the process; what it could not do is remembered.
func part[T any](r *reading, name string, work func(*findings) (T, error)) T {
	value, found, err := watched(r.ctx, r.guard, r.shared, r.patience, work)
	r.found = append(r.found, found...)
	if errors.Is(err, errBlocked) {
		r.patience = min(r.patience, briefly)
	}
	if err != nil {
		r.miss(name, err)
	}
	return value
}

func (r *reading) miss(name string, err error) { r.found.add(name, reasonOf(err), err) }

func (r *reading) identity(id identity) {
	record := r.record
	if id.stat.started != 0 {
		started := r.clocks.at(id.stat.started)
		record.StartedAt = &started
	}
	record.Parent, record.ProcessGroup, record.Session = id.stat.parent, id.stat.group, id.stat.session
	record.State, record.Comm, record.TracerPID = id.stat.state, evidence.Text(id.comm), id.tracer
	record.NamespacePIDs, record.Credentials, record.Namespaces = id.namespacePIDs, id.credentials, id.namespaces
	record.UIDMap, record.GIDMap, record.Cgroups = id.uidMap, id.gidMap, id.cgroups
	record.OOMScore, record.OOMScoreAdjust = id.oomScore, id.oomAdjust
}

func (r *reading) threads() {
	var network uint64
	if r.record.Namespaces != nil {
		network = r.record.Namespaces.Network
	}
	found := part(r, "threads", func(found *findings) (threads, error) {
		return readThreads(r.handle, r.options.Limits.Threads, network, found)
	})
	r.record.Threads, r.record.ThreadsTotal = found.list, found.total
}

// memory reads what the process's address space says of itself, but not its content.
func (r *reading) memory() {
	maps := part(r, "maps", func(found *findings) (mapping, error) {
		return readMaps(r.handle, r.options.Limits.Maps, found)
	})
	r.record.MapsTotal = maps.total
	for _, area := range maps.areas {
		r.record.Maps = append(r.record.Maps, area.record())
	}
	if !maps.read {
		// Where the text lies is not known.
		last := r.found[len(r.found)-1]
		r.found.add("text", last.reason, last.cause)
		return
	}
	said := part(r, "text", func(found *findings) (text, error) { return readText(r.handle, maps, r.options, found) })
	r.record.Argv, r.record.Environment = said.argv, said.environment
	r.record.Memory = part(r, "memory", func(found *findings) (*evidence.VolatileMemory, error) {
		return readRollup(r.handle, found)
	})
}

func (r *reading) mounts() []evidence.VolatileMount {
	seen := part(r, "mounts", func(found *findings) (mounts, error) {
		seen, err := readMounts(r.handle, r.options.Limits.Mounts, found)
		flagCovered(seen.list)
		return seen, err
	})
	if len(seen.list) == 0 {
		return nil
	}
	if same, ok := r.mountsOf[seen.digest]; ok {
		r.record.MountsSameAs = same
	} else {
		r.mountsOf[seen.digest] = r.record.PID
		r.record.Mounts = seen.list
	}
	return seen.list
}

func (r *reading) objects(seen []evidence.VolatileMount) {
	found := part(r, "executable", func(found *findings) (objects, error) { return readObjects(r.handle, found) })
	r.record.Executable, r.record.Directory, r.record.Root = found.executable, found.directory, found.root
	if found.executable == nil {
		return
	}
	sum, err := r.hashes.executable(r.ctx, r.handle, seen, r.options.Limits)
	if err != nil {
		r.found.add("executable", reasonOfContent(err), fmt.Errorf("hash: %w", err))
	}
	r.record.Executable.SHA256 = sum
}

func (r *reading) descriptors() {
	list, limits := r.record.Threads, r.options.Limits
	found := part(r, "descriptors", func(found *findings) (descriptors, error) {
		return readDescriptors(r.handle, limits, list, found)
	})
	r.record.Descriptors = found.list
	unlisted := 0
	for i := range found.list {
		descriptor := &found.list[i]
		if descriptor.Kind != evidence.DescriptorSocket {
			continue
		}
		if descriptor.Socket = r.sockets.find(descriptor.Inode); descriptor.Socket != nil {
			descriptor.Protocol = ""
		} else {
			unlisted++
		}
	}
	if unlisted > 0 {
		r.found.add("sockets", GapUnlisted, fmt.Errorf("%d sockets are in no table: unbound, or of a namespace without a process", unlisted))
	}
	for inode, link := range found.networks {
		r.later(r.handle, inode, link)
	}
}

// settle looks whether the process is still the same: what an end took away is no gap.
func (r *reading) settle() {
	err := r.check()
	if r.record.State == "Z" && r.through == "" && errors.Is(err, errEnded) {
		// It had ended before it was first looked at, and is here to be read as that.
		if _, gone := r.stat("stat"); gone == nil {
			return
		}
	}
	switch {
	case errors.Is(err, errReplaced):
		*r.record = evidence.VolatileProcess{
			Kind: r.record.Kind, PID: r.record.PID, ContainerID: r.record.ContainerID, ReadAt: r.record.ReadAt,
			StartTicks: r.record.StartTicks, Ended: true,
		}
		r.found = nil
	case errors.Is(err, errEnded):
		r.record.Ended = true
	case err != nil:
		r.miss("process", err)
	}
}

// report turns findings into gaps, and names them in the record.
func (r *reading) report() error {
	for _, found := range r.found {
		reason := found.reason
		if reason == GapEnded && !r.record.Ended {
			reason = GapUnreadable
		}
		r.record.Missing = append(r.record.Missing, evidence.VolatileMissing{
			Part: found.part, Reason: reason, Message: found.cause.Error(),
		})
		if reason == GapEnded {
			continue
		}
		path := "/proc/" + strconv.Itoa(r.record.PID) + "/" + found.part
		if err := r.gaps.add(path, reason, found.cause); err != nil {
			return err
		}
	}
	return nil
}
