package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
	"ugallu.io/forensics/internal/worm"
)

// has is whether a report has a check of this status whose link and reason contain these words.
func has(report *verify.Report, status verify.Status, link, reason string) bool {
	return slices.ContainsFunc(report.Checks, func(c verify.Check) bool {
		return c.Status == status && strings.Contains(c.Link, link) && strings.Contains(c.Reason, reason)
	})
}

// TestAPutOverTheNewestRecordHidesAndVetoesNothing: a plain put makes a newer version, of which nobody's statement is. The
// record is signed and not to be had; named by its version it verifies.
func TestAPutOverTheNewestRecordHidesAndVetoesNothing(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	trust := authority.Trust()
	forged := func(t *testing.T, i *verifytest.Incident) []byte {
		var custody evidence.Custody
		if err := json.Unmarshal(i.Newest(i.Released).Data, &custody); err != nil {
			t.Fatal(err)
		}
		custody.Objects = custody.Objects[1:]
		data, err := evidence.Canonical(custody)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, content := range map[string]func(*testing.T, *verifytest.Incident) []byte{
		"nothing":        func(*testing.T, *verifytest.Incident) []byte { return nil },
		"a text":         func(*testing.T, *verifytest.Incident) []byte { return []byte("x") },
		"another record": forged,
	} {
		t.Run(name, func(t *testing.T) {
			incident := verifytest.NewIncident(t, authority, verifytest.Change{})
			whole := incident.Newest(incident.Released).Object.VersionID
			incident.Put(incident.Released, content(t, incident), incident.Newest(incident.Released).Object.Lock)
			for from, target := range targets(incident) {
				report := check(t, incident, trust, target)
				if from != "custody-2" {
					demandLost(t, report, incident.Released, "was put over the record")
					continue
				}
				demand(t, report, "custody-2", verify.CheckForm)
				if len(report.Checks) != 1 {
					t.Errorf("what nobody signed was walked:\n%s", table(t, report))
				}
			}
			report, err := verify.Incident(t.Context(), incident, trust, verify.Target{Key: incident.Released, VersionID: whole})
			if err != nil || report.Verdict() != verify.Verified || report.Records != 2 {
				t.Errorf("the older version: %v", err)
			}
			report, proofs, err := verify.File(t.Context(), incident, trust, verify.Target{Key: incident.Released}, verify.FileQuery{Path: "usr/bin/x"})
			if err != nil || len(proofs) != 0 || report.Verdict() != verify.Refused {
				t.Errorf("a file of it: %v, %v", proofs, err)
			}
		})
	}
}

// demandLost wants the first record to be checked whole, and the report to say that the second is signed and not to be had.
func demandLost(t *testing.T, report *verify.Report, released, reason string) {
	t.Helper()
	if report.Verdict() != verify.Incomplete || report.Records != 1 || !has(report, verify.Unread, released, reason) ||
		!has(report, verify.Passed, verify.LinkChain, "1 of 2") || !has(report, verify.NotChecked, verify.LinkChain, "a statement over a record 2 is there") ||
		!has(report, verify.Passed, verify.LinkManifest, "artifacts") {
		t.Errorf("verdict %s, record %d:\n%s", report.Verdict(), report.Records, table(t, report))
	}
}

// TestASignedRecordThatIsNotToBeHadIsUnread has the statement over record 2 without the record.
func TestASignedRecordThatIsNotToBeHadIsUnread(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	for _, target := range []func(*verifytest.Incident) string{captured, key("manifest-"), func(i *verifytest.Incident) string { return i.Prefix + "/" }} {
		incident := verifytest.NewIncident(t, authority, verifytest.Change{})
		demandLost(t, check(t, broken{incident, incident.Released}, authority.Trust(), target(incident)), incident.Released, errAway.Error())
		demandLost(t, check(t, torn{incident, incident.Released}, authority.Trust(), target(incident)), incident.Released, errAway.Error())
		incident.Delete(incident.Released)
		demandLost(t, check(t, incident, authority.Trust(), target(incident)), incident.Released, worm.ErrNotFound.Error())
	}
}

// TestALostFirstRecordIsNotMerelyUnsealed: somebody signed that it is there.
func TestALostFirstRecordIsNotMerelyUnsealed(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	incident.Delete(incident.Released)
	incident.Delete(evidence.CustodyBundleKey(incident.Released))
	incident.Put(incident.Captured, []byte("{}"), worm.Lock{})
	for _, target := range []string{incident.Prefix + "/", incident.ManifestKey} {
		report := check(t, incident, authority.Trust(), target)
		if report.Verdict() != verify.Incomplete || report.Records != 0 || !has(report, verify.Unread, incident.Captured, "was put over the record") {
			t.Error(table(t, report))
		}
	}
}

// TestWhatCanBePutAndNotReadVetoesNothing: encrypted with a key of its writer's, or in an archive.
func TestWhatCanBePutAndNotReadVetoesNothing(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	trust := authority.Trust()
	for _, number := range []int{evidence.CustodyCaptured, evidence.CustodyReleased} {
		incident := verifytest.NewIncident(t, authority, verifytest.Change{})
		key := evidence.CustodyKey(incident.Prefix, number, strings.Repeat("f", 64))
		lock := incident.Newest(incident.Released).Object.Lock
		incident.Put(key, nil, lock)
		incident.Put(evidence.CustodyBundleKey(key), nil, lock)
		source := broken{incident, evidence.CustodyBundleKey(key)}
		for from, target := range targets(incident) {
			report := check(t, source, trust, target)
			if report.Verdict() != verify.Verified || !has(report, verify.NotChecked, key, errAway.Error()) {
				t.Errorf("record %d from %s:\n%s", number, from, table(t, report))
			}
		}
		// Where no record of its number is proven it could be that record: everything else is checked all the same.
		incident.Delete(incident.Released)
		incident.Delete(evidence.CustodyBundleKey(incident.Released))
		if number == evidence.CustodyCaptured {
			continue
		}
		for from, target := range targets(incident) {
			if from == "custody-2" {
				continue
			}
			report := check(t, source, trust, target)
			if report.Verdict() != verify.Incomplete || report.Records != 1 || !has(report, verify.Unread, key, errAway.Error()) ||
				!has(report, verify.Passed, verify.LinkManifest, "artifacts") {
				t.Errorf("before the release, from %s:\n%s", from, table(t, report))
			}
		}
	}
}

func TestARecordThatCannotBeReadLeavesTheOneBefore(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	for _, key := range []string{incident.Released, evidence.CustodyBundleKey(incident.Released)} {
		for _, target := range []string{incident.Prefix + "/", incident.ManifestKey} {
			report := check(t, broken{incident, key}, authority.Trust(), target)
			if report.Verdict() != verify.Incomplete || report.Records != 1 || !has(report, verify.Unread, incident.Released, errAway.Error()) {
				t.Errorf("without %s from %s:\n%s", key, target, table(t, report))
			}
		}
	}
}

// crowded lists no more than three keys, and counts what is opened.
type crowded struct {
	*verifytest.Incident
	most   int
	opened map[string]int
}

func (c crowded) List(ctx context.Context, prefix string) ([]string, error) {
	keys, err := c.Incident.List(ctx, prefix)
	if len(keys) > c.most {
		return keys[:c.most], worm.ErrManyKeys
	}
	return keys, err
}

func (c crowded) Open(ctx context.Context, key, version string) (io.ReadCloser, error) {
	c.opened[key]++
	return c.Incident.Open(ctx, key, version)
}

func TestMoreKeysThanAreListedVetoNothing(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	for n := range 6 {
		incident.Put(fmt.Sprintf("%s/custody-!%d", incident.Prefix, n), nil, incident.Newest(incident.Released).Object.Lock)
	}
	for from, target := range targets(incident) {
		report := check(t, crowded{incident, 4, map[string]int{}}, authority.Trust(), target)
		if report.Verdict() != verify.Verified || !has(report, verify.NotChecked, "custody-…", "more objects than are listed") {
			t.Errorf("from %s:\n%s", from, table(t, report))
		}
	}
}

func TestCandidatesAreBoundedAndReadOnce(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	for n := range 1100 {
		incident.Put(evidence.CustodyKey(incident.Prefix, evidence.CustodyReleased, fmt.Sprintf("%064x", n)), nil, worm.Lock{})
		incident.Put(evidence.CustodyKey(incident.Prefix, evidence.CustodyReleased, "ffff"+fmt.Sprintf("%060x", n)), nil, worm.Lock{})
	}
	for from, target := range targets(incident) {
		source := crowded{incident, 10_000, map[string]int{}}
		report := check(t, source, authority.Trust(), target)
		candidates, rows := 0, 0
		for key, times := range source.opened {
			if !strings.HasSuffix(key, ".sigstore.json") || !strings.Contains(key, "/custody-2-") || strings.HasPrefix(incident.Released, strings.TrimSuffix(key, ".sigstore.json")) {
				continue
			}
			if candidates++; times != 1 {
				t.Errorf("%s was opened %d times", key, times)
			}
		}
		for _, c := range report.Checks {
			if c.Check == verify.CheckForeign {
				rows++
			}
		}
		if candidates != 1000 || rows > 103 {
			t.Errorf("from %s: %d candidates, %d rows", from, candidates, rows)
		}
		want, status := verify.Incomplete, verify.Unread // which of them is record 2 was not found out
		if from == "custody-2" {
			want, status = verify.Verified, verify.NotChecked
		}
		more := has(report, status, "custody-2-…", "more objects have the name of record 2")
		if report.Verdict() != want || (status == verify.Unread && !more) {
			t.Errorf("from %s:\n%s", from, table(t, report))
		}
	}
}

func TestARecordBehindADeleteMarkerLeavesATrace(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	incident.Delete(incident.Released)
	incident.Delete(evidence.CustodyBundleKey(incident.Released))
	for _, target := range []string{incident.Captured, incident.Prefix + "/"} {
		report := check(t, incident, authority.Trust(), target)
		if report.Verdict() != verify.Verified || !strings.Contains(table(t, report), "record 1; no record 2 was found") {
			t.Error(table(t, report))
		}
	}
}

func TestAnIncidentThatFailedBeforeAnythingWasOrderedVerifies(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{Failed: true})
	if report := check(t, incident, authority.Trust(), incident.Captured); report.Verdict() != verify.Verified {
		t.Error(table(t, report))
	}
}

// TestNoOutageCoversAFraud has a statement that cannot be read beside others that contradict each other.
func TestNoOutageCoversAFraud(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	trust := authority.Trust()
	snapshot := func(change func(*v1alpha1.EventResponse)) verifytest.Change {
		return response(v1alpha1.StepSnapshot, change)
	}
	freeze, upload := keyOfBundle(v1alpha1.StepFreeze), keyOfBundle(v1alpha1.StepUpload)
	event := func(what string) verifytest.Change {
		return verifytest.Change{Event: func(e *v1alpha1.SecurityEvent) { announce(e, what) }}
	}
	rows := map[string]struct {
		change      verifytest.Change
		away        func(*verifytest.Incident) string
		link, check string
	}{
		"another pod":              {snapshot(func(r *v1alpha1.EventResponse) { r.Spec.PodRef.UID = "other" }), upload, verify.LinkFacts, verify.CheckSamePod},
		"another incident":         {snapshot(func(r *v1alpha1.EventResponse) { r.Spec.IncidentUID = "other" }), upload, verify.LinkFacts, verify.CheckSameIncident},
		"never frozen":             {response(v1alpha1.StepFreeze, func(r *v1alpha1.EventResponse) { r.Status.Containment.Containers[0].FrozenAt = nil }), upload, verify.LinkFacts, verify.CheckFrozenThroughout},
		"another statement before": {predicate(v1alpha1.StepSnapshot, func(p *evidence.EventResponsePredicate) { p.Previous = evidence.Digest(nil) }), upload, snapshotLink, verify.CheckPrevious},
		"an object kept shorter":   {record(2, func(c *evidence.Custody) { c.Objects[0].RetainUntil = c.RetainUntil.AddDate(-1, 0, 0) }), upload, "custody-2", verify.CheckListed},
		"an object twice":          {record(2, func(c *evidence.Custody) { c.Objects = append(c.Objects, c.Objects[0]) }), upload, "custody-2", verify.CheckListed},
		"another manifest":         {event("sha256"), freeze, verify.LinkManifest, verify.CheckAnnounced},
		"another end in the manifest": {verifytest.Change{Manifest: func(m *evidence.Manifest) {
			m.Responses[1].Phase = "Failed"
		}}, freeze, verify.LinkManifest, verify.CheckAgrees},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			incident := verifytest.NewIncident(t, authority, row.change)
			report := check(t, broken{incident, row.away(incident)}, trust, incident.Released)
			demand(t, report, strings.ReplaceAll(row.link, "INCIDENT", incident.Name), row.check)
		})
	}
}

// TestStraysOfAnUnsealedIncidentAreNoted has objects where its bundles and manifests lie.
func TestStraysOfAnUnsealedIncidentAreNoted(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	other := verifytest.NewIncidentOf(t, authority, "another", verifytest.Change{})
	bundle := func(of func(*verifytest.Incident) []byte) func(*verifytest.Incident) string {
		return func(i *verifytest.Incident) string {
			key := i.Prefix + "/bundles/added.sigstore.json"
			i.Put(key, of(i), worm.Lock{})
			return key
		}
	}
	copied := func(key string) func(*verifytest.Incident) []byte {
		return func(*verifytest.Incident) []byte { return other.Newest(key).Data }
	}
	rows := map[string]func(*verifytest.Incident) string{
		"no bundle": bundle(func(*verifytest.Incident) []byte { return []byte("{}") }),
		"signed by somebody else": bundle(func(i *verifytest.Incident) []byte {
			return i.Authority.Seal([]byte("{}"), verifytest.Signature{Identity: "x", Issuer: verifytest.Issuer})
		}),
		"no statement":        bundle(func(i *verifytest.Incident) []byte { return i.Authority.Seal([]byte("{}"), verifytest.Keyless()) }),
		"a copy":              bundle(func(i *verifytest.Incident) []byte { return i.Newest(keyOfBundle(v1alpha1.StepFreeze)(i)).Data }),
		"the trigger":         bundle(func(i *verifytest.Incident) []byte { return i.Newest(i.Key("attestations/")).Data }),
		"a step of another":   bundle(copied(keyOfBundle(v1alpha1.StepFreeze)(other))),
		"a record of another": bundle(copied(evidence.CustodyBundleKey(other.Captured))),
		"a manifest that is none": func(i *verifytest.Incident) string {
			i.Put(evidence.ManifestKey(i.Prefix, strings.Repeat("f", 64)), nil, worm.Lock{})
			return ""
		},
		"a manifest in a folder": func(i *verifytest.Incident) string {
			i.Put(evidence.ManifestKey(i.Prefix+"/manifest-x", evidence.Digest(nil)), nil, worm.Lock{})
			return ""
		},
	}
	unsealed := func(t *testing.T) *verifytest.Incident {
		incident := verifytest.NewIncident(t, authority, verifytest.Change{})
		for _, record := range []string{incident.Captured, incident.Released} {
			incident.Delete(record)
			incident.Delete(evidence.CustodyBundleKey(record))
		}
		return incident
	}
	for name, add := range rows {
		t.Run(name, func(t *testing.T) {
			incident := unsealed(t)
			key := add(incident)
			for _, target := range []string{incident.ManifestKey, incident.Prefix + "/"} {
				report := check(t, incident, authority.Trust(), target)
				if report.Verdict() != verify.Unsealed || (key != "" && !has(report, verify.NotChecked, key, "")) {
					t.Error(table(t, report))
				}
			}
		})
	}
	t.Run("what cannot be read", func(t *testing.T) {
		incident := unsealed(t)
		key := bundle(func(*verifytest.Incident) []byte { return nil })(incident)
		if report := check(t, broken{incident, key}, authority.Trust(), incident.Prefix+"/"); report.Verdict() != verify.Incomplete || !has(report, verify.Unread, key, "") {
			t.Error(table(t, report))
		}
	})
	t.Run("too many", func(t *testing.T) {
		incident := unsealed(t)
		for n := range 1100 {
			incident.Put(fmt.Sprintf("%s/bundles/%d", incident.Prefix, n), nil, worm.Lock{})
		}
		report := check(t, incident, authority.Trust(), incident.Prefix+"/")
		if report.Verdict() != verify.Incomplete || !has(report, verify.Unread, verify.LinkChain, "more objects lie below") || len(report.Checks) > 250 {
			t.Error(table(t, report))
		}
	})
}
