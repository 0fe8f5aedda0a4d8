package verify_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
)

// TestAnyByteOfAnyObjectCounts changes the first, the middle and the last byte of everything that a record covers.
func TestAnyByteOfAnyObjectCounts(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	trust := authority.Trust()
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	keys, err := incident.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		version := incident.Newest(key)
		whole := version.Data
		for _, n := range []int{0, len(whole) / 2, len(whole) - 1} {
			version.Data = slices.Clone(whole)
			version.Data[n] ^= 1
			report, err := verify.Incident(t.Context(), incident, trust, verify.Target{Key: incident.Released})
			switch {
			case err != nil && key != incident.Released: // which is no JSON any more
				t.Errorf("byte %d of %s: %v", n, key, err)
			case err == nil && report.Verdict() != verify.Refused:
				// The envelope of a time stamp says nothing; TestEveryByteOfTheLastBundleCounts goes through them all.
				if key != evidence.CustodyBundleKey(incident.Released) {
					t.Errorf("byte %d of %s does not count", n, key)
				}
			}
		}
		version.Data = whole
	}
}

// TestANewerVersionTakesNobodysPlace: the record names versions, and a plain put makes another one.
func TestANewerVersionTakesNobodysPlace(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	for _, key := range []string{incident.Key("rootfs.tar.zst/1"), incident.ManifestKey, incident.Captured, keyOfBundle(v1alpha1.StepFreeze)(incident)} {
		incident.Put(key, []byte("newer"), incident.Newest(key).Object.Lock)
	}
	if report := check(t, incident, authority.Trust(), incident.Released); report.Verdict() != verify.Verified {
		t.Error(table(t, report))
	}
}

// TestAStepOfAnotherIncidentIsRefused: listed on record, in its place, and signed by whom everybody trusts.
func TestAStepOfAnotherIncidentIsRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	other := verifytest.NewIncidentOf(t, authority, "another", verifytest.Change{})
	var theirs evidence.Custody
	if err := json.Unmarshal(other.Newest(other.Released).Data, &theirs); err != nil {
		t.Fatal(err)
	}
	step := theirs.Statements[1]
	incident := verifytest.NewIncident(t, authority, verifytest.Change{Record: func(c *evidence.Custody) { c.Statements[1] = step }})
	incident.Put(step.Bundle.Key, other.Newest(step.Bundle.Key).Data, other.Newest(step.Bundle.Key).Object.Lock)
	incident.Newest(step.Bundle.Key).Object.VersionID = step.Bundle.VersionID
	report := check(t, incident, authority.Trust(), incident.Released)
	demand(t, report, verify.LinkFacts, verify.CheckSameIncident)
	if !strings.Contains(table(t, report), step.Subject.Name+" is a step of incident "+other.Name) {
		t.Error(table(t, report))
	}
}
