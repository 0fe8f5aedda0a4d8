package verify_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
)

// TestEveryByteOfTheLastBundleCounts: no record has its digest, so that its signatures must cover it. The one place where
// they do not is the envelope of the time stamp, which says nothing.
func TestEveryByteOfTheLastBundleCounts(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	trust := authority.Trust()
	version := incident.Newest(evidence.CustodyBundleKey(incident.Released))
	whole := version.Data
	stamp := stampOf(t, whole)
	for n := range whole {
		version.Data = slices.Clone(whole)
		version.Data[n] ^= 1
		if _, err := trust.Verify(version.Data); err != nil {
			continue
		}
		inside := bytes.Index(whole, stamp)
		if n >= inside && n < inside+len(stamp) {
			continue
		}
		if report := check(t, incident, trust, incident.Released); report.Verdict() != verify.Refused {
			t.Errorf("byte %d of %q does not count", n, whole[max(0, n-30):min(len(whole), n+10)])
		}
	}
}

func stampOf(t *testing.T, bundle []byte) []byte {
	t.Helper()
	var parsed struct {
		VerificationMaterial struct {
			TimestampVerificationData struct {
				Rfc3161Timestamps []struct{ SignedTimestamp string } `json:"rfc3161Timestamps"`
			} `json:"timestampVerificationData"`
		} `json:"verificationMaterial"`
	}
	if err := json.Unmarshal(bundle, &parsed); err != nil {
		t.Fatal(err)
	}
	return []byte(parsed.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps[0].SignedTimestamp)
}
