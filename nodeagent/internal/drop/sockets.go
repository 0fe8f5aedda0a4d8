package drop

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

// States of a TCP socket, as the kernel numbers them.
const (
	tcpEstablished = 1
	tcpListen      = 10
)

const (
	// maxSockets of one namespace are looked at one by one, at 4 µs and 700 bytes each. Of more than that only the kernel's
	// own counts are taken.
	maxSockets = 10_000
	// maxSampled is how many namespaces of a pod are sampled, at 10 ms each.
	maxSampled = 4
)

// errTooMany says that a sample is not complete.
var errTooMany = errors.New("too many to be sampled one by one")

// Sockets counts the sockets in the pod's own network namespaces, then in those that its processes are in, and what their peers
// acknowledged and sent so far. The sockets of processes in the node's own namespace cannot be told from the node's: without
// another namespace the sample is nil. A sample that is not complete comes with an error.
func (d *Dropper) Sockets(networks []string, processes []int) (sample *v1alpha1.SocketSample, err error) {
	pod := namespaces{}
	defer func() { err = errors.Join(err, pod.close()) }()
	node, err := inodeAt(d.nodeNetns)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, path := range networks {
		_, err := pod.own(d.nodeRoot, path, node)
		errs = append(errs, err)
	}
	order := slices.Collect(maps.Keys(pod))
	if _, err := pod.open(processes); err != nil {
		return nil, fmt.Errorf("open the pod's network namespaces: %w", errors.Join(append(errs, err)...))
	}
	for inode := range pod {
		if !slices.Contains(order, inode) {
			order = append(order, inode)
		}
	}
	sample, err = sampleOf(pod, order, node)
	return sample, errors.Join(append(errs, err)...)
}

// sampleOf looks at the first few namespaces in this order, but for the node's.
func sampleOf(pod namespaces, order []uint64, node uint64) (sample *v1alpha1.SocketSample, err error) {
	var errs []error
	sampled := 0
	for _, inode := range order {
		if inode == node {
			continue
		}
		if sample == nil {
			sample = &v1alpha1.SocketSample{At: metav1.NewMicroTime(time.Now())}
		}
		if sampled++; sampled > maxSampled {
			errs = append(errs, fmt.Errorf("more than %d network namespaces: %w", maxSampled, errTooMany))
			break
		}
		if err := addSockets(sample, pod[inode]); err != nil {
			errs = append(errs, fmt.Errorf("sockets of network namespace %d: %w", inode, err))
		}
	}
	return sample, errors.Join(errs...)
}

// addSockets asks for the kernel's own counts first: a pod can have so many sockets that a list of them takes all memory.
func addSockets(sample *v1alpha1.SocketSample, namespace *os.File) error {
	counts, err := countSockets(namespace)
	if err != nil {
		return err
	}
	if total := counts.tcp + counts.waiting + counts.udp; total > maxSockets {
		sample.TCPOther += bounded(counts.tcp + counts.waiting)
		sample.UDP += bounded(counts.udp)
		return fmt.Errorf("%d sockets: %w", total, errTooMany)
	}
	handle, err := netlink.NewHandleAt(netns.NsHandle(namespace.Fd()), unix.NETLINK_INET_DIAG)
	if err != nil {
		return err
	}
	defer handle.Close()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		streams, err := handle.SocketDiagTCPInfo(family)
		if err != nil {
			return fmt.Errorf("TCP: %w", err)
		}
		for _, stream := range streams {
			addStream(sample, stream)
		}
		datagrams, err := handle.SocketDiagUDP(family)
		if err != nil {
			return fmt.Errorf("UDP: %w", err)
		}
		sample.UDP += bounded(len(datagrams))
	}
	return nil
}

// socketCounts are the kernel's.
type socketCounts struct{ tcp, waiting, udp int }

// countSockets reads sockstat on a thread that has joined the namespace.
func countSockets(namespace *os.File) (counts socketCounts, err error) {
	err = proc.Within(int(namespace.Fd()), unix.CLONE_NEWNET, func() error {
		for _, file := range []string{"sockstat", "sockstat6"} {
			content, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			counts.add(string(content))
		}
		return nil
	})
	return counts, err
}

func (c *socketCounts) add(sockstat string) {
	for line := range strings.Lines(sockstat) {
		// TCP: inuse 4 orphan 0 tw 0 alloc 8 mem 1
		fields := strings.Fields(line)
		for i := 1; i+1 < len(fields); i += 2 {
			value, err := strconv.Atoi(fields[i+1])
			if err != nil {
				continue
			}
			switch fields[0] + " " + fields[i] {
			case "TCP: inuse", "TCP6: inuse":
				c.tcp += value
			case "TCP: tw":
				c.waiting += value
			case "UDP: inuse", "UDP6: inuse":
				c.udp += value
			}
		}
	}
}

func bounded(count int) int32 { return int32(min(count, 1<<20)) } // #nosec G115 -- bounded here

func addStream(sample *v1alpha1.SocketSample, stream *netlink.InetDiagTCPInfoResp) {
	if stream.InetDiagMsg == nil {
		return
	}
	switch stream.InetDiagMsg.State {
	case tcpEstablished:
		sample.TCPEstablished++
	case tcpListen:
		sample.TCPListening++
	default:
		sample.TCPOther++
	}
	if stream.TCPInfo != nil && stream.InetDiagMsg.State != tcpListen {
		sample.BytesAcknowledged += int64(stream.TCPInfo.Bytes_acked) // #nosec G115 -- 2^63 bytes do not pass a socket
		sample.BytesReceived += int64(stream.TCPInfo.Bytes_received)  // #nosec G115 -- 2^63 bytes do not pass a socket
	}
}
