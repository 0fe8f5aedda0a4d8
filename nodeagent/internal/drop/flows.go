package drop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/bpf"
)

// Ethernet types whose addresses are known.
const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

// Flows are the flows of which packets were dropped.
type Flows struct {
	// List has the first 1,024 flows and, of those that came later, the ones that were not evicted.
	List []evidence.Flow
	// Evicted counts flows that were counted once and evicted since.
	Evicted int64
	// Uncounted is how many packets' flows could not be counted.
	Uncounted int64
}

// Flows reads the pod's dropped flows from its pins alone: the pod and its devices may be gone. A pod that is not cut off
// has none.
func (d *Dropper) Flows(podUID string) (Flows, error) {
	folder := d.folder(podUID)
	booted, err := bootTime()
	if err != nil {
		return Flows{}, err
	}
	var flows Flows
	later := 0
	for _, name := range []string{bpf.DropMapFirstFlows, bpf.DropMapLaterFlows} {
		err := withMap(folder, name, func(pinned *ebpf.Map) error {
			before := len(flows.List)
			err := flows.read(pinned, booted, name == bpf.DropMapFirstFlows)
			later = len(flows.List) - before
			return err
		})
		if err != nil {
			return Flows{}, err
		}
	}
	err = withMap(folder, bpf.DropMapFlowTotals, func(pinned *ebpf.Map) error {
		var inserted, uncounted uint64
		err := errors.Join(pinned.Lookup(bpf.DropFlowTotalLaterInserted, &inserted), pinned.Lookup(bpf.DropFlowTotalNotCounted, &uncounted))
		flows.Evicted = max(int64(inserted)-int64(later), 0) // #nosec G115 -- a count of packets
		flows.Uncounted = int64(uncounted)                   // #nosec G115 -- a count of packets
		return err
	})
	return flows, err
}

// withMap opens a pinned map to read it. One that is not there has nothing to say.
func withMap(folder, name string, read func(*ebpf.Map) error) error {
	pinned, err := ebpf.LoadPinnedMap(filepath.Join(folder, name), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the pinned map %s: %w", name, err)
	}
	if err := errors.Join(read(pinned), pinned.Close()); err != nil {
		return fmt.Errorf("read the pinned map %s: %w", name, err)
	}
	return nil
}

// read appends what is in a map. A flood can make the walk over the LRU map meet a flow twice or not at all.
func (f *Flows) read(pinned *ebpf.Map, booted time.Time, first bool) error {
	var flow bpf.DropFlow
	var count bpf.DropFlowCount
	entries := pinned.Iterate()
	for entries.Next(&flow, &count) {
		f.List = append(f.List, describe(flow, count, booted, first))
	}
	if err := entries.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return err
	}
	return nil
}

func describe(flow bpf.DropFlow, count bpf.DropFlowCount, booted time.Time, first bool) evidence.Flow {
	out := evidence.Flow{
		Direction: evidence.FlowToPod, EtherType: hostOrder(flow.EtherType), Protocol: flow.Protocol,
		SourcePort: hostOrder(flow.SourcePort), DestinationPort: hostOrder(flow.DestinationPort),
		Packets: count.Packets, Bytes: count.Bytes, First: first,
		FirstDrop: after(booted, count.FirstNanos).UTC(), LastDrop: after(booted, count.LastNanos).UTC(),
	}
	if flow.Direction == bpf.DropDirectionFromPod {
		out.Direction = evidence.FlowFromPod
	}
	switch out.EtherType {
	case etherIPv4:
		out.Source, out.Destination = netip.AddrFrom4([4]byte(flow.Source[:4])).String(), netip.AddrFrom4([4]byte(flow.Destination[:4])).String()
	case etherIPv6:
		out.Source, out.Destination = netip.AddrFrom16(flow.Source).String(), netip.AddrFrom16(flow.Destination).String()
	}
	return out
}

func hostOrder(field uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, field))
}
