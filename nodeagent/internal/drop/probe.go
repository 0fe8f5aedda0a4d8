package drop

import (
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/bpf"
)

const (
	// probeLooks at the counter, a millisecond apart: what the node sends to a device passes the hook before the call
	// returns, unless the node has to ask for the pod's hardware address first and a running pod answers.
	probeLooks = 20
	// probePort is that of the discard service. Nothing ever arrives there.
	probePort = 9
)

// probe sends a datagram from the node to the pod over one device and demands that the hook counts a packet. It returns
// nil when no packet can be sent, as over a device that is down or has no address: then the kernel's word stands alone.
// It runs on a thread in the node's network namespace.
func (p *pins) probe(at point, device device) (*metav1.MicroTime, error) {
	before, err := p.packets(at.key)
	if err != nil {
		return nil, fmt.Errorf("read the counter of hook %s: %w", at.id(), err)
	}
	if err := sendTo(device); err != nil {
		return nil, nil //nolint:nilerr // nothing was sent, so nothing can be counted
	}
	for range probeLooks {
		now, err := p.packets(at.key)
		if err != nil {
			return nil, fmt.Errorf("read the counter of hook %s: %w", at.id(), err)
		}
		if now > before {
			counted := metav1.NowMicro()
			return &counted, nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil, fmt.Errorf("hook %s: %w", at.id(), errNotCounted)
}

var errNotCounted = errors.New("a packet that was sent to the pod was not counted")

func (p *pins) packets(key bpf.DropCounterKey) (uint64, error) {
	var counter bpf.DropCounter
	err := p.counters().Lookup(key, &counter)
	return counter.Packets, err
}

var errNoAddress = errors.New("the device has no address")

// sendTo sends one datagram to the pod's address on a device, over no other device than that.
func sendTo(device device) error {
	family := unix.AF_INET6
	var to unix.Sockaddr
	switch address := device.inside.address; {
	case address == nil:
		return errNoAddress
	case address.To4() != nil:
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: probePort, Addr: [4]byte(address.To4())}
	default:
		to = &unix.SockaddrInet6{Port: probePort, Addr: [16]byte(address.To16()), ZoneId: uint32(device.ifindex)} // #nosec G115 -- positive and 32 bits wide
	}
	socket, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.BindToDevice(socket, device.name)
	if err == nil {
		err = unix.Sendto(socket, []byte("probe"), 0, to)
	}
	return errors.Join(err, unix.Close(socket))
}

// firstAddress prefers IPv4: a link-local address alone does for IPv6.
func firstAddress(addresses []net.IP) net.IP {
	for _, address := range addresses {
		if address.To4() != nil {
			return address
		}
	}
	if len(addresses) > 0 {
		return addresses[0]
	}
	return nil
}
