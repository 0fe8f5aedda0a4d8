package verify_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
	"ugallu.io/forensics/internal/worm"
)

// fetched copies an incident to a folder by verifying it, and returns both reports.
func fetched(t *testing.T, incident *verifytest.Incident, prover verify.Prover) (dir string, live *verify.Report) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "copy")
	copier, err := verify.NewCopier(incident, dir)
	if err != nil {
		t.Fatal(err)
	}
	live = check(t, copier, prover, incident.Released)
	if err := copier.Close(); err != nil {
		t.Fatal(err)
	}
	if copier.Bytes() == 0 {
		t.Error("nothing was copied")
	}
	return dir, live
}

func offline(t *testing.T, dir string, prover verify.Prover) *verify.Report {
	t.Helper()
	folder, err := verify.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	targets, err := verify.Find(t.Context(), folder, "")
	if err != nil || len(targets) != 1 {
		t.Fatalf("targets %v, %v", targets, err)
	}
	return check(t, folder, prover, targets[0].Key)
}

func TestACopyVerifiesAsTheStoreDoes(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	dir, live := fetched(t, incident, authority.Trust())
	if diff := cmp.Diff(live, offline(t, dir, authority.Trust())); diff != "" || live.Verdict() != verify.Verified {
		t.Errorf("verdict %s (-store +copy):\n%s", live.Verdict(), diff)
	}
}

func TestACopyThatWasChangedIsRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	trust := authority.Trust()
	kept := func(from, to string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { edit(t, filepath.Join(dir, verify.StoreFile), from, to) }
	}
	rows := map[string]struct {
		tamper      func(*testing.T, string)
		link, check string
	}{
		"retention shortened": {kept("2036-03-01", "2035-03-01"), verify.LinkManifest, verify.CheckLock},
		"mode downgraded":     {kept("COMPLIANCE", "GOVERNANCE"), verify.LinkManifest, verify.CheckLock},
		"an older version":    {kept(`"versionId": "v`, `"versionId": "w`), verify.LinkManifest, verify.CheckLock},
		"a segment changed": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, incident.Key("gaps.jsonl")), "proc", "prox")
		}, "object " + incident.Key("gaps.jsonl"), verify.CheckDigest},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			dir, _ := fetched(t, incident, trust)
			row.tamper(t, dir)
			demand(t, offline(t, dir, trust), row.link, row.check)
		})
	}
}

func edit(t *testing.T, file, from, to string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(data), from, to)
	if changed == string(data) {
		t.Fatalf("%s has no %q", file, from)
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestACopyWithoutTheStoresWordClaimsNoLock(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	dir, _ := fetched(t, verifytest.NewIncident(t, authority, verifytest.Change{}), authority.Trust())
	if err := os.Remove(filepath.Join(dir, verify.StoreFile)); err != nil {
		t.Fatal(err)
	}
	report := offline(t, dir, authority.Trust())
	for _, check := range report.Checks {
		if want := check.Check == verify.CheckLock; want != (check.Status == verify.NotChecked) || (!want && check.Status != verify.Passed) {
			t.Errorf("%+v", check)
		}
	}
	if report.Verdict() != verify.Verified {
		t.Error(table(t, report))
	}
}

func TestCopierRefusesAFolderWithSomethingInIt(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "manifest-forged.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := verify.NewCopier(verifytest.NewStore(t), dir); err == nil {
		t.Error("copied over what was there")
	}
}

func TestAKeyThatClimbsOutIsNotRead(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(outside, "copy")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	folder, err := verify.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	for _, key := range []string{"../secret", "a/../../secret", "/../secret"} {
		if _, err := folder.Open(t.Context(), key, ""); err == nil {
			t.Errorf("%s was opened", key)
		}
	}
	store := verifytest.NewStore(t)
	store.Put("../secret", []byte("y"), worm.Lock{})
	copier, err := verify.NewCopier(store, dir)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := copier.Open(t.Context(), "../secret", ""); err == nil {
		t.Errorf("copied outside: %v", body.Close())
	}
}

// broken is a store that cannot be read in the middle.
type broken struct {
	*verifytest.Incident
	key string
}

var errAway = errors.New("the store is away")

func (b broken) Open(ctx context.Context, key, version string) (io.ReadCloser, error) {
	if key == b.key {
		return nil, errAway
	}
	return b.Incident.Open(ctx, key, version)
}

func TestWhatCouldNotBeReadIsNotRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	report := check(t, broken{incident, incident.Key("gaps.jsonl")}, authority.Trust(), incident.Released)
	if report.Verdict() != verify.Incomplete {
		t.Errorf("verdict %s:\n%s", report.Verdict(), table(t, report))
	}
	if _, err := verify.Incident(t.Context(), broken{incident, incident.Released}, authority.Trust(), verify.Target{Key: incident.Released}); !errors.Is(err, errAway) {
		t.Errorf("a record that cannot be read: %v", err)
	}
	if _, err := verify.Incident(t.Context(), incident, authority.Trust(), verify.Target{Key: "forensics/x/other"}); !errors.Is(err, verify.ErrTarget) {
		t.Errorf("neither record nor manifest: %v", err)
	}
}

func TestWithoutARecordTheBundlesAreFound(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	for _, record := range []string{incident.Captured, incident.Released} {
		incident.Delete(record)
		incident.Delete(evidence.CustodyBundleKey(record))
	}
	report := check(t, incident, authority.Trust(), incident.ManifestKey)
	if report.Verdict() != verify.Unsealed || report.Records != 0 || !strings.Contains(report.Summary(), "no custody record") {
		t.Error(table(t, report))
	}
	if diff := cmp.Diff(report, check(t, incident, authority.Trust(), incident.Prefix+"/")); diff != "" {
		t.Errorf("by its prefix:\n%s", diff)
	}
	lock := incident.Newest(incident.ManifestKey).Object.Lock
	incident.Put(evidence.CustodyKey(incident.Prefix, 1, evidence.Digest(nil)), nil, lock)
	if report := check(t, incident, authority.Trust(), incident.ManifestKey); report.Verdict() != verify.Unsealed {
		t.Error(table(t, report))
	}
	incident.Put(evidence.ManifestKey(incident.Prefix, evidence.Digest(nil)), nil, lock)
	if _, err := verify.Incident(t.Context(), incident, authority.Trust(), verify.Target{Key: incident.Prefix + "/"}); err == nil || !strings.Contains(err.Error(), "name one") {
		t.Errorf("one of two manifests was taken: %v", err)
	}
	incident.Delete(incident.Key(v1alpha1.BundleName("uid-" + string(v1alpha1.StepSnapshot))))
	demand(t, check(t, incident, authority.Trust(), incident.ManifestKey), verify.LinkChain, verify.CheckComplete)
}

// TestACopyThatLacksWhatTheSecondRecordListsIsIncomplete has an outage of what the first one does not list.
func TestACopyThatLacksWhatTheSecondRecordListsIsIncomplete(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	for _, key := range []string{keyOfBundle(v1alpha1.StepUnfreeze)(incident), evidence.CustodyBundleKey(incident.Captured)} {
		copier, err := verify.NewCopier(broken{incident, key}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		report, err := verify.Fetch(t.Context(), copier, authority.Trust(), verify.Target{Key: incident.Captured})
		if err != nil || report.Verdict() != verify.Incomplete {
			t.Errorf("%s: %v, %+v", key, err, report)
		}
		if err := copier.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestACopyThatHoldsWhatTheSecondRecordRefusesIsRefused has an object that the first one does not list and that is gone, or is
// another one.
func TestACopyThatHoldsWhatTheSecondRecordRefusesIsRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	tests := map[string]func(*testing.T, *verifytest.Incident){
		"gone":    func(_ *testing.T, i *verifytest.Incident) { i.Delete(keyOfBundle(v1alpha1.StepUnfreeze)(i)) },
		"altered": flip(bundleOf(v1alpha1.StepUnfreeze)(nil)),
	}
	for name, tamper := range tests {
		t.Run(name, func(t *testing.T) {
			incident := verifytest.NewIncident(t, authority, verifytest.Change{})
			tamper(t, incident)
			copier, err := verify.NewCopier(incident, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			report, err := verify.Fetch(t.Context(), copier, authority.Trust(), verify.Target{Key: incident.Captured})
			if err != nil || report.Verdict() != verify.Refused {
				t.Errorf("%v, %+v", err, report)
			}
			if err := copier.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestACopyFromTheFirstRecordHoldsTheSecondWhole: a copy is verified from its last record.
func TestACopyFromTheFirstRecordHoldsTheSecondWhole(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	dir := t.TempDir()
	source := crowded{incident, 1000, map[string]int{}}
	copier, err := verify.NewCopier(source, dir)
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Fetch(t.Context(), copier, authority.Trust(), verify.Target{Key: incident.Captured})
	if err != nil || report.Verdict() != verify.Verified || report.Records != 1 {
		t.Fatalf("%v: %+v", err, report)
	}
	if segment := incident.Key("rootfs.tar.zst/1"); source.opened[segment] != 1 {
		t.Errorf("%s was read %d times", segment, source.opened[segment])
	}
	if err := copier.Close(); err != nil {
		t.Fatal(err)
	}
	folder, err := verify.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{incident.Prefix + "/", incident.Captured} {
		if report := check(t, folder, authority.Trust(), target); report.Verdict() != verify.Verified {
			t.Error(table(t, report))
		}
	}
	if err := folder.Close(); err != nil {
		t.Error(err)
	}
}
