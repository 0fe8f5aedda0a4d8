package rootstest

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Public fails the test, which does nothing else, unless its program knows public authorities where the system has none.
// To tell, the test runs itself there.
func Public(t *testing.T) {
	t.Helper()
	const child = "FORENSICS_COUNT_ROOTS"
	if os.Getenv(child) != "" {
		roots, err := x509.SystemCertPool()
		fmt.Println("none:", roots.Equal(x509.NewCertPool()), err)
		return
	}
	self := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	self.Env = append(os.Environ(), child+"=1", "SSL_CERT_FILE=/nonexistent", "SSL_CERT_DIR=/nonexistent")
	output, err := self.Output()
	if want := "none: false <nil>\nPASS\n"; err != nil || string(output) != want {
		t.Errorf("%q (%v), want %q", output, err, want)
	}
}
