package servers

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/url"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/root"
)

func madeKeys(t *testing.T) keys {
	t.Helper()
	var made keys
	var errs [3]error
	made.rekor, errs[0] = generateRekorSigner()
	made.tsa, errs[1] = generateTSASigner()
	made.fulcio, errs[2] = generateFulcioCA()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return made
}

func TestTrustedRootNamesTheLogAndTheAuthorities(t *testing.T) {
	made := madeKeys(t)
	encoded, err := trustedRootJSON(made)
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
	if len(trusted.FulcioCertificateAuthorities()) != 1 {
		t.Fatalf("%d certificate authorities", len(trusted.FulcioCertificateAuthorities()))
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
	chain, err := parseChain(made[authorityChain])
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
	half := made[authorityChain][:len(made[authorityChain])/2]
	for name, data := range map[string][]byte{"empty": nil, "no PEM": []byte("chain"), "cut off": half} {
		if chain, err := parseChain(data); err == nil {
			t.Errorf("%s: got %d certificates", name, len(chain))
		}
	}
}

func TestFulcioCertifiesCodeSigningAlone(t *testing.T) {
	made := madeKeys(t)
	chain, err := parseChain(made.fulcio[authorityChain])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(chain[len(chain)-1])
	for usage, allowed := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageCodeSigning: true, x509.ExtKeyUsageServerAuth: false} {
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
		if (err == nil) != allowed {
			t.Errorf("usage %d: %v", usage, err)
		}
	}
	if !chain[0].IsCA || !chain[0].MaxPathLenZero {
		t.Error("the authority may certify authorities, or nobody")
	}
}

func TestIdentityIsTheAttestorsServiceAccount(t *testing.T) {
	var parsed struct{ Identity, Issuer string }
	if err := json.Unmarshal([]byte(identity), &parsed); err != nil {
		t.Fatal(err)
	}
	want := struct{ Identity, Issuer string }{
		"https://kubernetes.io/namespaces/ugallu-system/serviceaccounts/ugallu-attestor",
		"https://kubernetes.default.svc.cluster.local",
	}
	if parsed != want {
		t.Errorf("got %+v", parsed)
	}
}
