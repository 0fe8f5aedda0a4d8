package bpf_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/bpf"
)

// Verdicts.
const (
	cgroupDrop, cgroupPass = 0, 1
	deviceDrop             = 2
	deviceNext             = 0xffffffff
)

// skb is struct __sk_buff as 48 words.
type skb [48]uint32

// Words of it.
const (
	wordIngress = 9
	wordDevice  = 10
)

// inNamespace runs the test on a thread with a network namespace of its own, in which a device other than loopback has
// the index that it returns. The thread ends with the test.
func inNamespace(t *testing.T) uint32 {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "pod"}, PeerName: "node"}); err != nil {
		t.Fatal(err)
	}
	device, err := netlink.LinkByName("pod")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(device); err != nil {
		t.Fatal(err)
	}
	return uint32(device.Attrs().Index) // #nosec G115 -- positive
}

// ownCgroup is the id of this process's cgroup, which the sockets of test runs belong to.
func ownCgroup(t *testing.T) uint64 {
	t.Helper()
	lines, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(lines)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
			if !ok {
				continue
			}
			if handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, root+path, 0); err == nil && handle.Size() == 8 {
				return binary.NativeEndian.Uint64(handle.Bytes())
			}
		}
	}
	t.Fatalf("no cgroup id for %s", lines)
	return 0
}

func verdictOf(t *testing.T, program *ebpf.Program, frame []byte, device, ingress uint32) uint32 {
	t.Helper()
	context := skb{wordIngress: ingress, wordDevice: device}
	verdict, err := program.Run(&ebpf.RunOptions{Data: frame, Context: context})
	if err != nil {
		t.Fatal(err)
	}
	return verdict
}

func TestIsolateProgramsPassLoopbackInsideThePodOnly(t *testing.T) {
	objects := loadDrop(t)
	device := inNamespace(t)
	frame := packet{etherType: typeIPv4, source: 127, destination: 127, protocol: 6, sourcePort: 1, destinationPort: 2}.frame()
	for name, program := range map[string]*ebpf.Program{"ingress": objects.IsolateCgroupIngress, "egress": objects.IsolateCgroupEgress} {
		if got := verdictOf(t, program, frame, 1, 0); got != cgroupPass {
			t.Errorf("%s on loopback: %d", name, got)
		}
		if got := verdictOf(t, program, frame, device, 0); got != cgroupDrop {
			t.Errorf("%s on another device: %d", name, got)
		}
	}
	for name, program := range map[string]*ebpf.Program{"ingress": objects.DropCgroupIngress, "egress": objects.DropCgroupEgress} {
		if got := verdictOf(t, program, frame, 1, 0); got != cgroupDrop {
			t.Errorf("%s of a frozen pod on loopback: %d", name, got)
		}
	}
}

// probed is a pod with the program set for running processes, whose probe source is the given cgroup.
type probed struct {
	*bpf.DropObjects
	device uint32
}

func newProbed(t *testing.T, cgroup uint64) probed {
	t.Helper()
	p := probed{DropObjects: loadDrop(t)}
	p.device = inNamespace(t)
	if err := p.ProbeSource.Put(uint32(0), cgroup); err != nil {
		t.Fatal(err)
	}
	return p
}

// verdicts of a packet towards the pod, and of its answer, at the hooks that they meet.
func (p probed) verdicts(t *testing.T, towards packet, ingress uint32) string {
	t.Helper()
	back := towards
	back.source, back.destination = towards.destination, towards.source
	back.sourcePort, back.destinationPort = towards.destinationPort, towards.sourcePort
	back.flags |= flagACK
	return fmt.Sprintf("%d %d %d %d %d",
		int32(verdictOf(t, p.IsolateDeviceEgress, towards.frame(), p.device, ingress)), // #nosec G115 -- a verdict is signed
		verdictOf(t, p.IsolateCgroupIngress, towards.frame(), p.device, ingress),
		verdictOf(t, p.IsolateCgroupEgress, back.frame(), p.device, 0),
		int32(verdictOf(t, p.IsolateInsideEgress, back.frame(), p.device, 0)),         // #nosec G115 -- a verdict is signed
		int32(verdictOf(t, p.IsolateDeviceIngress, back.frame(), p.device, p.device))) // #nosec G115 -- a verdict is signed
}

const (
	passes = "-1 1 1 -1 -1"
	drops  = "2 0 0 2 2"
)

func TestIsolateProgramsPassWhatTheKubeletOpened(t *testing.T) {
	for name, etherType := range map[string]uint16{"IPv4": typeIPv4, "IPv6": typeIPv6} {
		t.Run(name, func(t *testing.T) {
			p := newProbed(t, ownCgroup(t))
			probe := packet{etherType: etherType, source: 1, destination: 2, protocol: 6, sourcePort: 40000, destinationPort: 80}
			if got := p.verdicts(t, probe, 0); got != drops {
				t.Errorf("a connection whose opening was not seen: %s", got)
			}
			probe.flags = flagSYN
			if got := p.verdicts(t, probe, 0); got != passes {
				t.Errorf("a connection of the kubelet: %s", got)
			}
			probe.flags = flagACK
			if got := p.verdicts(t, probe, 0); got != passes {
				t.Errorf("later packets of it: %s", got)
			}
			if got := int32(verdictOf(t, p.IsolateDeviceEgress, probe.frame(), p.device, p.device)); got != deviceDrop { // #nosec G115 -- a verdict is signed
				t.Errorf("later packets of it from another host: %d", got)
			}
			other := probe
			other.sourcePort++
			if got := p.verdicts(t, other, 0); got != drops {
				t.Errorf("another flow: %s", got)
			}
		})
	}
}

func TestIsolateProgramsDropEverythingElse(t *testing.T) {
	own := ownCgroup(t)
	syn := packet{etherType: typeIPv4, source: 1, destination: 2, protocol: 6, sourcePort: 40000, destinationPort: 80, flags: flagSYN}
	with := func(change func(*packet)) packet {
		changed := syn
		change(&changed)
		return changed
	}
	tests := map[string]struct {
		cgroup  uint64
		towards packet
		ingress bool
	}{
		"another process of the node": {own + 1, syn, false},
		"a kubelet that is not known": {0, syn, false},
		"a forwarded opening":         {own, syn, true},
		"an answer to an opening":     {own, with(func(p *packet) { p.flags = flagSYN | flagACK }), false},
		"UDP of the kubelet":          {own, with(func(p *packet) { p.protocol = 17 }), false},
		"a fragment":                  {own, with(func(p *packet) { p.fragment = 8 }), false},
		"another ether type":          {own, packet{etherType: 0x88b5}, false},
		"ARP with a payload":          {own, packet{etherType: typeARP, size: 61}, false},
		"IPv6 ping":                   {own, packet{etherType: typeIPv6, protocol: 58, sourcePort: 128 << 8, destinationPort: 128 << 8}, false},
		"solicitation with a payload": {own, packet{etherType: typeIPv6, protocol: 58, sourcePort: 135 << 8, destinationPort: 135 << 8, size: 87}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := newProbed(t, test.cgroup)
			ingress := uint32(0)
			if test.ingress {
				ingress = p.device
			}
			if got := p.verdicts(t, test.towards, ingress); got != drops {
				t.Errorf("verdicts are %s, want %s", got, drops)
			}
		})
	}
}

func TestIsolateProgramsPassNeighbourDiscovery(t *testing.T) {
	p := newProbed(t, 0)
	for name, towards := range map[string]packet{
		"ARP":           {etherType: typeARP, size: 60},
		"solicitation":  {etherType: typeIPv6, protocol: 58, sourcePort: 135 << 8, size: 86, source: 0xfe, destination: 0xfe, second: 0x80},
		"advertisement": {etherType: typeIPv6, protocol: 58, sourcePort: 136 << 8, size: 86, source: 0xfe, destination: 0xff, second: 0x02},
	} {
		for side, program := range map[string]*ebpf.Program{
			"from the pod": p.IsolateDeviceIngress, "on the pod's own side": p.IsolateInsideEgress, "to the pod": p.IsolateDeviceEgress,
		} {
			if got := verdictOf(t, program, towards.frame(), p.device, 0); got != deviceNext {
				t.Errorf("%s %s: %d", name, side, got)
			}
		}
	}
}

func TestIsolateProgramsDropNeighbourDiscoveryThatIsRouted(t *testing.T) {
	p := newProbed(t, 0)
	routed := packet{etherType: typeIPv6, protocol: 58, sourcePort: 135 << 8, size: 86, source: 0x20, destination: 0x20, second: 0x01}
	for name, program := range map[string]*ebpf.Program{"device": p.IsolateDeviceIngress, "inside": p.IsolateInsideEgress} {
		if got := verdictOf(t, program, routed.frame(), p.device, 0); got != deviceDrop {
			t.Errorf("%s: %d", name, got)
		}
	}
	forwarded := packet{etherType: typeARP, size: 60}
	if got := verdictOf(t, p.IsolateDeviceEgress, forwarded.frame(), p.device, p.device); got != deviceDrop {
		t.Errorf("from another host to the pod: %d", got)
	}
}

// TestIsolateProgramsDropAnAnswerToAnotherHardwareAddress has the pod send as part of a probe, but to a neighbour.
func TestIsolateProgramsDropAnAnswerToAnotherHardwareAddress(t *testing.T) {
	p := newProbed(t, ownCgroup(t))
	probe := packet{etherType: typeIPv4, source: 1, destination: 2, protocol: 6, sourcePort: 40000, destinationPort: 80, flags: flagSYN}
	if got := p.verdicts(t, probe, 0); got != passes {
		t.Fatalf("a connection of the kubelet: %s", got)
	}
	answer := packet{etherType: typeIPv4, source: 2, destination: 1, protocol: 6, sourcePort: 80, destinationPort: 40000, flags: flagACK}
	frame := answer.frame()
	frame[0], frame[5] = 0x02, 0x99
	for name, program := range map[string]*ebpf.Program{"device": p.IsolateDeviceIngress, "inside": p.IsolateInsideEgress} {
		if got := verdictOf(t, program, frame, p.device, 0); got != deviceDrop {
			t.Errorf("%s: %d", name, got)
		}
	}
}

func TestIsolateProgramsForgetAProbeThatIsOver(t *testing.T) {
	p := newProbed(t, ownCgroup(t))
	probe := packet{etherType: typeIPv4, source: 1, destination: 2, protocol: 6, sourcePort: 40000, destinationPort: 80, flags: flagSYN}
	if got := p.verdicts(t, probe, 0); got != passes {
		t.Fatalf("a connection of the kubelet: %s", got)
	}
	if err := p.ProbeFlows.Put(probe.flow(bpf.DropDirectionToPod), bpf.DropProbe{LastNanos: 1}); err != nil {
		t.Fatal(err)
	}
	probe.flags = flagACK
	if got := p.verdicts(t, probe, 0); got != drops {
		t.Errorf("long after the last packet to the pod: %s", got)
	}
}
