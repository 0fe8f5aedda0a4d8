package servers

import (
	"crypto/x509"
	"net/url"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/root"
)

func TestTrustedRootNamesTheLogAndTheAuthority(t *testing.T) {
	rekor, err := generateRekorSigner()
	if err != nil {
		t.Fatal(err)
	}
	tsa, err := generateTSASigner()
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := trustedRootJSON(rekor[rekorSigner], tsa[tsaChain])
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := root.NewTrustedRootFromJSON(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if len(trusted.RekorLogs()) != 1 || len(trusted.TimestampingAuthorities()) != 1 {
		t.Fatalf("%d logs and %d authorities", len(trusted.RekorLogs()), len(trusted.TimestampingAuthorities()))
	}
	for _, log := range trusted.RekorLogs() {
		base, err := url.Parse(log.BaseURL)
		if err != nil {
			t.Fatal(err)
		}
		if base.Hostname() != rekorHost {
			t.Errorf("the log's host is %s", base.Hostname())
		}
	}
}

func TestTimestampChainIsForTimestampsAlone(t *testing.T) {
	made, err := generateTSASigner()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := parseChain(made[tsaChain])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(chain[len(chain)-1])
	for usage, allowed := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageTimeStamping: true, x509.ExtKeyUsageServerAuth: false} {
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
		if (err == nil) != allowed {
			t.Errorf("usage %d: %v", usage, err)
		}
	}
}

func TestChainRefusesWhatIsNotAChain(t *testing.T) {
	made, err := generateTSASigner()
	if err != nil {
		t.Fatal(err)
	}
	half := made[tsaChain][:len(made[tsaChain])/2]
	for name, data := range map[string][]byte{"empty": nil, "no PEM": []byte("chain"), "cut off": half} {
		if chain, err := parseChain(data); err == nil {
			t.Errorf("%s: got %d certificates", name, len(chain))
		}
	}
}
