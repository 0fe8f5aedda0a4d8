package verify_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
)

func check(t *testing.T, source verify.Source, prover verify.Prover, key string) *verify.Report {
	t.Helper()
	report, err := verify.Incident(context.Background(), source, prover, verify.Target{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func table(t *testing.T, report *verify.Report) string {
	t.Helper()
	var text bytes.Buffer
	if err := report.Table(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestAWholeIncidentVerifies(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	for name, key := range map[string]string{
		"released": incident.Released, "captured": incident.Captured, "manifest": incident.ManifestKey,
	} {
		t.Run(name, func(t *testing.T) {
			report := check(t, incident, authority.Trust(), key)
			for _, check := range report.Checks {
				if check.Status != verify.Passed {
					t.Errorf("%+v", check)
				}
			}
			if report.Verdict() != verify.Verified || report.Incident.Name != incident.Name {
				t.Error(table(t, report))
			}
		})
	}
}

// mixed has one statement signed by the key, as after a change of the signing mode.
func mixed(name string) verifytest.Signature {
	if strings.HasSuffix(name, "podunfreeze") {
		return verifytest.Signature{Key: true}
	}
	return verifytest.Keyless()
}
