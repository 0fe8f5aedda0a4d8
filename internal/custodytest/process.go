package custodytest

import (
	"bytes"
	"net/http"
	"os/exec"
	"testing"
	"time"
)

const startTimeout = time.Minute

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
