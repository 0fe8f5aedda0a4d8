package volatile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"ugallu.io/forensics/api/evidence"
)

// Result is what is known of a finished collection.
type Result struct {
	// Processes that have a record, and how many of them had ended.
	Processes, Ended int64
	// Networks that have a record.
	Networks int64
	// Records and Bytes of the stream.
	Records, Bytes int64
	// SHA256 of the stream.
	SHA256 string
	Gaps   []evidence.Gap
	// Truncated is whether a limit left something out.
	Truncated bool
}

// collector is the state of one collection.
type collector struct {
	out     io.Writer
	sum     hash.Hash
	options Options
	guard   *guard
	gaps    *gapLog
	clocks  clocks
	hashes  *hashes
	sockets socketIndex
	// networks are the inodes that were looked at.
	networks map[uint64]bool
	// late are namespaces that only a descriptor holds.
	late []namespace
	// node is the inode of the node's own network namespace.
	node uint64
	// mountsOf remembers whose record holds the mounts with this digest.
	mountsOf                            map[[sha256.Size]byte]int
	records, bytes                      int64
	processes, ended, networksCollected int64
}

// Collect writes one line of canonical JSON for each network namespace and each process of the target, between a header and
// a trailer; their shapes are evidence.Volatile…. Records are written as they are read; no more than one is held.
//
// Whatever cannot be read is a gap, and so is whatever the kernel does not answer for: never an error. Errors are those of
// out, of Options.Gaps and of ctx; the stream then has no trailer.
//
// Nothing of the processes is opened but files of /proc, namespaces, and executables that are regular files.
func Collect(ctx context.Context, out io.Writer, target Target, options Options) (Result, error) {
	c, err := newCollector(out, options)
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	if err := c.all(ctx, target); err != nil {
		return Result{}, fmt.Errorf("collect the volatile state of pod %s: %w", target.PodUID, err)
	}
	return Result{
		Processes: c.processes, Ended: c.ended, Networks: c.networksCollected,
		Records: c.records, Bytes: c.bytes, SHA256: hex.EncodeToString(c.sum.Sum(nil)),
		Gaps: c.gaps.Gaps(), Truncated: c.gaps.truncated,
	}, nil
}

func newCollector(out io.Writer, options Options) (*collector, error) {
	options.Limits = options.Limits.withDefaults()
	now, err := readClocks()
	if err != nil {
		return nil, err
	}
	guard := newGuard(options.Limits)
	return &collector{
		out: out, sum: sha256.New(), options: options, guard: guard, gaps: newGapLog(options), clocks: now,
		hashes:   newHashes(guard),
		sockets:  socketIndex{known: map[uint64]*evidence.VolatileSocket{}, room: maxIndexed},
		networks: map[uint64]bool{}, mountsOf: map[[sha256.Size]byte]int{},
	}, nil
}

func (c *collector) close() {
	for _, namespace := range c.late {
		namespace.release()
	}
}

func (c *collector) all(ctx context.Context, target Target) error {
	if err := c.header(target); err != nil {
		return err
	}
	if err := c.networksOf(ctx, target.Processes); err != nil {
		return err
	}
	for _, process := range target.Processes {
		if err := c.process(ctx, process); err != nil {
			return err
		}
	}
	for _, namespace := range c.late {
		if err := c.network(ctx, namespace); err != nil {
			return err
		}
	}
	return c.trailer()
}

func (c *collector) header(target Target) error {
	kernel, err := readKernel()
	if err != nil {
		return err
	}
	header := evidence.VolatileHeader{
		Kind: evidence.VolatileKindHeader, Version: evidence.VolatileVersion, PodUID: target.PodUID,
		Containers: []evidence.VolatileContainer{}, PIDs: []int{}, Clocks: c.clocks.VolatileClocks, Kernel: kernel,
		RedactEnvironment: string(c.options.RedactEnvironment),
	}
	if header.RedactEnvironment == "" {
		header.RedactEnvironment = string(RedactNone)
	}
	if c.options.RedactNames != nil {
		header.RedactNames = c.options.RedactNames.String()
	}
	for _, container := range target.Containers {
		header.Containers = append(header.Containers, evidence.VolatileContainer{ID: container.ID, Name: container.Name})
	}
	for _, process := range target.Processes {
		header.PIDs = append(header.PIDs, process.PID)
	}
	return c.write(header)
}

func (c *collector) trailer() error {
	now, err := readClocks()
	if err != nil {
		return err
	}
	return c.write(evidence.VolatileTrailer{
		Kind: evidence.VolatileKindTrailer, Clocks: now.VolatileClocks, Records: c.records, Processes: c.processes, Ended: c.ended,
		Networks: c.networksCollected, Gaps: c.gaps.Gaps(), Truncated: c.gaps.truncated,
	})
}

// write adds one record.
func (c *collector) write(record any) error {
	line, err := evidence.Canonical(record)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if _, err := c.out.Write(line); err != nil {
		return fmt.Errorf("write a record: %w", err)
	}
	_, _ = c.sum.Write(line) // a hash takes everything
	c.records++
	c.bytes += int64(len(line))
	return nil
}
