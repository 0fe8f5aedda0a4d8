package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// line is one message of a sender; the size is small enough for one packet.
const line = "one message of an established stream, counted at the receiver..\n"

// sink receives TCP and UDP on a port and appends `unix-nanoseconds protocol total-bytes` to a log at every arrival.
func sink(port, path string) (err error) {
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) // #nosec G304 -- the test names its own file
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	counter := &counter{log: log, totals: map[string]int{}}
	var config net.ListenConfig
	packets, err := config.ListenPacket(context.Background(), "udp", ":"+port)
	if err != nil {
		return fmt.Errorf("listen on udp port %s: %w", port, err)
	}
	listener, err := config.Listen(context.Background(), "tcp", ":"+port)
	if err != nil {
		return fmt.Errorf("listen on tcp port %s: %w", port, err)
	}
	failed := make(chan error)
	go func() { failed <- receivePackets(packets, counter) }()
	go func() { failed <- acceptStreams(listener, counter) }()
	return <-failed
}

// counter owns the log; one line at a time is written.
type counter struct {
	mutex  sync.Mutex
	log    *os.File
	totals map[string]int
}

func (c *counter) add(protocol string, bytes int) error {
	now := time.Now()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.totals[protocol] += bytes
	if _, err := fmt.Fprintf(c.log, "%d %s %d\n", now.UnixNano(), protocol, c.totals[protocol]); err != nil {
		return fmt.Errorf("log an arrival: %w", err)
	}
	return nil
}

func receivePackets(packets net.PacketConn, counter *counter) error {
	buffer := make([]byte, 64<<10)
	for {
		size, _, err := packets.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("receive a packet: %w", err)
		}
		if err := counter.add("udp", size); err != nil {
			return err
		}
	}
}

func acceptStreams(listener net.Listener, counter *counter) error {
	for {
		stream, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept a stream: %w", err)
		}
		go receiveStream(stream, counter)
	}
}

// receiveStream ends with its stream: a peer that goes away is no error of the sink.
func receiveStream(stream net.Conn, counter *counter) {
	buffer := make([]byte, 64<<10)
	for {
		size, err := stream.Read(buffer)
		if size > 0 {
			err = errors.Join(err, counter.add("tcp", size))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "stream ended:", errors.Join(err, stream.Close()))
			return
		}
	}
}

// send opens one flow and writes a line every millisecond until the flow breaks. It tries to open for 20 s.
func send(network, address string) error {
	var flow net.Conn
	var err error
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if flow, err = open(network, address); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return err
		}
	}
	for {
		// A UDP sender hears of a closed port or a full queue; the flow goes on.
		if _, err := flow.Write([]byte(line)); err != nil && network != "udp" {
			return errors.Join(fmt.Errorf("send to %s: %w", address, err), flow.Close())
		}
		time.Sleep(time.Millisecond)
	}
}

func dial(address string) error {
	flow, err := open("tcp", address)
	if err != nil {
		return err
	}
	return flow.Close()
}

func open(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	flow, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("open a %s flow to %s: %w", network, address, err)
	}
	return flow, nil
}
