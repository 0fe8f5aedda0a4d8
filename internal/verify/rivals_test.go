package verify_test

import (
	"context"
	"encoding/json"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
)

// rival puts a second record of a number beside the first: well formed, under its own digest.
func rival(t *testing.T, i *verifytest.Incident, of string) (key string, custody evidence.Custody) {
	t.Helper()
	first := i.Newest(of)
	if err := json.Unmarshal(first.Data, &custody); err != nil {
		t.Fatal(err)
	}
	custody.Objects = custody.Objects[1:]
	data, err := evidence.Canonical(custody)
	if err != nil {
		t.Fatal(err)
	}
	key = evidence.CustodyKey(i.Prefix, custody.Number, evidence.Digest(data))
	i.Put(key, data, first.Object.Lock)
	return key, custody
}

// sign puts a statement over a rival beside it.
func sign(t *testing.T, i *verifytest.Incident, key string, custody evidence.Custody, by verifytest.Signature) {
	t.Helper()
	predicate := evidence.IncidentPredicate{
		Incident: custody.Incident, Number: custody.Number, Previous: custody.Statements[len(custody.Statements)-1].PayloadSHA256,
	}
	if custody.Previous != nil {
		predicate.PreviousCustody = custody.Previous.SHA256
	}
	payload, err := evidence.Canonical(evidence.Statement{
		Type: evidence.StatementType, PredicateType: evidence.PredicateTypeIncident, Predicate: predicate,
		Subject: []evidence.Subject{evidence.SHA256Subject(path.Base(key), evidence.Digest(i.Newest(key).Data))},
	})
	if err != nil {
		t.Fatal(err)
	}
	i.Put(evidence.CustodyBundleKey(key), i.Authority.Seal(payload, by), i.Newest(key).Object.Lock)
}

// targets are every way to name an incident.
func targets(i *verifytest.Incident) map[string]string {
	return map[string]string{"custody-2": i.Released, "custody-1": i.Captured, "manifest": i.ManifestKey, "prefix": i.Prefix + "/"}
}

func TestWhatNobodySignedTakesNoRecordsPlace(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	put := func(name string) func(*testing.T, *verifytest.Incident) string {
		return func(_ *testing.T, i *verifytest.Incident) string {
			i.Put(i.Prefix+"/"+name, []byte("{}"), i.Newest(i.Released).Object.Lock)
			return i.Prefix + "/" + name
		}
	}
	both := func(of func(*verifytest.Incident) string, add func(*testing.T, *verifytest.Incident, string, evidence.Custody)) func(*testing.T, *verifytest.Incident) string {
		return func(t *testing.T, i *verifytest.Incident) string {
			key, custody := rival(t, i, of(i))
			add(t, i, key, custody)
			return key
		}
	}
	unsigned := func(*testing.T, *verifytest.Incident, string, evidence.Custody) {}
	rows := map[string]func(*testing.T, *verifytest.Incident) string{
		"no digest in the name":      put("custody-1-x.json"),
		"a digest cut":               put("custody-2-" + evidence.Digest(nil)[1:] + ".json"),
		"capitals":                   put("custody-2-" + strings.ToUpper(evidence.Digest(nil)) + ".json"),
		"number three":               put("custody-3-" + evidence.Digest(nil) + ".json"),
		"a folder":                   put("custody-2/custody-2-" + evidence.Digest(nil) + ".json"),
		"another digest in the name": put("custody-2-" + strings.Repeat("f", 64) + ".json"),
		"a first that is unsigned":   both(captured, unsigned),
		"a second that is unsigned":  both(released, unsigned),
		"signed by somebody else": both(released, func(t *testing.T, i *verifytest.Incident, key string, custody evidence.Custody) {
			sign(t, i, key, custody, verifytest.Signature{Identity: verifytest.Identity + "-2", Issuer: verifytest.Issuer})
		}),
		"beside the real one's statement": both(captured, func(_ *testing.T, i *verifytest.Incident, key string, _ evidence.Custody) {
			i.Put(evidence.CustodyBundleKey(key), i.Newest(evidence.CustodyBundleKey(i.Captured)).Data, i.Newest(key).Object.Lock)
		}),
		"signed with another number": both(captured, func(t *testing.T, i *verifytest.Incident, key string, custody evidence.Custody) {
			custody.Number = evidence.CustodyReleased
			sign(t, i, key, custody, verifytest.Keyless())
		}),
		"of another incident, with its statement": func(t *testing.T, i *verifytest.Incident) string {
			other := verifytest.NewIncidentOf(t, i.Authority, "another", verifytest.Change{})
			key := i.Prefix + "/" + path.Base(other.Released)
			i.Put(key, other.Newest(other.Released).Data, i.Newest(i.Released).Object.Lock)
			i.Put(evidence.CustodyBundleKey(key), other.Newest(evidence.CustodyBundleKey(other.Released)).Data, i.Newest(i.Released).Object.Lock)
			return key
		},
	}
	for name, add := range rows {
		t.Run(name, func(t *testing.T) {
			incident := verifytest.NewIncident(t, authority, verifytest.Change{})
			key := add(t, incident)
			for from, target := range targets(incident) {
				report := check(t, incident, authority.Trust(), target)
				if report.Verdict() != verify.Verified || report.Records != map[bool]int{true: 1, false: 2}[from == "custody-1"] {
					t.Errorf("from %s: verdict %s, record %d:\n%s", from, report.Verdict(), report.Records, table(t, report))
				}
				noted := slices.ContainsFunc(report.Checks, func(c verify.Check) bool {
					return c.Link == "object "+key && c.Check == verify.CheckForeign && c.Status == verify.NotChecked && c.Reason != ""
				})
				if !noted {
					t.Errorf("from %s: %s is not noted:\n%s", from, key, table(t, report))
				}
			}
		})
	}
}

func TestTwoSignedRecordsOfOneNumberAreRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	for name, of := range map[string]func(*verifytest.Incident) string{
		"custody-1": captured,
		"custody-2": released,
	} {
		for _, kept := range []bool{true, false} {
			incident := verifytest.NewIncident(t, authority, verifytest.Change{})
			key, custody := rival(t, incident, of(incident))
			sign(t, incident, key, custody, verifytest.Keyless())
			if !kept { // the statement alone shows that the record was made
				incident.Delete(key)
			}
			report := check(t, incident, authority.Trust(), incident.Released)
			demand(t, report, verify.LinkChain, verify.CheckRecords)
			for _, c := range report.Checks {
				if c.Status == verify.Failed && (!strings.Contains(c.Reason, key) || !strings.Contains(c.Reason, of(incident))) {
					t.Errorf("%s: both are not named: %+v", name, c)
				}
			}
		}
	}
}

// TestASignedRecordContradictsOneThatIsNotToBeHad in whichever order they lie, and whatever became of the other.
func TestASignedRecordContradictsOneThatIsNotToBeHad(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	for name, from := range map[string]func(*verifytest.Incident) string{
		"custody-1": captured, "custody-2": released, "prefix": func(i *verifytest.Incident) string { return i.Prefix + "/" },
	} {
		incident := verifytest.NewIncident(t, authority, verifytest.Change{})
		other, custody := rival(t, incident, incident.Released)
		sign(t, incident, other, custody, verifytest.Keyless())
		away := map[string]verify.Source{"the rival": broken{incident, other}}
		if name != "custody-2" {
			away["the first"] = broken{incident, incident.Released}
		}
		for lost, source := range away {
			t.Run(name+" without "+lost, func(t *testing.T) {
				report := check(t, source, authority.Trust(), from(incident))
				demand(t, report, verify.LinkChain, verify.CheckRecords)
				if !has(report, verify.Failed, verify.LinkChain, other) || !has(report, verify.Failed, verify.LinkChain, incident.Released) {
					t.Errorf("both are not named:\n%s", table(t, report))
				}
			})
		}
	}
}

func TestNotesAreBounded(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	for n := range 150 {
		incident.Put(incident.Prefix+"/custody-1-"+strings.Repeat("x", n), nil, incident.Newest(incident.Released).Object.Lock)
	}
	report := check(t, incident, authority.Trust(), incident.Released)
	noted := 0
	for _, c := range report.Checks {
		if c.Check == verify.CheckForeign {
			noted++
		}
	}
	if last := table(t, report); noted != 101 || !strings.Contains(last, "foreign: 50 more") || report.Verdict() != verify.Verified {
		t.Errorf("%d noted:\n%s", noted, last)
	}
}

// TestWhateverCannotBeReadIsNotRefused takes away the store for each object in turn.
func TestWhateverCannotBeReadIsNotRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	keys, err := incident.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		for name, source := range map[string]verify.Source{"opened": broken{incident, key}, "read": torn{incident, key}} {
			report, err := verify.Incident(t.Context(), source, authority.Trust(), verify.Target{Key: incident.Released})
			if err == nil && report.Verdict() != verify.Incomplete {
				t.Errorf("%s cannot be %s: verdict %s:\n%s", key, name, report.Verdict(), table(t, report))
			}
			if err != nil && key != incident.Released {
				t.Errorf("%s cannot be %s: %v", key, name, err)
			}
		}
	}
}

// torn is a store whose connection ends in the middle of one object.
type torn struct {
	*verifytest.Incident
	key string
}

func (s torn) Open(ctx context.Context, key, version string) (io.ReadCloser, error) {
	body, err := s.Incident.Open(ctx, key, version)
	if err != nil || key != s.key {
		return body, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(body, 5), failing{})), nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errAway }
