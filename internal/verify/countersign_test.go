package verify_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
	"ugallu.io/forensics/internal/worm"
)

var keySigned = verifytest.Signature{Key: true}

// inBothModes has the key sign every statement first, and the identity countersign it.
func inBothModes() verifytest.Change {
	return verifytest.Change{
		Signer:        func(string) verifytest.Signature { return keySigned },
		Countersigner: func(string) verifytest.Signature { return verifytest.Keyless() },
	}
}

// countersigner changes how the statement about the capture is countersigned.
func countersigner(by func(*verifytest.Signature)) verifytest.Change {
	change := inBothModes()
	change.Countersigner = func(name string) verifytest.Signature {
		signature := verifytest.Keyless()
		if strings.HasSuffix(name, string(v1alpha1.StepSnapshot)) {
			by(&signature)
		}
		return signature
	}
	return change
}

// bothRecorded changes both records of an incident in both modes.
func bothRecorded(change func(*evidence.Custody)) verifytest.Change {
	both := inBothModes()
	both.Record = change
	return both
}

func besideKey(step v1alpha1.Step) func(*verifytest.Incident) string {
	return func(i *verifytest.Incident) string { return i.Key(bundleOf(step)(i), evidence.ModeKeyless) }
}

// believes loads what a caller asks about; either may be empty.
func believes(t *testing.T, authority *verifytest.Authority, key *verifytest.Authority, identity string) *attest.Trust {
	t.Helper()
	keys, identities := map[string][]byte{}, []attest.Identity{}
	if key != nil {
		keys["key"] = key.PublicKey()
	}
	if identity != "" {
		identities = append(identities, attest.Identity{Name: identity, Issuer: verifytest.Issuer})
	}
	trust, err := attest.LoadTrust(authority.TrustedRoot(), keys, identities...)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

func TestAnIncidentInBothModesVerifiesByEither(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	first := inBothModes()
	second := verifytest.Change{Countersigner: func(string) verifytest.Signature { return keySigned }}
	for order, change := range map[string]verifytest.Change{"the key first": first, "the identity first": second} {
		incident := verifytest.NewIncident(t, authority, change)
		for name, row := range map[string]struct {
			trust   *attest.Trust
			unasked string
		}{
			"by key":      {believes(t, authority, authority, ""), "nobody asked about identities"},
			"by identity": {believes(t, authority, nil, verifytest.Identity), "nobody asked about keys"},
			"by both":     {believes(t, authority, authority, verifytest.Identity), ""},
		} {
			for from, target := range targets(incident) {
				report := check(t, incident, row.trust, target)
				if report.Verdict() != verify.Verified {
					t.Fatalf("%s, %s, from %s:\n%s", order, name, from, table(t, report))
				}
				demandUnasked(t, report, row.unasked)
			}
		}
	}
}

// demandUnasked wants every signature that nobody asked about to be reported as such, and never as one that holds.
func demandUnasked(t *testing.T, report *verify.Report, reason string) {
	t.Helper()
	signatures, unasked := 0, 0
	for _, c := range report.Checks {
		if c.Check != verify.CheckSignature {
			continue
		}
		signatures++
		if c.Status == verify.NotChecked {
			unasked++
			if !strings.Contains(c.Reason, reason) {
				t.Errorf("%+v", c)
			}
		}
	}
	if want := map[bool]int{true: 0, false: signatures / 2}[reason == ""]; unasked != want || signatures == 0 {
		t.Errorf("%d of %d signatures were not asked about, want %d:\n%s", unasked, signatures, want, table(t, report))
	}
}

func TestAWrongPolicyIsRefusedBesideARightOne(t *testing.T) {
	authority, stranger := verifytest.NewAuthority(t), verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, inBothModes())
	statement := "statement se-trigger"
	for name, row := range map[string]struct {
		trust *attest.Trust
		link  string
	}{
		"a wrong key alone":                   {believes(t, authority, stranger, ""), statement},
		"a wrong key beside the identity":     {believes(t, authority, stranger, verifytest.Identity), statement},
		"a wrong identity alone":              {believes(t, authority, nil, verifytest.Identity+"-2"), statement + " in fulcio-keyless"},
		"a wrong identity beside the key":     {believes(t, authority, authority, verifytest.Identity+"-2"), statement + " in fulcio-keyless"},
		"another trusted root beside the key": {believes(t, stranger, authority, ""), statement},
	} {
		t.Run(name, func(t *testing.T) {
			demand(t, check(t, incident, row.trust, incident.Released), row.link, verify.CheckSignature)
		})
	}
	t.Run("only the other sort", func(t *testing.T) {
		keyless := verifytest.NewIncident(t, authority, verifytest.Change{})
		demand(t, check(t, keyless, believes(t, authority, authority, ""), keyless.Released), statement, verify.CheckSignature)
		keyed := verifytest.NewIncident(t, authority, verifytest.Change{Signer: inBothModes().Signer})
		demand(t, check(t, keyed, believes(t, authority, nil, verifytest.Identity), keyed.Released), statement, verify.CheckSignature)
	})
	t.Run("one statement of the other sort", func(t *testing.T) {
		mostly := verifytest.NewIncident(t, authority, verifytest.Change{Signer: mixed})
		trust := believes(t, authority, nil, verifytest.Identity)
		demand(t, check(t, mostly, trust, mostly.Released), "statement er-"+mostly.Name+"-podunfreeze", verify.CheckSignature)
	})
}

func TestCountersignaturesThatDoNotFitAreRefused(t *testing.T) {
	const beside = snapshotLink + " in fulcio-keyless"
	over := "statement over custody-2 in fulcio-keyless"
	listed := func(change func(*evidence.Countersignature)) func(*evidence.Custody) {
		return func(c *evidence.Custody) { change(&c.Statements[2].Countersignatures[0]) }
	}
	lastKey := func(i *verifytest.Incident) string {
		return evidence.CountersignatureKey(evidence.CustodyBundleKey(i.Released), evidence.ModeKeyless)
	}
	run(t, map[string]tampering{
		"a byte of it":         {change: inBothModes(), tamper: flip(bundleOf(v1alpha1.StepSnapshot)(nil), "fulcio-keyless"), link: beside, check: verify.CheckDigest},
		"it is missing":        {change: inBothModes(), tamper: remove(bundleOf(v1alpha1.StepSnapshot)(nil), "fulcio-keyless"), link: beside, check: verify.CheckDigest},
		"two steps' exchanged": {change: inBothModes(), tamper: exchange(besideKey(v1alpha1.StepFreeze), besideKey(v1alpha1.StepSnapshot)), link: beside, check: verify.CheckStatement},
		"exchanged with the first": {change: inBothModes(), tamper: func(_ *testing.T, i *verifytest.Incident) {
			first := i.Newest(strings.Replace(besideKey(v1alpha1.StepSnapshot)(i), ".fulcio-keyless", "", 1))
			second := i.Newest(besideKey(v1alpha1.StepSnapshot)(i))
			first.Data, second.Data = second.Data, first.Data
		}, link: snapshotLink, check: verify.CheckDigest},
		"put over by a valid one": {change: inBothModes(), tamper: func(_ *testing.T, i *verifytest.Incident) {
			i.Newest(besideKey(v1alpha1.StepSnapshot)(i)).Data = i.Newest(besideKey(v1alpha1.StepFreeze)(i)).Data
		}, link: beside, check: verify.CheckDigest},
		"over another statement":     {change: countersigner(func(s *verifytest.Signature) { s.Over = []byte("{}") }), link: beside, check: verify.CheckStatement},
		"logged for another payload": {change: countersigner(func(s *verifytest.Signature) { s.Logged = []byte("{}") }), link: beside, check: verify.CheckSignature},
		"by another identity":        {change: countersigner(func(s *verifytest.Signature) { s.Identity += "-2" }), link: beside, check: verify.CheckSignature},
		"of another issuer":          {change: countersigner(func(s *verifytest.Signature) { s.Issuer += "-2" }), link: beside, check: verify.CheckSignature},
		"another digest on record":   {change: bothRecorded(listed(func(c *evidence.Countersignature) { c.SHA256 = evidence.Digest(nil) })), link: beside, check: verify.CheckDigest},
		"another place":              {change: bothRecorded(listed(func(c *evidence.Countersignature) { c.Key = "elsewhere" })), link: beside, check: verify.CheckDigest},
		"another mode on record":     {change: bothRecorded(listed(func(c *evidence.Countersignature) { c.Mode = "other" })), link: snapshotLink + " in other", check: verify.CheckStatement},
		"kept too short, on record":  {change: bothRecorded(listed(func(c *evidence.Countersignature) { c.RetainUntil = c.RetainUntil.AddDate(-1, 0, 0) })), link: "custody-2", check: verify.CheckListed},
		"kept too short, in the store": {change: inBothModes(), tamper: func(_ *testing.T, i *verifytest.Incident) {
			lock := &i.Newest(besideKey(v1alpha1.StepSnapshot)(i)).Object.Lock
			lock.RetainUntil = lock.RetainUntil.AddDate(-1, 0, 0)
		}, link: beside, check: verify.CheckLock},
		"listed twice": {change: bothRecorded(func(c *evidence.Custody) {
			c.Statements[2].Countersignatures = append(c.Statements[2].Countersignatures, c.Statements[2].Countersignatures[0])
		}), link: "custody-2", check: verify.CheckListed},
		"dropped from the second record": {change: bothRecorded(func(c *evidence.Custody) {
			if c.Number == evidence.CustodyReleased {
				c.Statements[2].Countersignatures = nil
			}
		}), link: "custody-2", check: verify.CheckRecords},
		"that over custody-1 dropped": {change: bothRecorded(func(c *evidence.Custody) {
			for i := range c.Statements {
				if c.Statements[i].Kind == evidence.StatementIncident {
					c.Statements[i].Countersignatures = nil
				}
			}
		}), link: "custody-2", check: verify.CheckRecords},
		"that over custody-1, a byte":    {change: inBothModes(), tamper: flip("custody-1", "fulcio-keyless"), link: "statement over custody-1 in fulcio-keyless", check: verify.CheckDigest},
		"that over custody-2 is missing": {change: inBothModes(), tamper: func(_ *testing.T, i *verifytest.Incident) { i.Delete(lastKey(i)) }, link: over, check: verify.CheckDigest},
		"that over custody-2 kept too short": {change: inBothModes(), tamper: func(_ *testing.T, i *verifytest.Incident) {
			lock := &i.Newest(lastKey(i)).Object.Lock
			lock.RetainUntil = lock.RetainUntil.Add(-time.Second)
		}, link: over, check: verify.CheckLock},
		"that over custody-2 in a weaker mode": {change: inBothModes(), tamper: func(_ *testing.T, i *verifytest.Incident) {
			i.Newest(lastKey(i)).Object.Lock.Mode = "GOVERNANCE"
		}, link: over, check: verify.CheckLock},
		"that over custody-2 is of custody-1": {change: inBothModes(), tamper: func(_ *testing.T, i *verifytest.Incident) {
			i.Newest(lastKey(i)).Data = i.Newest(i.Key("custody-1", "fulcio-keyless")).Data
		}, link: over, check: verify.CheckStatement},
		"that over custody-2 by the key": {change: inBothModes(), tamper: func(_ *testing.T, i *verifytest.Incident) {
			i.Newest(lastKey(i)).Data = i.Newest(evidence.CustodyBundleKey(i.Released)).Data
		}, link: over, check: verify.CheckStatement},
	})
}

// TestAForgedSignatureNobodyAsksAboutIsRefused: who signed is not asked, that it is a signature is.
func TestAForgedSignatureNobodyAsksAboutIsRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	for name, row := range map[string]struct {
		spoil func(*verifytest.Signature)
		link  string
		check string
	}{
		"another payload in the log":          {func(s *verifytest.Signature) { s.Logged = []byte("{}") }, snapshotLink + " in fulcio-keyless", verify.CheckSignature},
		"another statement":                   {func(s *verifytest.Signature) { s.Over = []byte("{}") }, snapshotLink + " in fulcio-keyless", verify.CheckStatement},
		"a key's, another payload in the log": {func(s *verifytest.Signature) { s.Key, s.Logged = true, []byte("{}") }, snapshotLink + " in openbao-transit", verify.CheckSignature},
		"outside the life of the certificate": {func(s *verifytest.Signature) { s.CertifiedAt = time.Now().Add(-time.Hour) }, snapshotLink + " in fulcio-keyless", verify.CheckSignature},
	} {
		t.Run(name, func(t *testing.T) {
			change := countersigner(row.spoil)
			trust := believes(t, authority, authority, "")
			if strings.Contains(name, "key's") {
				change.Signer, trust = nil, believes(t, authority, nil, verifytest.Identity)
			}
			incident := verifytest.NewIncident(t, authority, change)
			demand(t, check(t, incident, trust, incident.Released), strings.ReplaceAll(row.link, "INCIDENT", incident.Name), row.check)
		})
	}
}

// unsealed is an incident in both modes without its records.
func unsealed(t *testing.T, authority *verifytest.Authority) *verifytest.Incident {
	t.Helper()
	incident := verifytest.NewIncident(t, authority, inBothModes())
	unseal(incident, incident.Captured)
	unseal(incident, incident.Released)
	return incident
}

// unseal takes away a record that is signed in both modes.
func unseal(i *verifytest.Incident, record string) {
	bundle := evidence.CustodyBundleKey(record)
	for _, key := range []string{record, bundle, evidence.CountersignatureKey(bundle, evidence.ModeKeyless)} {
		i.Delete(key)
	}
}

// TestALoneCountersignatureIsNoStepAndNoRival has bundles beside nothing.
func TestALoneCountersignatureIsNoStepAndNoRival(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	other := verifytest.NewIncidentOf(t, authority, "another", inBothModes())
	lock := other.Newest(other.Released).Object.Lock
	rows := map[string]struct {
		sealed bool
		add    func(i *verifytest.Incident) (noted string)
	}{
		"of a step whose first bundle is away": {false, func(i *verifytest.Incident) string {
			key := i.Prefix + "/bundles/ab-gone.fulcio-keyless.sigstore.json"
			i.Put(key, i.Newest(besideKey(v1alpha1.StepFreeze)(i)).Data, lock)
			return key
		}},
		"of another incident": {false, func(i *verifytest.Incident) string {
			key := evidence.CountersignatureKey(keyOfFirst(i), evidence.ModeTransit)
			i.Put(key, other.Newest(keyOfFirst(other)).Data, lock)
			return key
		}},
		"no bundle": {false, func(i *verifytest.Incident) string {
			key := evidence.CountersignatureKey(keyOfFirst(i), evidence.ModeTransit)
			i.Put(key, []byte("{}"), lock)
			return key
		}},
		"over a record that is away": {false, func(i *verifytest.Incident) string {
			record := evidence.CustodyKey(i.Prefix, 1, evidence.Digest(nil))
			i.Put(evidence.CountersignatureKey(evidence.CustodyBundleKey(record), evidence.ModeKeyless),
				other.Newest(other.Key("custody-1", "fulcio-keyless")).Data, lock)
			return record
		}},
		"over no record, beside those of the incident": {true, func(i *verifytest.Incident) string {
			record := evidence.CustodyKey(i.Prefix, 2, evidence.Digest(nil))
			i.Put(evidence.CountersignatureKey(evidence.CustodyBundleKey(record), evidence.ModeKeyless),
				i.Newest(i.Key("custody-2", "fulcio-keyless")).Data, lock)
			return record
		}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			want := verify.Verified
			incident := verifytest.NewIncident(t, authority, inBothModes())
			if !row.sealed {
				want, incident = verify.Unsealed, unsealed(t, authority)
			}
			noted := row.add(incident)
			for from, trust := range map[string]*attest.Trust{
				"both": authority.TrustBoth(), "key": believes(t, authority, authority, ""), "identity": believes(t, authority, nil, verifytest.Identity),
			} {
				report := check(t, incident, trust, incident.Prefix+"/")
				if report.Verdict() != want || !has(report, verify.NotChecked, noted, "") {
					t.Errorf("%s: verdict %s, %s:\n%s", from, report.Verdict(), noted, table(t, report))
				}
			}
		})
	}
}

func keyOfFirst(i *verifytest.Incident) string {
	return i.Prefix + "/bundles/" + bundleOf(v1alpha1.StepFreeze)(i) + ".sigstore.json"
}

// signIn puts a statement over a rival: in both modes as inBothModes does, in one with garbage in place of the other.
func signIn(t *testing.T, i *verifytest.Incident, key string, custody evidence.Custody, modes ...string) {
	t.Helper()
	first, lock := evidence.CustodyBundleKey(key), i.Newest(key).Object.Lock
	if slices.Contains(modes, evidence.ModeKeyless) {
		sign(t, i, key, custody, verifytest.Keyless())
		i.Put(evidence.CountersignatureKey(first, evidence.ModeKeyless), i.Newest(first).Data, lock)
		i.Put(first, []byte("{}"), lock)
	}
	if slices.Contains(modes, evidence.ModeTransit) {
		sign(t, i, key, custody, keySigned)
	}
}

// TestASecondSignedRecordIsRefusedInWhicheverModeItIsSigned: the word of everybody who is asked about against itself.
func TestASecondSignedRecordIsRefusedInWhicheverModeItIsSigned(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	for name, row := range map[string]struct {
		trust *attest.Trust
		modes []string
	}{
		"asked about both, signed in both":       {authority.TrustBoth(), []string{evidence.ModeKeyless, evidence.ModeTransit}},
		"asked about keys, signed by one":        {authority.TrustKey(), []string{evidence.ModeTransit}},
		"asked about identities, signed by one":  {authority.Trust(), []string{evidence.ModeKeyless}},
		"asked about identities, signed in both": {authority.Trust(), []string{evidence.ModeKeyless, evidence.ModeTransit}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, of := range []func(*verifytest.Incident) string{captured, released} {
				incident := verifytest.NewIncident(t, authority, inBothModes())
				key, custody := rival(t, incident, of(incident))
				signIn(t, incident, key, custody, row.modes...)
				for _, target := range []string{incident.Released, incident.Prefix + "/"} {
					demand(t, check(t, incident, row.trust, target), verify.LinkChain, verify.CheckRecords)
				}
			}
		})
	}
}

func captured(i *verifytest.Incident) string { return i.Captured }
func released(i *verifytest.Incident) string { return i.Released }

// TestAStolenModeTakesNoRecordsPlace: to whom asks about both sorts, who stole one mode and may write adds a note.
func TestAStolenModeTakesNoRecordsPlace(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	for name, row := range map[string]struct {
		of      func(*verifytest.Incident) string
		records int
	}{
		"a first beside the first":          {captured, 2},
		"a second beside the second":        {released, 2},
		"a second where there is the first": {released, 1},
	} {
		for mode, lacks := range map[string]string{evidence.ModeKeyless: "none of the keys", evidence.ModeTransit: "none of the identities"} {
			t.Run(name+" in "+mode, func(t *testing.T) {
				incident := verifytest.NewIncident(t, authority, inBothModes())
				key, custody := rival(t, incident, row.of(incident))
				signIn(t, incident, key, custody, mode)
				named := targets(incident)
				if row.records == 1 {
					delete(named, "custody-2")
					unseal(incident, incident.Released)
				}
				for from, target := range named {
					report := check(t, incident, authority.TrustBoth(), target)
					if report.Verdict() != verify.Verified || !has(report, verify.NotChecked, key, lacks) {
						t.Errorf("from %s: verdict %s:\n%s", from, report.Verdict(), table(t, report))
					}
					if from != "custody-1" && report.Records != row.records {
						t.Errorf("from %s: record %d", from, report.Records)
					}
					if row.records == 1 && !has(report, verify.NotChecked, verify.LinkChain, "a statement over a record 2 is there") {
						t.Errorf("from %s:\n%s", from, table(t, report))
					}
				}
				demandCopied(t, incident, authority.TrustBoth(), key)
				report := check(t, incident, authority.TrustBoth(), key)
				over := fmt.Sprintf("statement over custody-%d", custody.Number)
				if report.Verdict() != verify.Refused || !has(report, verify.Failed, over, "") {
					t.Errorf("named itself:\n%s", table(t, report))
				}
			})
		}
	}
}

// TestAStolenModeMissesNoRecord: a statement by one mode over a record that never was is no word of both.
func TestAStolenModeMissesNoRecord(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	for _, mode := range []string{evidence.ModeKeyless, evidence.ModeTransit} {
		incident := verifytest.NewIncident(t, authority, inBothModes())
		key, custody := rival(t, incident, incident.Released)
		signIn(t, incident, key, custody, mode)
		unseal(incident, incident.Released)
		for _, lose := range []func(){
			func() { incident.Put(key, []byte("{}"), worm.Lock{}) },
			func() { incident.Delete(key) },
		} {
			lose()
			for _, target := range []string{incident.Captured, incident.ManifestKey, incident.Prefix + "/"} {
				report := check(t, incident, authority.TrustBoth(), target)
				if report.Verdict() != verify.Verified || report.Records != 1 || !has(report, verify.NotChecked, key, "somebody stole that mode") {
					t.Errorf("%s from %s:\n%s", mode, target, table(t, report))
				}
			}
		}
	}
}

// demandCopied wants a folder that was filled from the incident to verify, with a note of the rival.
func demandCopied(t *testing.T, i *verifytest.Incident, trust *attest.Trust, rival string) {
	t.Helper()
	dir := t.TempDir()
	copier, err := verify.NewCopier(i, dir)
	if err != nil {
		t.Fatal(err)
	}
	check(t, copier, trust, i.Prefix+"/")
	if err := copier.Close(); err != nil {
		t.Fatal(err)
	}
	folder, err := verify.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	report := check(t, folder, trust, i.Prefix+"/")
	if report.Verdict() != verify.Verified || !has(report, verify.NotChecked, rival, "") {
		t.Errorf("from a folder:\n%s", table(t, report))
	}
	if err := folder.Close(); err != nil {
		t.Error(err)
	}
}

func TestAModeThatWasWithdrawnIsReported(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{Record: func(c *evidence.Custody) {
		c.Gaps = append(c.Gaps, evidence.Gap{Reason: evidence.GapModeWithdrawn, Message: "begun in another mode", Count: 1})
	}})
	report := check(t, incident, authority.Trust(), incident.Released)
	if report.Verdict() != verify.Verified || !has(report, verify.NotChecked, "custody-2", "begun in another mode") {
		t.Error(table(t, report))
	}
}

// TestACountersignatureThatCannotBeReadIsNotRefused takes away the store for each bundle in turn.
func TestACountersignatureThatCannotBeReadIsNotRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, inBothModes())
	keys, err := incident.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if !strings.HasSuffix(key, ".sigstore.json") {
			continue
		}
		for name, trust := range map[string]*attest.Trust{"both": authority.TrustBoth(), "identity": believes(t, authority, nil, verifytest.Identity)} {
			report := check(t, broken{incident, key}, trust, incident.Released)
			if report.Verdict() != verify.Incomplete {
				t.Errorf("%s away, asked about %s: verdict %s:\n%s", key, name, report.Verdict(), table(t, report))
			}
		}
	}
}

// TestWhoeverNamesBothSortsIsToldOfAStolenMode has statements and records that one of the modes alone signed.
func TestWhoeverNamesBothSortsIsToldOfAStolenMode(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	lacks := func(name string) verifytest.Change {
		change := inBothModes()
		change.Countersigner = func(of string) verifytest.Signature {
			if strings.HasSuffix(of, name) {
				return verifytest.Signature{}
			}
			return verifytest.Keyless()
		}
		return change
	}
	for name, row := range map[string]struct {
		change      verifytest.Change
		link, lacks string
	}{
		"all by the key":                  {verifytest.Change{Signer: inBothModes().Signer}, "statement over custody-2", "none of the identities"},
		"all by the identity":             {verifytest.Change{}, "statement over custody-2", "none of the keys"},
		"the record before":               {lacks("custody-1"), "statement over custody-1", "none of the identities"},
		"one statement":                   {lacks("podunfreeze"), "statement er-INCIDENT-podunfreeze", "none of the identities"},
		"the trigger":                     {lacks("se-trigger"), "statement se-trigger", "none of the identities"},
		"changed in its middle":           {verifytest.Change{Signer: mixed}, "statement er-INCIDENT-podunfreeze", "none of the identities"},
		"changed in its middle, the rest": {verifytest.Change{Signer: mixed}, "statement se-trigger", "none of the keys"},
	} {
		t.Run(name, func(t *testing.T) {
			incident := verifytest.NewIncident(t, authority, row.change)
			link := strings.ReplaceAll(row.link, "INCIDENT", incident.Name)
			for _, target := range []string{incident.Released, incident.Prefix + "/", incident.ManifestKey} {
				report := check(t, incident, authority.TrustBoth(), target)
				demand(t, report, link, verify.CheckSignature)
				if !has(report, verify.Failed, link, row.lacks) || !has(report, verify.Failed, link, "is verified with that sort alone") {
					t.Error(table(t, report))
				}
			}
		})
	}
	t.Run("the last record", func(t *testing.T) {
		incident := verifytest.NewIncident(t, authority, lacks("custody-2"))
		demand(t, check(t, incident, authority.TrustBoth(), incident.Released), "statement over custody-2", verify.CheckSignature)
		for _, target := range []string{incident.Prefix + "/", incident.ManifestKey} {
			report := check(t, incident, authority.TrustBoth(), target)
			if report.Verdict() != verify.Verified || report.Records != 1 || !has(report, verify.NotChecked, incident.Released, "none of the identities") {
				t.Error(table(t, report))
			}
		}
	})
	t.Run("asked about one sort", func(t *testing.T) {
		incident := verifytest.NewIncident(t, authority, lacks("custody-2"))
		if report := check(t, incident, authority.TrustKey(), incident.Released); report.Verdict() != verify.Verified {
			t.Error(table(t, report))
		}
		demand(t, check(t, incident, authority.Trust(), incident.Released), "statement over custody-2", verify.CheckSignature)
	})
}

// TestAStolenModeIsToldWhereNothingIsSealed: what lies among the bundles has to be signed by both sorts as well.
func TestAStolenModeIsToldWhereNothingIsSealed(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := unsealed(t, authority)
	key := besideKey(v1alpha1.StepSnapshot)(incident)
	incident.Delete(key)
	first := strings.Replace(key, ".fulcio-keyless", "", 1)
	report := check(t, incident, authority.TrustBoth(), incident.Prefix+"/")
	demand(t, report, verify.LinkChain, verify.CheckComplete)
	if !has(report, verify.NotChecked, "object "+first, "none of the identities") {
		t.Error(table(t, report))
	}
	incident.Delete(evidence.CountersignatureKey(evidence.TriggerBundleKey(verifytest.TriggerUID), evidence.ModeKeyless))
	demand(t, check(t, incident, authority.TrustBoth(), incident.Prefix+"/"), "statement "+verifytest.TriggerUID+".sigstore.json", verify.CheckSignature)
}

// TestOneModeTwiceIsRefused has the identity sign first and countersign.
func TestOneModeTwiceIsRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	twice := verifytest.Change{Countersigner: func(string) verifytest.Signature { return verifytest.Keyless() }}
	incident := verifytest.NewIncident(t, authority, twice)
	for name, trust := range map[string]*attest.Trust{"identity": authority.Trust(), "both": authority.TrustBoth()} {
		report := check(t, incident, trust, incident.Released)
		for _, link := range []string{"statement se-trigger in fulcio-keyless", "statement over custody-2 in fulcio-keyless"} {
			demand(t, report, link, verify.CheckStatement)
			if !has(report, verify.Failed, link, "in the same mode") {
				t.Errorf("%s:\n%s", name, table(t, report))
			}
		}
	}
}

// TestAnUnreadCountersignatureOfAnUnsealedTriggerIsNotRefused asks about the one that the store does not give.
func TestAnUnreadCountersignatureOfAnUnsealedTriggerIsNotRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := unsealed(t, authority)
	for _, key := range []string{
		evidence.CountersignatureKey(evidence.TriggerBundleKey(verifytest.TriggerUID), evidence.ModeKeyless), besideKey(v1alpha1.StepFreeze)(incident),
	} {
		for name, trust := range map[string]*attest.Trust{"identity": authority.Trust(), "both": authority.TrustBoth()} {
			report := check(t, broken{incident, key}, trust, incident.Prefix+"/")
			if report.Verdict() != verify.Incomplete {
				t.Errorf("%s away, asked about %s: verdict %s:\n%s", key, name, report.Verdict(), table(t, report))
			}
		}
	}
}
