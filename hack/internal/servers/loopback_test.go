package servers

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"

	"ugallu.io/forensics/internal/testneeds"
)

// start runs the server whose binary an environment variable names, with a folder of its own, until the test ends.
func start(t *testing.T, variable string, environment []string, arguments func(address, folder string) []string) string {
	t.Helper()
	address, _ := startIn(t, variable, t.TempDir(), environment, arguments)
	return address
}

// startIn also returns the function that ends the server before the test does.
func startIn(
	t *testing.T, variable, folder string, environment []string, arguments func(address, folder string) []string,
) (string, func()) {
	t.Helper()
	binary, address := testneeds.Binary(t, variable), testneeds.FreeAddress(t)
	var log bytes.Buffer
	command := exec.Command(binary, arguments(address, folder)...) // #nosec G204 -- the test's own server
	command.Env = append(os.Environ(), environment...)
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if ended {
			return
		}
		ended = true
		if err := command.Process.Kill(); err != nil {
			t.Errorf("end %s: %v", binary, err)
		}
		_ = command.Wait() // reports the kill
		if t.Failed() {
			t.Logf("%s:\n%s", binary, log.String())
		}
	}
	t.Cleanup(end)
	return address, end
}

// eventually repeats what needs a server that is still starting.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
