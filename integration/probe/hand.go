package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// handed is the order of the sockets that give hands over and take gets.
func handed() []string { return []string{"tcp", "udp"} }

// give opens a stream and a UDP socket, hands both to the process that listens at path, and ends.
func give(path, address string) error {
	var files []*os.File
	var descriptors []int
	for _, network := range handed() {
		flow, err := open(network, target{address: address})
		if err != nil {
			return err
		}
		file, err := fileOf(flow)
		if err != nil {
			return fmt.Errorf("take the descriptor of a %s flow: %w", network, err)
		}
		files, descriptors = append(files, file), append(descriptors, int(file.Fd()))
	}
	taker, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("reach the taker: %w", err)
	}
	_, _, err = taker.WriteMsgUnix([]byte{0}, unix.UnixRights(descriptors...), nil)
	for _, file := range files {
		err = errors.Join(err, file.Close())
	}
	if err := errors.Join(err, taker.Close()); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	return nil
}

func fileOf(flow net.Conn) (*os.File, error) {
	switch flow := flow.(type) {
	case *net.TCPConn:
		return flow.File()
	case *net.UDPConn:
		return flow.File()
	}
	return nil, fmt.Errorf("a %T has no descriptor: %w", flow, errors.ErrUnsupported)
}

// take listens at path for what give hands over, and sends on it as handed-tcp and handed-udp.
func take(path string) error {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen at %s: %w", path, err)
	}
	giver, err := listener.AcceptUnix()
	if err != nil {
		return fmt.Errorf("accept the giver: %w", err)
	}
	data, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4*len(handed())))
	_, size, _, _, err := giver.ReadMsgUnix(data, control)
	if err != nil {
		return fmt.Errorf("read what is handed over: %w", err)
	}
	descriptors, err := rightsIn(control[:size])
	if err != nil {
		return err
	}
	if len(descriptors) != len(handed()) {
		return fmt.Errorf("%d sockets were handed over, want %d", len(descriptors), len(handed()))
	}
	ended := make(chan error)
	end := time.Now().Add(lifetime)
	for i, network := range handed() {
		if err := unix.SetNonblock(descriptors[i], false); err != nil {
			return fmt.Errorf("make a socket wait: %w", err)
		}
		go func() {
			ended <- kinds()[network].pour(socket{descriptor: descriptors[i]}, message("handed-"+network), end)
		}()
	}
	return errors.Join(<-ended, <-ended, giver.Close(), listener.Close())
}

func rightsIn(control []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("parse what is handed over: %w", err)
	}
	var found []int
	for _, message := range messages {
		rights, err := unix.ParseUnixRights(&message)
		if err != nil {
			return nil, fmt.Errorf("parse what is handed over: %w", err)
		}
		found = append(found, rights...)
	}
	return found, nil
}
