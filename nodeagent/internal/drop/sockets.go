package drop

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// States of a TCP socket, as the kernel numbers them.
const (
	tcpEstablished = 1
	tcpListen      = 10
)

// Sockets counts the sockets in the processes' network namespaces, and what their peers acknowledged and sent so far. The
// sockets of processes in the node's own namespace cannot be told from the node's: without another namespace the sample is
// nil.
func (d *Dropper) Sockets(processes []int) (sample *v1alpha1.SocketSample, err error) {
	pod, err := openNamespaces(processes)
	if err != nil {
		return nil, fmt.Errorf("open the pod's network namespaces: %w", err)
	}
	defer func() { err = errors.Join(err, pod.close()) }()
	var node unix.Stat_t
	if err := unix.Stat(d.nodeNetns, &node); err != nil {
		return nil, fmt.Errorf("look at the node's network namespace: %w", err)
	}
	for inode, namespace := range pod {
		if inode == node.Ino {
			continue
		}
		if sample == nil {
			sample = &v1alpha1.SocketSample{At: metav1.NewMicroTime(time.Now())}
		}
		if err := addSockets(sample, namespace); err != nil {
			return nil, fmt.Errorf("list the sockets of network namespace %d: %w", inode, err)
		}
	}
	return sample, nil
}

func addSockets(sample *v1alpha1.SocketSample, namespace *os.File) error {
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
		sample.UDP += int32(min(len(datagrams), 1<<20)) // #nosec G115 -- bounded here
	}
	return nil
}

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
