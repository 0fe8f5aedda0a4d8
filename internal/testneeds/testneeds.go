package testneeds

import (
	"net"
	"os"
	"testing"
)

// That skips the test for a reason if what it needs is not there, or fails it if REQUIRE_ALL=1, which CI sets.
func That(tb testing.TB, there bool, reason string) {
	tb.Helper()
	switch {
	case there:
	case os.Getenv("REQUIRE_ALL") == "1":
		tb.Fatal(reason)
	default:
		tb.Skip(reason)
	}
}

// Binary is the path of the server that an environment variable names. The test needs it, as That has it.
func Binary(tb testing.TB, variable string) string {
	tb.Helper()
	path := os.Getenv(variable)
	That(tb, path != "", variable+" names no server")
	return path
}

// FreeAddress is 127.0.0.1 with a port that nobody listens on. Another process can take it before it is used.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	return net.JoinHostPort("127.0.0.1", FreePort(tb))
}

// FreePort of 127.0.0.1. Another process can take it before it is used.
func FreePort(tb testing.TB) string {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		tb.Fatal(err)
	}
	return port
}
