package custodytest

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"
)

const startTimeout = time.Minute

// Binary is the path that an environment variable names. Without it the test is skipped, or fails if REQUIRE_ALL=1.
func Binary(t testing.TB, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		reason := variable + " names no server"
		if os.Getenv("REQUIRE_ALL") == "1" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	return path
}

// FreePort of 127.0.0.1. It can be taken before it is used, which fails the test.
func FreePort(t testing.TB) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}

// start runs a server until the test ends; its output is shown when the test has failed.
func start(t testing.TB, binary string, arguments ...string) {
	t.Helper()
	var output bytes.Buffer
	command := exec.Command(binary, arguments...) // #nosec G204 -- the test's own server
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may have ended by itself, which the output shows
		_ = command.Wait()         // reports the kill
		if t.Failed() {
			t.Logf("%s:\n%s", binary, output.String())
		}
	})
}

// awaitOK polls until the address answers 200.
func awaitOK(t testing.TB, url string) {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	for {
		response, err := http.Get(url) // #nosec G107 -- loopback
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v", url, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
