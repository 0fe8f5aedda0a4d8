package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// serve answers every connection to a port with an empty HTTP answer: healthy.
func serve(port string) error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", ":"+port)
	if err != nil {
		return fmt.Errorf("listen on port %s: %w", port, err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		_, err = client.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
		if err = errors.Join(err, client.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "answer:", err)
		}
	}
}

// strike kills a process as soon as a file matches a pattern, and prints when, in Unix nanoseconds. It looks without a
// pause, for up to a minute: what it waits for may be done within a millisecond.
func strike(pattern, process string) error {
	victim, err := strconv.Atoi(process)
	if err != nil || victim < 2 {
		return fmt.Errorf("which process? %s", process)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("match %s: %w", pattern, err)
		}
		if len(found) == 0 {
			continue
		}
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %d: %w", victim, err)
		}
		fmt.Println(time.Now().UnixNano())
		return nil
	}
	return fmt.Errorf("nothing matched %s", pattern)
}
