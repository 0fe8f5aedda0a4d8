package volatile

import (
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkVolatile50 reads 50 processes: five pods of ten that share a network, a mount and an ipc namespace, each pod
// with sockets, and one of them with a thousand descriptors.
func BenchmarkVolatile50(b *testing.B) {
	target := Target{PodUID: "pod-1"}
	add := func(pid int) { target.Processes = append(target.Processes, Process{PID: pid}) }
	for range 4 {
		pod := start(b, "parent 9", namespaces(unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWIPC))
		add(pod.Process.Pid)
		for _, child := range pod.Children {
			add(child)
		}
	}
	pod := start(b, "parent 8", namespaces(unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWIPC))
	add(pod.Process.Pid)
	for _, child := range pod.Children {
		add(child)
	}
	add(start(b, "descriptors "+b.TempDir()+" 1000", nil).Process.Pid)
	if len(target.Processes) != 50 {
		b.Fatalf("%d processes", len(target.Processes))
	}
	var bytes int64
	began := time.Now()
	for b.Loop() {
		result, err := Collect(b.Context(), io.Discard, target, Options{NodeNetwork: "/proc/self/ns/net"})
		must(b, err)
		if result.Processes != 50 || result.Ended != 0 || result.Networks != 6 || result.Truncated {
			b.Fatalf("result %+v", result)
		}
		bytes = result.Bytes
	}
	b.ReportMetric(float64(time.Since(began).Microseconds())/1000/float64(b.N), "ms")
	b.ReportMetric(float64(bytes)/1024, "KiB")
}

// BenchmarkMemory reads 256 MiB of one process, hash and all.
func BenchmarkMemory(b *testing.B) {
	const size = 256
	a := start(b, "fill 256", nil)
	b.SetBytes(size << 20)
	for b.Loop() {
		result, err := Memory(b.Context(), io.Discard, a.process(), Options{})
		must(b, err)
		if result.Stored < size<<20 || result.Truncated {
			b.Fatalf("result %+v", result)
		}
	}
}
