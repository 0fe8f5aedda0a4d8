package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// ownProtocol is an IP protocol number that is set aside for experiments (RFC 3692).
const ownProtocol = 253

// echoHeader is the length of the header of an echo in both versions.
const echoHeader = 8

// echoes are the numbers of one version of ICMP.
type echoes struct {
	family, protocol int
	request, reply   byte
	// headed: a raw socket yields the IP header, and the sender makes the checksum.
	headed bool
}

// The two versions of ICMP.
var (
	echo4 = echoes{family: unix.AF_INET, protocol: unix.IPPROTO_ICMP, request: 8, reply: 0, headed: true}
	echo6 = echoes{family: unix.AF_INET6, protocol: unix.IPPROTO_ICMPV6, request: 128, reply: 129}
)

// requestIn and replyIn return the content of an echo that a raw socket yields, nothing for any other packet.
func (e echoes) requestIn(packet []byte) []byte { return e.contentIn(packet, e.request) }
func (e echoes) replyIn(packet []byte) []byte   { return e.contentIn(packet, e.reply) }

func (e echoes) contentIn(packet []byte, kind byte) []byte {
	if e.headed {
		packet = afterIPv4(packet)
	}
	if len(packet) < echoHeader || packet[0] != kind {
		return nil
	}
	return packet[echoHeader:]
}

// afterIPv4 cuts the IP header off; what is shorter than it says is nothing.
func afterIPv4(packet []byte) []byte {
	if len(packet) == 0 {
		return nil
	}
	length := int(packet[0]&0x0f) * 4
	return packet[min(length, len(packet)):]
}

// packet is an echo request with a message in it.
func (e echoes) packet(tag string) []byte {
	packet := append([]byte{e.request, 0, 0, 0, 0x70, 0x72, 0, 1}, message(tag)...)
	if e.headed {
		binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	}
	return packet
}

// checksum is that of the internet protocols, over an even number of bytes.
func checksum(content []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(content); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(content[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum) // #nosec G115 -- folded above
}

// versionFor picks the version of ICMP, and the socket address of a host.
func versionFor(host string) (echoes, unix.Sockaddr, error) {
	address, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return echoes{}, nil, fmt.Errorf("read address %s: %w", host, err)
	}
	if four := address.IP.To4(); four != nil {
		return echo4, &unix.SockaddrInet4{Addr: [4]byte(four)}, nil
	}
	zone := uint32(0)
	if address.Zone != "" {
		device, err := net.InterfaceByName(address.Zone)
		if err != nil {
			return echoes{}, nil, fmt.Errorf("find device %s: %w", address.Zone, err)
		}
		zone = uint32(device.Index) // #nosec G115 -- the kernel's ifindex is positive
	}
	return echo6, &unix.SockaddrInet6{Addr: [16]byte(address.IP.To16()), ZoneId: zone}, nil
}

// ping sends an echo request a millisecond through a device and logs the replies under the tag reply. The kernel of the
// other side answers them, whatever its processes do.
func ping(host, device, path string) error {
	version, address, err := versionFor(host)
	if err != nil {
		return err
	}
	socket, err := unix.Socket(version.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, version.protocol)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	err = errors.Join(unix.BindToDevice(socket, device), unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
	if err != nil {
		return fmt.Errorf("bind to device %s: %w", device, err)
	}
	counter, err := newCounter(path)
	if err != nil {
		return err
	}
	failed := make(chan error)
	go func() { failed <- source{socket, version.replyIn}.receive(counter) }()
	go func() {
		request := version.packet("reply")
		for {
			// No route and no neighbour yet is what the start looks like.
			_ = unix.Sendto(socket, request, 0, address)
			time.Sleep(pace)
		}
	}()
	return counter.run(lifetime, failed)
}
