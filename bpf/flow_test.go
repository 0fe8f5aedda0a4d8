package bpf_test

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ugallu.io/forensics/bpf"
)

// Parts of frames.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd

	flagSYN = 0x02
	flagACK = 0x10
)

// packet is what a test frame is made of. Addresses are repeated bytes.
type packet struct {
	etherType       uint16
	source          byte
	destination     byte
	protocol        byte
	sourcePort      uint16
	destinationPort uint16
	flags           byte
	fragment        uint16
	// second byte of an IPv6 destination, when it is not the first one's.
	second byte
	// extensions are IPv6 extension headers of 8 bytes before the protocol.
	extensions []byte
	size       int
}

func (p packet) frame() []byte {
	frame := make([]byte, 14, 256)
	binary.BigEndian.PutUint16(frame[12:], p.etherType)
	switch p.etherType {
	case typeIPv4:
		header := make([]byte, 20)
		header[0], header[9] = 0x45, p.protocol
		binary.BigEndian.PutUint16(header[6:], p.fragment)
		copy(header[12:], []byte{p.source, p.source, p.source, p.source, p.destination, p.destination, p.destination, p.destination})
		frame = append(frame, header...)
	case typeIPv6:
		header := make([]byte, 40)
		header[0] = 0x60
		chain := append(append([]byte{}, p.extensions...), p.protocol)
		header[6] = chain[0]
		for i := range 16 {
			header[8+i], header[24+i] = p.source, p.destination
		}
		if p.second != 0 {
			header[25] = p.second
		}
		frame = append(frame, header...)
		for i := range p.extensions {
			frame = append(frame, chain[i+1], 0, 0, 0, 0, 0, 0, 0)
		}
	}
	transport := make([]byte, 20)
	binary.BigEndian.PutUint16(transport, p.sourcePort)
	binary.BigEndian.PutUint16(transport[2:], p.destinationPort)
	transport[12], transport[13] = 0x50, p.flags
	frame = append(frame, transport...)
	if p.size > len(frame) {
		frame = append(frame, make([]byte, p.size-len(frame))...)
	}
	return frame
}

func networkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

// flow of the packet as the programs name it.
func (p packet) flow(direction bpf.DropDirection) bpf.DropFlow {
	flow := bpf.DropFlow{EtherType: networkOrder(p.etherType), Protocol: p.protocol, Direction: direction}
	length := map[uint16]int{typeIPv4: 4, typeIPv6: 16}[p.etherType]
	for i := range length {
		flow.Source[i], flow.Destination[i] = p.source, p.destination
	}
	flow.SourcePort, flow.DestinationPort = networkOrder(p.sourcePort), networkOrder(p.destinationPort)
	return flow
}

func TestDroppedPacketsAreCountedByFlow(t *testing.T) {
	programs := map[string]struct {
		program   func(*bpf.DropObjects) *ebpf.Program
		direction bpf.DropDirection
		device    bool
	}{
		"cgroup ingress": {func(o *bpf.DropObjects) *ebpf.Program { return o.DropCgroupIngress }, bpf.DropDirectionToPod, false},
		"cgroup egress":  {func(o *bpf.DropObjects) *ebpf.Program { return o.DropCgroupEgress }, bpf.DropDirectionFromPod, false},
		"device ingress": {func(o *bpf.DropObjects) *ebpf.Program { return o.DropDeviceIngress }, bpf.DropDirectionFromPod, true},
		"inside egress":  {func(o *bpf.DropObjects) *ebpf.Program { return o.DropInsideEgress }, bpf.DropDirectionFromPod, true},
		"device egress":  {func(o *bpf.DropObjects) *ebpf.Program { return o.DropDeviceEgress }, bpf.DropDirectionToPod, true},
	}
	packets := map[string]struct {
		packet packet
		change func(*bpf.DropFlow)
	}{
		"TCP":        {packet{etherType: typeIPv4, source: 10, destination: 20, protocol: 6, sourcePort: 1000, destinationPort: 443}, nil},
		"UDP":        {packet{etherType: typeIPv4, source: 10, destination: 20, protocol: 17, sourcePort: 1000, destinationPort: 53}, nil},
		"SCTP":       {packet{etherType: typeIPv4, source: 10, destination: 20, protocol: 132, sourcePort: 1, destinationPort: 2}, nil},
		"UDP, IPv6":  {packet{etherType: typeIPv6, source: 0xfd, destination: 0xfe, protocol: 17, sourcePort: 1000, destinationPort: 53}, nil},
		"extensions": {packet{etherType: typeIPv6, source: 0xfd, destination: 0xfe, protocol: 6, sourcePort: 7, destinationPort: 8, extensions: []byte{0, 60}}, nil},
		"ICMP has no ports": {
			packet{etherType: typeIPv4, source: 10, destination: 20, protocol: 1, sourcePort: 0x0800, destinationPort: 9},
			func(f *bpf.DropFlow) { f.SourcePort, f.DestinationPort = 0, 0 },
		},
		"a later fragment has no ports": {
			packet{etherType: typeIPv4, source: 10, destination: 20, protocol: 17, sourcePort: 5, destinationPort: 6, fragment: 100},
			func(f *bpf.DropFlow) { f.SourcePort, f.DestinationPort = 0, 0 },
		},
	}
	for name, program := range programs {
		objects := loadDrop(t)
		for kind, test := range packets {
			t.Run(name+"/"+kind, func(t *testing.T) {
				frame := test.packet.frame()
				for range 2 {
					if _, err := program.program(objects).Run(&ebpf.RunOptions{Data: frame}); err != nil {
						t.Fatal(err)
					}
				}
				want := test.packet.flow(program.direction)
				if test.change != nil {
					test.change(&want)
				}
				var got bpf.DropFlowCount
				if err := objects.FirstFlows.Lookup(want, &got); err != nil {
					t.Fatalf("look flow %+v up: %v; there are %v", want, err, keys(t, objects.FirstFlows))
				}
				bytes := 2 * len(frame)
				if !program.device {
					bytes -= 2 * 14
				}
				if diff := cmp.Diff(bpf.DropFlowCount{Packets: 2, Bytes: uint64(bytes)}, got, cmpopts.IgnoreFields(bpf.DropFlowCount{}, "FirstNanos", "LastNanos")); diff != "" {
					t.Error(diff)
				}
				if got.FirstNanos == 0 || got.LastNanos <= got.FirstNanos {
					t.Errorf("times are %d and %d", got.FirstNanos, got.LastNanos)
				}
			})
		}
	}
}

// TestAFloodDoesNotPushTheFirstFlowsOut sends ten times as many flows as there is room for.
func TestAFloodDoesNotPushTheFirstFlowsOut(t *testing.T) {
	objects := loadDrop(t)
	const room, flood = 1024, 10240
	of := func(i int) packet {
		return packet{etherType: typeIPv4, source: 10, destination: 20, protocol: 17, sourcePort: uint16(i), destinationPort: 53}
	}
	for i := range flood {
		if _, err := objects.DropDeviceIngress.Run(&ebpf.RunOptions{Data: of(i).frame()}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range room {
		var got bpf.DropFlowCount
		if err := objects.FirstFlows.Lookup(of(i).flow(bpf.DropDirectionFromPod), &got); err != nil || got.Packets != 1 {
			t.Fatalf("flow %d: %+v, %v", i, got, err)
		}
	}
	if kept := len(keys(t, objects.LaterFlows)); kept == 0 || kept > room {
		t.Errorf("%d later flows are kept", kept)
	}
	var later, lost uint64
	if err := objects.FlowTotals.Lookup(bpf.DropFlowTotalLaterInserted, &later); err != nil {
		t.Fatal(err)
	}
	if err := objects.FlowTotals.Lookup(bpf.DropFlowTotalNotCounted, &lost); err != nil {
		t.Fatal(err)
	}
	if later+lost != flood-room {
		t.Errorf("%d later flows and %d uncounted packets, want %d together", later, lost, flood-room)
	}
}

func keys(t *testing.T, flows *ebpf.Map) []bpf.DropFlow {
	t.Helper()
	var all []bpf.DropFlow
	var flow bpf.DropFlow
	var count bpf.DropFlowCount
	entries := flows.Iterate()
	for entries.Next(&flow, &count) {
		all = append(all, flow)
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
