package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pace is the pause after a message of every sender but flood.
	pace = time.Millisecond
	// again is the pause before a flow that could not be opened, or broke, is opened anew.
	again = 5 * time.Millisecond
	// floodBlock is what flood writes at a time.
	floodBlock = 64 << 10
)

// target is where a sender sends, as whom, and through which device if that matters.
type target struct{ address, tag, device string }

// flow sends one message at a call.
type flow interface {
	Write(content []byte) (int, error)
	Close() error
}

// kind of sender.
type kind struct {
	open    func(to target) (flow, error)
	content func(tag string) []byte
	pause   time.Duration
	// breaks: after an error of a write the flow is of no use.
	breaks bool
}

func kinds() map[string]kind {
	udp := kind{open: stream("udp"), content: message, pause: pace}
	tcp := kind{open: stream("tcp"), content: message, pause: pace, breaks: true}
	flood, mptcp, sctp := tcp, tcp, tcp
	flood.pause, flood.content = 0, func(tag string) []byte { return bytes.Repeat(message(tag), floodBlock/messageSize) }
	mptcp.open = stream("mptcp")
	sctp.open = openSCTP
	return map[string]kind{
		"tcp": tcp, "flood": flood, "mptcp": mptcp, "sctp": sctp, "udp": udp,
		"icmp":   {open: openEcho(unix.SOCK_RAW), content: echoRequest, pause: pace},
		"ping":   {open: openEcho(unix.SOCK_DGRAM), content: echoRequest, pause: pace},
		"raw":    {open: openRaw, content: message, pause: pace},
		"packet": {open: openPacket(false), content: message, pause: pace},
		"bypass": {open: openPacket(true), content: message, pause: pace},
	}
}

// send opens a flow and sends until the lifetime is over, and opens it again whenever it breaks, as an attacker would.
func send(name string, to target) error {
	sender, known := kinds()[name]
	if !known || !isTag(to.tag) {
		return fmt.Errorf("which sender, and as whom? %s %s; senders are %s", name, to.tag,
			strings.Join(slices.Sorted(maps.Keys(kinds())), " "))
	}
	end := time.Now().Add(lifetime)
	told := ""
	for time.Now().Before(end) {
		err := sender.run(to, end)
		// One line for each new reason: a sender that is cut off fails a thousand times a second.
		if err != nil && err.Error() != told {
			told = err.Error()
			fmt.Fprintln(os.Stderr, "probe:", to.tag+":", told)
		}
		time.Sleep(again)
	}
	return nil
}

func (k kind) run(to target, end time.Time) error {
	flow, err := k.open(to)
	if err != nil {
		return err
	}
	return errors.Join(k.pour(flow, k.content(to.tag), end), flow.Close())
}

func (k kind) pour(flow flow, content []byte, end time.Time) error {
	for time.Now().Before(end) {
		// A sender of packets hears of closed ports, full queues and refusals; it goes on.
		if _, err := flow.Write(content); err != nil && k.breaks {
			return fmt.Errorf("send: %w", err)
		}
		time.Sleep(k.pause)
	}
	return nil
}

func stream(network string) func(target) (flow, error) {
	return func(to target) (flow, error) {
		flow, err := open(network, to)
		if err != nil {
			return nil, err
		}
		return flow, nil
	}
}

func dial(address string) error {
	flow, err := open("tcp", target{address: address})
	if err != nil {
		return err
	}
	return flow.Close()
}

func open(network string, to target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	dialer := new(net.Dialer)
	dialer.SetMultipathTCP(network == "mptcp")
	if to.device != "" {
		dialer.Control = func(_, _ string, connection syscall.RawConn) error {
			var bindErr error
			err := connection.Control(func(socket uintptr) { bindErr = unix.BindToDevice(int(socket), to.device) })
			return errors.Join(err, bindErr)
		}
	}
	flow, err := dialer.DialContext(ctx, strings.TrimPrefix(network, "mp"), to.address)
	if err != nil {
		return nil, fmt.Errorf("open a %s flow to %s: %w", network, to.address, err)
	}
	return flow, nil
}

// socket is a descriptor with the address that it sends to; with none it is connected.
type socket struct {
	descriptor int
	to         unix.Sockaddr
}

// Write sends one packet.
func (s socket) Write(content []byte) (int, error) {
	if s.to == nil {
		return unix.Write(s.descriptor, content)
	}
	return len(content), unix.Sendto(s.descriptor, content, 0, s.to)
}

// Close closes the descriptor.
func (s socket) Close() error { return unix.Close(s.descriptor) }

// openSCTP opens a stream of one association.
func openSCTP(to target) (flow, error) {
	address, err := net.ResolveTCPAddr("tcp4", to.address)
	if err != nil {
		return nil, fmt.Errorf("read address %s: %w", to.address, err)
	}
	made, err := newSocket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(made.descriptor, &unix.SockaddrInet4{Port: address.Port, Addr: [4]byte(address.IP.To4())}); err != nil {
		return nil, errors.Join(fmt.Errorf("connect by SCTP to %s: %w", to.address, err), made.Close())
	}
	return made, nil
}

// openEcho makes a socket for echo requests: a raw one, or one of the kind that needs no privilege.
func openEcho(kind int) func(target) (flow, error) {
	return func(to target) (flow, error) {
		version, address, err := versionFor(hostOf(to.address))
		if err != nil {
			return nil, err
		}
		made, err := newSocket(version.family, kind, version.protocol)
		if err != nil {
			return nil, err
		}
		made.to = address
		return echoing{made, version}, nil
	}
}

func echoRequest(tag string) []byte { return []byte(tag) }

// echoing sends echo requests; what is written to it is the tag.
type echoing struct {
	socket
	version echoes
}

// Write sends one request.
func (e echoing) Write(tag []byte) (int, error) { return e.socket.Write(e.version.packet(string(tag))) }

// openRaw makes a socket of our own IP protocol.
func openRaw(to target) (flow, error) {
	version, address, err := versionFor(hostOf(to.address))
	if err != nil {
		return nil, err
	}
	made, err := newSocket(version.family, unix.SOCK_RAW, ownProtocol)
	if err != nil {
		return nil, err
	}
	made.to = address
	return made, nil
}

func newSocket(family, kind, protocol int) (socket, error) {
	descriptor, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return socket{}, fmt.Errorf("make a socket of family %d, type %d, protocol %d: %w", family, kind, protocol, err)
	}
	return socket{descriptor: descriptor}, nil
}

// hostOf is the host of an address with or without a port.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
