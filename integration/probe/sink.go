package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// lifetime bounds every process that sends or receives: what a test leaves behind ends by itself.
const lifetime = 10 * time.Minute

// sinkBacklog is how many streams may wait to be accepted.
const sinkBacklog = 128

// sink receives on a port, by TCP, UDP and SCTP if the kernel has it, and by raw sockets ICMP echoes and packets of
// our own IP protocol. It logs what arrives by sender, at the time at which the kernel took it from the device: under
// load a receiver may read a byte long after it arrived.
func sink(port, path string) error {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("read the port: %w", err)
	}
	packets, streams, err := sinkSockets(int(number))
	if err != nil {
		return err
	}
	counter, err := newCounter(path)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for _, source := range packets {
		go func() { failed <- source.receive(counter) }()
	}
	for _, listener := range streams {
		go func() { failed <- accept(listener, counter) }()
	}
	return counter.run(lifetime, failed)
}

// source is a socket that yields packets, and how to get from what it yields to the message.
type source struct {
	socket int
	strip  func([]byte) []byte
}

func sinkSockets(port int) (packets []source, streams []int, err error) {
	family := unix.AF_INET6
	whole := func(content []byte) []byte { return content }
	var errs []error
	keep := func(family, kind, protocol, port int, strip func([]byte) []byte) {
		socket, err := bound(family, kind, protocol, port)
		if err == nil && kind == unix.SOCK_STREAM {
			err = unix.Listen(socket, sinkBacklog)
			streams = append(streams, socket)
		} else if err == nil {
			packets = append(packets, source{socket, strip})
		}
		errs = append(errs, err)
	}
	if !supports(unix.AF_INET6, unix.SOCK_DGRAM, 0) {
		family = unix.AF_INET
	} else {
		keep(family, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, 0, echo6.requestIn)
	}
	keep(family, unix.SOCK_DGRAM, 0, port, whole)
	keep(family, unix.SOCK_STREAM, 0, port, nil)
	keep(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, 0, echo4.requestIn)
	keep(unix.AF_INET, unix.SOCK_RAW, ownProtocol, 0, afterIPv4)
	if supports(family, unix.SOCK_STREAM, unix.IPPROTO_SCTP) {
		keep(family, unix.SOCK_STREAM, unix.IPPROTO_SCTP, port, nil)
	}
	return packets, streams, errors.Join(errs...)
}

// supports asks the kernel for a socket. Anything but the lack of the protocol shows when it is asked for again.
func supports(family, kind, protocol int) bool {
	socket, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return !errors.Is(err, unix.EPROTONOSUPPORT) && !errors.Is(err, unix.ESOCKTNOSUPPORT) && !errors.Is(err, unix.EAFNOSUPPORT)
	}
	return unix.Close(socket) == nil
}

// bound makes a socket that notes arrival times; one of IPv6 takes IPv4 as well.
func bound(family, kind, protocol, port int) (int, error) {
	socket, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return 0, fmt.Errorf("make a socket of family %d, type %d, protocol %d: %w", family, kind, protocol, err)
	}
	var address unix.Sockaddr = &unix.SockaddrInet4{Port: port}
	if family == unix.AF_INET6 {
		address = &unix.SockaddrInet6{Port: port}
		if kind != unix.SOCK_RAW {
			err = unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
		}
	}
	err = errors.Join(err,
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(socket, address))
	if err != nil {
		return 0, fmt.Errorf("bind a socket of family %d, type %d, protocol %d to port %d: %w", family, kind, protocol, port, err)
	}
	return socket, nil
}

// receive counts packets until the socket fails.
func (s source) receive(counter *counter) error {
	buffer, control := make([]byte, 64<<10), make([]byte, 256)
	for {
		size, at, err := read(s.socket, buffer, control)
		if err != nil {
			return fmt.Errorf("receive a packet: %w", err)
		}
		if tag, ok := tagOf(s.strip(buffer[:size])); ok {
			counter.add(tag, at, size)
		}
	}
}

func accept(listener int, counter *counter) error {
	for {
		stream, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return fmt.Errorf("accept a stream: %w", err)
		}
		go drain(stream, counter)
	}
}

// drain ends with its stream: a peer that goes away is no error of the sink.
func drain(stream int, counter *counter) {
	buffer, control := make([]byte, 256<<10), make([]byte, 256)
	var head []byte
	tag := ""
	for {
		size, at, err := read(stream, buffer, control)
		if err != nil || size == 0 {
			fmt.Fprintln(os.Stderr, "stream", tag, "ended:", errors.Join(err, unix.Close(stream)))
			return
		}
		if tag == "" {
			head = append(head, buffer[:size]...)
			if len(head) < messageSize {
				continue
			}
			if tag, _ = tagOf(head); tag == "" {
				tag = "untagged"
			}
			size = len(head)
		}
		counter.add(tag, at, size)
	}
}

// read returns what arrived and when: the time of its last packet, or now if the kernel does not tell.
func read(socket int, buffer, control []byte) (size int, at time.Time, err error) {
	for {
		size, told, _, _, err := unix.Recvmsg(socket, buffer, control, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return size, stampIn(control[:max(told, 0)]), err
	}
}

// stampIn finds the kernel's time of arrival in the control messages that came with a packet.
func stampIn(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Now()
	}
	for _, message := range messages {
		if message.Header.Level == unix.SOL_SOCKET && message.Header.Type == unix.SO_TIMESTAMPNS && len(message.Data) >= 16 {
			seconds, nanos := binary.NativeEndian.Uint64(message.Data), binary.NativeEndian.Uint64(message.Data[8:])
			return time.Unix(int64(seconds), int64(nanos)) // #nosec G115 -- times of this century
		}
	}
	return time.Now()
}
