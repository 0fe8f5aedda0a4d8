package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Lengths of the headers that a frame begins with.
const (
	ethernetHeader = 14
	ipv4Header     = 20
	udpHeader      = 8
)

// resolveWithin bounds the wait for the neighbour's hardware address.
const resolveWithin = 2 * time.Second

// framer sends UDP packets that no UDP socket of this machine knows of: it makes the whole frame itself.
type framer struct {
	socket
	head []byte
}

// Write sends one frame.
func (f framer) Write(content []byte) (int, error) {
	return f.socket.Write(append(f.head[:len(f.head):len(f.head)], content...))
}

// openPacket makes a packet socket; with bypass its frames go to the device past the queueing discipline.
func openPacket(bypass bool) func(target) (flow, error) {
	return func(to target) (flow, error) {
		way, err := wayTo(to.address)
		if err != nil {
			return nil, err
		}
		// Protocol 0: the socket receives nothing.
		made, err := newSocket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return nil, err
		}
		if bypass {
			if err := unix.SetsockoptInt(made.descriptor, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
				return nil, errors.Join(fmt.Errorf("bypass the queueing discipline: %w", err), made.Close())
			}
		}
		made.to = &unix.SockaddrLinklayer{Ifindex: way.device.Index, Halen: 6, Addr: [8]byte(append(way.hop[:6:6], 0, 0))}
		return framer{made, way.head(messageSize)}, nil
	}
}

// way of a packet to its destination.
type way struct {
	device   *net.Interface
	hop      net.HardwareAddr
	from, to netip.AddrPort
}

// wayTo sends one packet without a tag, so that the kernel finds the next hop's hardware address, and reads where it went.
func wayTo(address string) (way, error) {
	flow, err := open("udp4", target{address: address})
	if err != nil {
		return way{}, err
	}
	if _, err := flow.Write([]byte("resolve")); err != nil {
		return way{}, errors.Join(fmt.Errorf("send to %s: %w", address, err), flow.Close())
	}
	found, err := wayOf(flow)
	return found, errors.Join(err, flow.Close())
}

func wayOf(flow net.Conn) (found way, err error) {
	from, fromErr := netip.ParseAddrPort(flow.LocalAddr().String())
	to, toErr := netip.ParseAddrPort(flow.RemoteAddr().String())
	if err := errors.Join(fromErr, toErr); err != nil {
		return way{}, fmt.Errorf("read the addresses of a flow: %w", err)
	}
	name, next, err := routeTo(to.Addr())
	if err != nil {
		return way{}, err
	}
	found = way{from: from, to: to}
	if found.device, err = net.InterfaceByName(name); err != nil {
		return way{}, fmt.Errorf("find device %s: %w", name, err)
	}
	for end := time.Now().Add(resolveWithin); ; time.Sleep(again) {
		found.hop, err = neighbour(next, name)
		if err == nil || time.Now().After(end) {
			return found, err
		}
	}
}

// head is everything before a message of a given size. A UDP checksum of 0 means that there is none.
func (w way) head(size int) []byte {
	head := make([]byte, 0, ethernetHeader+ipv4Header+udpHeader+size)
	head = append(head, w.hop...)
	head = append(head, w.device.HardwareAddr...)
	head = binary.BigEndian.AppendUint16(head, unix.ETH_P_IP)
	head = append(head, 0x45, 0)
	head = binary.BigEndian.AppendUint16(head, uint16(ipv4Header+udpHeader+size)) // #nosec G115 -- a small message
	head = append(head, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	head = append(head, w.from.Addr().AsSlice()...)
	head = append(head, w.to.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(head[ethernetHeader+10:], checksum(head[ethernetHeader:]))
	head = binary.BigEndian.AppendUint16(head, w.from.Port())
	head = binary.BigEndian.AppendUint16(head, w.to.Port())
	head = binary.BigEndian.AppendUint16(head, uint16(udpHeader+size)) // #nosec G115 -- a small message
	return append(head, 0, 0)
}

// routeTo reads from the main routing table through which device, and to which neighbour, a packet goes next.
func routeTo(address netip.Addr) (device string, next netip.Addr, err error) {
	longest := -1
	err = eachLine("/proc/net/route", func(fields []string) {
		if len(fields) < 8 {
			return
		}
		network, gateway, mask := littleEndian(fields[1]), littleEndian(fields[2]), littleEndian(fields[7])
		bits, _ := net.IPMask(mask.AsSlice()).Size()
		prefix, err := address.Prefix(bits)
		if err != nil || prefix.Addr() != network || bits <= longest {
			return
		}
		longest, device, next = bits, fields[0], address
		if !gateway.IsUnspecified() {
			next = gateway
		}
	})
	if err == nil && longest < 0 {
		err = fmt.Errorf("no route leads to %s", address)
	}
	return device, next, err
}

// neighbour reads a hardware address from the kernel's table.
func neighbour(address netip.Addr, device string) (found net.HardwareAddr, err error) {
	err = eachLine("/proc/net/arp", func(fields []string) {
		if len(fields) >= 6 && fields[0] == address.String() && fields[5] == device && fields[2] != "0x0" {
			found, _ = net.ParseMAC(fields[3])
		}
	})
	if err == nil && found == nil {
		err = fmt.Errorf("the hardware address of %s on %s is not known", address, device)
	}
	return found, err
}

// eachLine calls line with the fields of each line after the first.
func eachLine(path string, line func(fields []string)) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	lines := bufio.NewScanner(file)
	lines.Scan()
	for lines.Scan() {
		line(strings.Fields(lines.Text()))
	}
	return lines.Err()
}

// littleEndian reads an address as /proc/net/route shows it; what is none reads as unspecified.
func littleEndian(text string) netip.Addr {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 4 {
		return netip.IPv4Unspecified()
	}
	return netip.AddrFrom4([4]byte{raw[3], raw[2], raw[1], raw[0]})
}
