package bpf_test

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ugallu.io/forensics/bpf"
	"ugallu.io/forensics/internal/testneeds"
)

// ethernetFrame is the smallest frame that the kernel's test run takes: a 14-byte Ethernet header of type IPv4 and a payload.
func ethernetFrame(size int) []byte {
	frame := make([]byte, size)
	frame[12], frame[13] = 0x08, 0x00
	frame[14] = 0x45
	return frame
}

func loadDrop(t *testing.T) *bpf.DropObjects {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "loading eBPF programs needs root")
	objects := new(bpf.DropObjects)
	if err := bpf.LoadDropObjects(objects, nil); err != nil {
		t.Fatalf("load: %v", err)
	}
	t.Cleanup(func() {
		if err := objects.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return objects
}

type run struct {
	program *ebpf.Program
	key     bpf.DropCounterKey
	verdict uint32
}

func runs(o *bpf.DropObjects) map[string]run {
	const loopback = 1 // the test run pretends that the frame came in on the first device
	return map[string]run{
		"cgroup ingress": {o.DropCgroupIngress, bpf.DropCounterKey{Hook: bpf.DropHookCgroupIngress}, 0},
		"cgroup egress":  {o.DropCgroupEgress, bpf.DropCounterKey{Hook: bpf.DropHookCgroupEgress}, 0},
		"device ingress": {o.DropDeviceIngress, bpf.DropCounterKey{Hook: bpf.DropHookDeviceIngress, Ifindex: loopback}, 2},
		"inside egress":  {o.DropInsideEgress, bpf.DropCounterKey{Hook: bpf.DropHookInsideEgress, Ifindex: loopback}, 2},
		"device egress":  {o.DropDeviceEgress, bpf.DropCounterKey{Hook: bpf.DropHookDeviceEgress, Ifindex: loopback}, 2},
	}
}

func TestProgramsDropWhetherOrNotACounterExists(t *testing.T) {
	objects := loadDrop(t)
	for name, test := range runs(objects) {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{34, 60, 1514} {
				verdict, err := test.program.Run(&ebpf.RunOptions{Data: ethernetFrame(size)})
				if err != nil {
					t.Fatalf("run: %v", err)
				}
				if verdict != test.verdict {
					t.Errorf("verdict on %d bytes is %d, want %d", size, verdict, test.verdict)
				}
			}
		})
	}
}

func TestProgramsCountPacketsBytesAndTimesOfTheirOwnHook(t *testing.T) {
	objects := loadDrop(t)
	for name, test := range runs(objects) {
		t.Run(name, func(t *testing.T) {
			if err := objects.Counters.Put(test.key, bpf.DropCounter{}); err != nil {
				t.Fatalf("insert counter: %v", err)
			}
			for range 3 {
				if _, err := test.program.Run(&ebpf.RunOptions{Data: ethernetFrame(60)}); err != nil {
					t.Fatalf("run: %v", err)
				}
			}
			var got bpf.DropCounter
			if err := objects.Counters.Lookup(test.key, &got); err != nil {
				t.Fatalf("look counter up: %v", err)
			}
			if got.FirstNanos == 0 || got.LastNanos <= got.FirstNanos {
				t.Errorf("times are %d and %d, want first > 0 and last after it", got.FirstNanos, got.LastNanos)
			}
			// skb->len starts at the network header on a cgroup and at the Ethernet header on a device.
			want := bpf.DropCounter{Packets: 3, Bytes: 3 * 60}
			if test.key.Ifindex == 0 {
				want.Bytes = 3 * (60 - 14)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(bpf.DropCounter{}, "FirstNanos", "LastNanos")); diff != "" {
				t.Errorf("counter (-want +got):\n%s", diff)
			}
		})
	}
}
