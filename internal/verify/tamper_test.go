package verify_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
)

// tampering is one thing that is not as it should be, and the check that must fail for it.
type tampering struct {
	// change is made before anything is signed, tamper afterwards.
	change      verifytest.Change
	tamper      func(t *testing.T, i *verifytest.Incident)
	link, check string
}

// flip changes one bit in the middle of the newest version of the one key with these parts.
func flip(parts ...string) func(*testing.T, *verifytest.Incident) {
	return func(_ *testing.T, i *verifytest.Incident) { flipAt(i.Newest(i.Key(parts...))) }
}

func flipAt(version *verifytest.Version) {
	version.Data = slices.Clone(version.Data)
	version.Data[len(version.Data)/2] ^= 1
}

func remove(parts ...string) func(*testing.T, *verifytest.Incident) {
	return func(_ *testing.T, i *verifytest.Incident) { i.Delete(i.Key(parts...)) }
}

// exchange swaps the content of two objects, and leaves what the store says of them.
func exchange(first, second func(*verifytest.Incident) string) func(*testing.T, *verifytest.Incident) {
	return func(_ *testing.T, i *verifytest.Incident) {
		a, b := i.Newest(first(i)), i.Newest(second(i))
		a.Data, b.Data = b.Data, a.Data
	}
}

func bundleOf(step v1alpha1.Step) func(*verifytest.Incident) string {
	return func(*verifytest.Incident) string { return v1alpha1.BundleName("uid-" + string(step)) }
}

func key(part string) func(*verifytest.Incident) string {
	return func(i *verifytest.Incident) string { return i.Key(part) }
}

func keyOfBundle(step v1alpha1.Step) func(*verifytest.Incident) string {
	return func(i *verifytest.Incident) string { return i.Key(bundleOf(step)(i)) }
}

// response changes one step's.
func response(step v1alpha1.Step, change func(*v1alpha1.EventResponse)) verifytest.Change {
	return verifytest.Change{Response: func(r *v1alpha1.EventResponse) {
		if r.Labels[v1alpha1.LabelStep] == string(step) {
			change(r)
		}
	}}
}

func predicate(step v1alpha1.Step, change func(*evidence.EventResponsePredicate)) verifytest.Change {
	return verifytest.Change{Predicate: func(p *evidence.EventResponsePredicate) {
		if p.Step == string(step) {
			change(p)
		}
	}}
}

func record(number int, change func(*evidence.Custody)) verifytest.Change {
	return verifytest.Change{Record: func(c *evidence.Custody) {
		if c.Number == number {
			change(c)
		}
	}}
}

func signer(by func(*verifytest.Signature)) verifytest.Change {
	return verifytest.Change{Signer: func(name string) verifytest.Signature {
		signature := verifytest.Keyless()
		if strings.HasSuffix(name, string(v1alpha1.StepSnapshot)) {
			by(&signature)
		}
		return signature
	}}
}

const (
	freezeLink   = "statement er-INCIDENT-podfreeze"
	snapshotLink = "statement er-INCIDENT-filesystem-snapshot"
	segmentLink  = "object forensics/INCIDENT/artifacts/web/rootfs.tar.zst/1"
)

func run(t *testing.T, rows map[string]tampering) {
	t.Helper()
	authority := verifytest.NewAuthority(t)
	trust := authority.Trust()
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			incident := verifytest.NewIncident(t, authority, row.change)
			if row.tamper != nil {
				row.tamper(t, incident)
			}
			report := check(t, incident, trust, incident.Released)
			demand(t, report, strings.ReplaceAll(row.link, "INCIDENT", incident.Name), row.check)
		})
	}
}

// demand wants the report to refuse, and to name the link.
func demand(t *testing.T, report *verify.Report, link, check string) {
	t.Helper()
	if report.Verdict() != verify.Refused {
		t.Errorf("verdict %s:\n%s", report.Verdict(), table(t, report))
	}
	named := slices.ContainsFunc(report.Checks, func(c verify.Check) bool {
		return c.Link == link && c.Check == check && c.Status == verify.Failed && c.Reason != ""
	})
	if !named {
		t.Errorf("%s of %q did not fail:\n%s", check, link, table(t, report))
	}
}

func TestChangedBytesAreRefused(t *testing.T) {
	run(t, map[string]tampering{
		"a byte of the trigger's bundle":          {tamper: flip("attestations/"), link: "statement se-trigger", check: verify.CheckDigest},
		"a byte of a step's bundle":               {tamper: flip(bundleOf(v1alpha1.StepFreeze)(nil)), link: freezeLink, check: verify.CheckDigest},
		"a byte of the bundle over custody-1":     {tamper: flip("custody-1", "sigstore"), link: "statement over custody-1", check: verify.CheckDigest},
		"a byte of the manifest":                  {tamper: flip("manifest-"), link: verify.LinkManifest, check: verify.CheckDigest},
		"a byte of a segment":                     {tamper: flip("rootfs.tar.zst/1"), link: segmentLink, check: verify.CheckDigest},
		"the stream of a changed segment":         {tamper: flip("rootfs.tar.zst/1"), link: "artifact " + verifytest.RootArtifact, check: verify.CheckStream},
		"a byte of an index":                      {tamper: flip("rootfs.index"), link: "object forensics/INCIDENT/artifacts/web/rootfs.index.ndjson.zst", check: verify.CheckDigest},
		"the tree of a changed index":             {tamper: flip("rootfs.index"), link: "artifact " + verifytest.RootArtifact, check: verify.CheckMerkle},
		"a byte of a timeline":                    {tamper: flip("rootfs.timeline"), link: "object forensics/INCIDENT/artifacts/web/rootfs.timeline.zst", check: verify.CheckDigest},
		"a byte of the list of gaps":              {tamper: flip("gaps.jsonl"), link: "object forensics/INCIDENT/artifacts/gaps.jsonl", check: verify.CheckDigest},
		"a byte of custody-1":                     {tamper: func(_ *testing.T, i *verifytest.Incident) { flipAt(i.Newest(i.Captured)) }, link: "custody-1", check: verify.CheckDigest},
		"two segments exchanged":                  {tamper: exchange(key("rootfs.tar.zst/0"), key("rootfs.tar.zst/1")), link: segmentLink, check: verify.CheckDigest},
		"two steps' bundles exchanged":            {tamper: exchange(keyOfBundle(v1alpha1.StepFreeze), keyOfBundle(v1alpha1.StepSnapshot)), link: snapshotLink, check: verify.CheckStatement},
		"two steps' bundles exchanged, the bytes": {tamper: exchange(keyOfBundle(v1alpha1.StepFreeze), keyOfBundle(v1alpha1.StepSnapshot)), link: freezeLink, check: verify.CheckDigest},
		"a segment cut": {tamper: func(_ *testing.T, i *verifytest.Incident) {
			version := i.Newest(i.Key("rootfs.tar.zst/1"))
			version.Data = version.Data[:len(version.Data)-1]
		}, link: segmentLink, check: verify.CheckDigest},
		"an older version of a segment": {tamper: func(_ *testing.T, i *verifytest.Incident) {
			i.Newest(i.Key("rootfs.tar.zst/1")).Object.VersionID = "older"
		}, link: segmentLink, check: verify.CheckDigest},
		"a step's bundle taken from another incident": {tamper: func(t *testing.T, i *verifytest.Incident) {
			other := verifytest.NewIncidentOf(t, i.Authority, "another", verifytest.Change{})
			i.Newest(i.Key(bundleOf(v1alpha1.StepFreeze)(i))).Data = other.Newest(other.Key(bundleOf(v1alpha1.StepFreeze)(i))).Data
		}, link: freezeLink, check: verify.CheckDigest},
	})
}

func TestMissingObjectsAreRefused(t *testing.T) {
	run(t, map[string]tampering{
		"a step's bundle":          {tamper: remove(bundleOf(v1alpha1.StepSnapshot)(nil)), link: snapshotLink, check: verify.CheckDigest},
		"a step, and completeness": {tamper: remove(bundleOf(v1alpha1.StepSnapshot)(nil)), link: verify.LinkChain, check: verify.CheckComplete},
		"the trigger's bundle":     {tamper: remove("attestations/"), link: verify.LinkChain, check: verify.CheckComplete},
		"the manifest":             {tamper: remove("manifest-"), link: verify.LinkManifest, check: verify.CheckDigest},
		"a segment":                {tamper: remove("rootfs.tar.zst/1"), link: segmentLink, check: verify.CheckDigest},
		"custody-1":                {tamper: func(_ *testing.T, i *verifytest.Incident) { i.Delete(i.Captured) }, link: "custody-1", check: verify.CheckDigest},
		"the bundle over custody-2": {
			tamper: func(_ *testing.T, i *verifytest.Incident) { i.Delete(evidence.CustodyBundleKey(i.Released)) },
			link:   "statement over custody-2", check: verify.CheckDigest,
		},
	})
}

func TestWeakerLocksAreRefused(t *testing.T) {
	weaken := func(parts []string, change func(*verifytest.Version)) func(*testing.T, *verifytest.Incident) {
		return func(_ *testing.T, i *verifytest.Incident) { change(i.Newest(i.Key(parts...))) }
	}
	shorter := func(v *verifytest.Version) { v.Object.Lock.RetainUntil = v.Object.Lock.RetainUntil.Add(-time.Second) }
	last := func(i *verifytest.Incident) *verifytest.Version {
		return i.Newest(evidence.CustodyBundleKey(i.Released))
	}
	segment := []string{"rootfs.tar.zst/1"}
	run(t, map[string]tampering{
		"retention of a segment shortened":  {tamper: weaken(segment, shorter), link: segmentLink, check: verify.CheckLock},
		"retention of the manifest":         {tamper: weaken([]string{"manifest-"}, shorter), link: verify.LinkManifest, check: verify.CheckLock},
		"retention of a bundle":             {tamper: weaken([]string{bundleOf(v1alpha1.StepSnapshot)(nil)}, shorter), link: snapshotLink, check: verify.CheckLock},
		"retention of custody-1":            {tamper: func(_ *testing.T, i *verifytest.Incident) { shorter(i.Newest(i.Captured)) }, link: "custody-1", check: verify.CheckLock},
		"retention of custody-2":            {tamper: func(_ *testing.T, i *verifytest.Incident) { shorter(i.Newest(i.Released)) }, link: "custody-2", check: verify.CheckLock},
		"retention of the last bundle":      {tamper: func(_ *testing.T, i *verifytest.Incident) { shorter(last(i)) }, link: "statement over custody-2", check: verify.CheckLock},
		"mode of the last bundle":           {tamper: func(_ *testing.T, i *verifytest.Incident) { last(i).Object.Lock.Mode = "GOVERNANCE" }, link: "statement over custody-2", check: verify.CheckLock},
		"mode of a segment downgraded":      {tamper: weaken(segment, func(v *verifytest.Version) { v.Object.Lock.Mode = "GOVERNANCE" }), link: segmentLink, check: verify.CheckLock},
		"mode of a bundle downgraded":       {tamper: weaken([]string{bundleOf(v1alpha1.StepSnapshot)(nil)}, func(v *verifytest.Version) { v.Object.Lock.Mode = "GOVERNANCE" }), link: snapshotLink, check: verify.CheckLock},
		"a segment without a lock":          {tamper: weaken(segment, func(v *verifytest.Version) { v.Object.Lock.Mode = "" }), link: segmentLink, check: verify.CheckLock},
		"a record that asks for less":       {change: record(2, func(c *evidence.Custody) { c.Objects[0].RetainUntil = c.RetainUntil.Add(-time.Hour) }), link: "custody-2", check: verify.CheckListed},
		"a record that asks for less later": {change: record(2, func(c *evidence.Custody) { c.Objects[0].RetainUntil = c.RetainUntil.Add(time.Hour) }), link: "custody-2", check: verify.CheckRecords},
	})
}

func TestSignaturesByOthersAreRefused(t *testing.T) {
	run(t, map[string]tampering{
		"a valid but wrong identity":     {change: signer(func(s *verifytest.Signature) { s.Identity += "-2" }), link: snapshotLink, check: verify.CheckSignature},
		"a valid but wrong issuer":       {change: signer(func(s *verifytest.Signature) { s.Issuer = "https://elsewhere" }), link: snapshotLink, check: verify.CheckSignature},
		"stamped after the certificate":  {change: signer(func(s *verifytest.Signature) { s.CertifiedAt = time.Now().Add(-time.Hour) }), link: snapshotLink, check: verify.CheckSignature},
		"stamped before the certificate": {change: signer(func(s *verifytest.Signature) { s.CertifiedAt = time.Now().Add(time.Hour) }), link: snapshotLink, check: verify.CheckSignature},
		"the log entry of another":       {change: signer(func(s *verifytest.Signature) { s.Logged = []byte("{}") }), link: snapshotLink, check: verify.CheckSignature},
		"another statement by the same identity": {tamper: func(_ *testing.T, i *verifytest.Incident) {
			i.Newest(i.Key(bundleOf(v1alpha1.StepSnapshot)(i))).Data = i.Authority.Seal([]byte("{}"), verifytest.Keyless())
		}, link: snapshotLink, check: verify.CheckDigest},
	})
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	believe := func(root *verifytest.Authority, identity, issuer string) *attest.Trust {
		trust, err := attest.LoadTrust(root.TrustedRoot(), nil, attest.Identity{Name: identity, Issuer: issuer})
		if err != nil {
			t.Fatal(err)
		}
		return trust
	}
	for name, trust := range map[string]*attest.Trust{
		"another trusted root":     verifytest.NewAuthority(t).Trust(),
		"another trusted identity": believe(authority, verifytest.Identity+"-2", verifytest.Issuer),
		"another trusted issuer":   believe(authority, verifytest.Identity, "https://elsewhere"),
	} {
		t.Run(name, func(t *testing.T) {
			report := check(t, incident, trust, incident.Released)
			for _, link := range []string{"statement over custody-2", "statement se-trigger", "statement over custody-1"} {
				demand(t, report, link, verify.CheckSignature)
			}
		})
	}
}

func TestRecordsThatDoNotFitAreRefused(t *testing.T) {
	drop := func(c *evidence.Custody) { c.Statements = slices.Delete(c.Statements, 2, 3) }
	both := func(change func(*evidence.Custody)) verifytest.Change { return verifytest.Change{Record: change} }
	run(t, map[string]tampering{
		"a step dropped":                       {change: record(2, drop), link: "custody-2", check: verify.CheckRecords},
		"a step dropped from both":             {change: both(drop), link: verify.LinkChain, check: verify.CheckComplete},
		"a step dropped from both, its parent": {change: both(drop), link: "statement er-INCIDENT-evidence-upload", check: verify.CheckPrevious},
		"a step doubled":                       {change: both(func(c *evidence.Custody) { c.Statements = slices.Insert(c.Statements, 2, c.Statements[1]) }), link: verify.LinkChain, check: verify.CheckOrder},
		"two steps swapped":                    {change: both(func(c *evidence.Custody) { c.Statements[1], c.Statements[2] = c.Statements[2], c.Statements[1] }), link: verify.LinkChain, check: verify.CheckOrder},
		"the trigger last": {change: both(func(c *evidence.Custody) {
			c.Statements = append(c.Statements[1:], c.Statements[0])
		}), link: verify.LinkChain, check: verify.CheckOrder},
		"no release":             {change: record(2, func(c *evidence.Custody) { c.Statements = c.Statements[:len(c.Statements)-1] }), link: verify.LinkChain, check: verify.CheckComplete},
		"an object dropped":      {change: both(func(c *evidence.Custody) { c.Objects = c.Objects[1:] }), link: "custody-2", check: verify.CheckListed},
		"an object dropped late": {change: record(2, func(c *evidence.Custody) { c.Objects = c.Objects[1:] }), link: "custody-2", check: verify.CheckRecords},
		"an object twice":        {change: both(func(c *evidence.Custody) { c.Objects = append(c.Objects, c.Objects[0]) }), link: "custody-2", check: verify.CheckListed},
		"an object of nobody": {change: both(func(c *evidence.Custody) {
			added := c.Objects[0]
			added.VersionID = "other"
			c.Objects = append(c.Objects, added)
		}), link: "custody-2", check: verify.CheckListed},
		"another digest of an object":  {change: both(func(c *evidence.Custody) { c.Objects[0].SHA256 = c.Objects[1].SHA256 }), link: "custody-2", check: verify.CheckListed},
		"another digest of a payload":  {change: both(func(c *evidence.Custody) { c.Statements[1].PayloadSHA256 = c.Statements[0].PayloadSHA256 }), link: freezeLink, check: verify.CheckStatement},
		"another subject":              {change: both(func(c *evidence.Custody) { c.Statements[1].Subject.UID = "other" }), link: freezeLink, check: verify.CheckStatement},
		"another step":                 {change: both(func(c *evidence.Custody) { c.Statements[1].Step = "podunfreeze" }), link: freezeLink, check: verify.CheckStatement},
		"another version of the shape": {change: both(func(c *evidence.Custody) { c.Version = "v2" }), link: "custody-2", check: verify.CheckForm},
		"no record before the second":  {change: record(2, func(c *evidence.Custody) { c.Previous = nil }), link: "custody-2", check: verify.CheckForm},
		"another trigger":              {change: both(func(c *evidence.Custody) { c.Trigger.UID = "other" }), link: verify.LinkFacts, check: verify.CheckSameIncident},
		"signed with another number":   {change: verifytest.Change{Incident: func(p *evidence.IncidentPredicate) { p.Number = 1 }}, link: "statement over custody-2", check: verify.CheckPrevious},
		"signed after another payload": {change: verifytest.Change{Incident: func(p *evidence.IncidentPredicate) { p.Previous = "other" }}, link: "statement over custody-2", check: verify.CheckPrevious},
		"signed after another record":  {change: verifytest.Change{Incident: func(p *evidence.IncidentPredicate) { p.PreviousCustody = "" }}, link: "statement over custody-2", check: verify.CheckPrevious},
		"signed for another incident":  {change: verifytest.Change{Incident: func(p *evidence.IncidentPredicate) { p.Incident.UID = "other" }}, link: "statement over custody-2", check: verify.CheckPrevious},
		"a byte of custody-2":          {tamper: flipDigit, link: "custody-2", check: verify.CheckForm},
		"white space in custody-2":     {tamper: space, link: "custody-2", check: verify.CheckForm},
	})
}

// flipDigit changes a digest in the record and leaves it canonical JSON.
func flipDigit(t *testing.T, i *verifytest.Incident) {
	t.Helper()
	version := i.Newest(i.Released)
	var custody evidence.Custody
	if err := json.Unmarshal(version.Data, &custody); err != nil {
		t.Fatal(err)
	}
	digest := []byte(custody.Objects[0].SHA256)
	digest[0] ^= 1
	custody.Objects[0].SHA256 = string(digest)
	data, err := evidence.Canonical(custody)
	if err != nil {
		t.Fatal(err)
	}
	version.Data = data
}

func space(_ *testing.T, i *verifytest.Incident) {
	version := i.Newest(i.Released)
	version.Data = append(slices.Clone(version.Data), '\n')
}

func TestStatementsThatDoNotFitAreRefused(t *testing.T) {
	manifest := func(change func(*evidence.Manifest)) verifytest.Change { return verifytest.Change{Manifest: change} }
	run(t, map[string]tampering{
		"another statement before it":   {change: predicate(v1alpha1.StepSnapshot, func(p *evidence.EventResponsePredicate) { p.Previous = evidence.Digest(nil) }), link: snapshotLink, check: verify.CheckPrevious},
		"no statement before it":        {change: predicate(v1alpha1.StepSnapshot, func(p *evidence.EventResponsePredicate) { p.Previous = "" }), link: snapshotLink, check: verify.CheckPrevious},
		"a statement before the first":  {change: predicate(v1alpha1.StepFreeze, func(p *evidence.EventResponsePredicate) { p.Previous = evidence.Digest(nil) }), link: freezeLink, check: verify.CheckPrevious},
		"an attempt that is missing":    {change: response(v1alpha1.StepUnfreeze, func(r *v1alpha1.EventResponse) { r.Spec.Attempt = 2 }), link: verify.LinkChain, check: verify.CheckComplete},
		"a step that was not ordered":   {change: predicate(v1alpha1.StepSnapshot, func(p *evidence.EventResponsePredicate) { p.Step = string(v1alpha1.StepUpload) }), link: snapshotLink, check: verify.CheckStatement},
		"a manifest that the node made": {change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) { r.Status.Artifacts[0].Kind = v1alpha1.ArtifactManifest }), link: snapshotLink, check: verify.CheckStatement},
		"cluster state of the node":     {change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) { r.Status.Artifacts[0].Kind = v1alpha1.ArtifactClusterState }), link: snapshotLink, check: verify.CheckStatement},
		"an order that nobody knows":    {change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) { r.Spec.Action.Type = "Other" }), link: snapshotLink, check: verify.CheckStatement},
		"nobody read back":              {change: predicate(v1alpha1.StepSnapshot, func(p *evidence.EventResponsePredicate) { p.ReadBack = nil }), link: snapshotLink, check: verify.CheckReadBack},
		"the read-back disagrees":       {change: predicate(v1alpha1.StepSnapshot, func(p *evidence.EventResponsePredicate) { p.ReadBack.Agrees = false }), link: snapshotLink, check: verify.CheckReadBack},
		"the node read back itself":     {change: predicate(v1alpha1.StepSnapshot, func(p *evidence.EventResponsePredicate) { p.ReadBack.By = p.Artifacts[0].Asserted.By }), link: snapshotLink, check: verify.CheckReadBack},
		"another digest was observed":   {change: predicate(v1alpha1.StepSnapshot, func(p *evidence.EventResponsePredicate) { p.Artifacts[1].Segments[0].ObservedSHA256 = "" }), link: snapshotLink, check: verify.CheckReadBack},
		"another Merkle root":           {change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) { r.Status.Artifacts[1].MerkleRoot = evidence.Digest(nil) }), link: "artifact " + verifytest.RootArtifact, check: verify.CheckMerkle},
		"another number of lines":       {change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) { r.Status.Artifacts[1].IndexLines-- }), link: "artifact " + verifytest.RootArtifact, check: verify.CheckMerkle},
		"another size of a stream":      {change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) { r.Status.Artifacts[1].Size-- }), link: "artifact " + verifytest.RootArtifact, check: verify.CheckStream},
		"a manifest with an artifact":   {change: manifest(func(m *evidence.Manifest) { m.Artifacts = append(m.Artifacts, m.Artifacts[0]) }), link: verify.LinkManifest, check: verify.CheckAgrees},
		"a manifest without one":        {change: manifest(func(m *evidence.Manifest) { m.Artifacts = m.Artifacts[1:] }), link: verify.LinkManifest, check: verify.CheckAgrees},
		"a manifest with another":       {change: manifest(func(m *evidence.Manifest) { m.Artifacts[1].Truncated = true }), link: verify.LinkManifest, check: verify.CheckAgrees},
		"a manifest of another freeze":  {change: manifest(func(m *evidence.Manifest) { m.Containment = json.RawMessage(`{}`) }), link: verify.LinkManifest, check: verify.CheckAgrees},
		"a manifest of another end":     {change: manifest(func(m *evidence.Manifest) { m.Responses[0].Phase = "Failed" }), link: verify.LinkManifest, check: verify.CheckAgrees},
		"a manifest of another shape":   {change: manifest(func(m *evidence.Manifest) { m.Version = "v9" }), link: verify.LinkManifest, check: verify.CheckForm},
		"another manifest is announced": {change: verifytest.Change{Event: func(e *v1alpha1.SecurityEvent) { announce(e, "sha256") }}, link: verify.LinkManifest, check: verify.CheckAnnounced},
		"another version is announced":  {change: verifytest.Change{Event: func(e *v1alpha1.SecurityEvent) { announce(e, "version") }}, link: verify.LinkManifest, check: verify.CheckAnnounced},
		"another key is announced":      {change: verifytest.Change{Event: func(e *v1alpha1.SecurityEvent) { announce(e, "key") }}, link: verify.LinkManifest, check: verify.CheckAnnounced},
	})
}

// announce has the Completed event name another manifest.
func announce(event *v1alpha1.SecurityEvent, what string) {
	told := event.Spec.Evidence
	switch {
	case told == nil:
	case what == "sha256":
		told.SHA256 = evidence.Digest(nil)
	case what == "version":
		told.VersionID = "other"
	default:
		told.URL += "x"
	}
}

func TestFactsThatContradictEachOtherAreRefused(t *testing.T) {
	trigger := func(change func(*v1alpha1.SecurityEvent)) verifytest.Change {
		return verifytest.Change{Event: func(e *v1alpha1.SecurityEvent) {
			if e.Spec.Class != v1alpha1.ClassForensic {
				change(e)
			}
		}}
	}
	completed := func(change func(*v1alpha1.SecurityEvent)) verifytest.Change {
		return verifytest.Change{Event: func(e *v1alpha1.SecurityEvent) {
			if e.Spec.Class == v1alpha1.ClassForensic {
				change(e)
			}
		}}
	}
	pod, incident := verify.CheckSamePod, verify.CheckSameIncident
	facts := map[string]tampering{
		"contained after the capture began": {check: verify.CheckContainedFirst, change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) { r.Status.StartedAt.Time = r.Status.StartedAt.Add(-time.Hour) })},
		"frozen after the capture began": {check: verify.CheckFrozenThroughout, change: response(v1alpha1.StepFreeze, func(r *v1alpha1.EventResponse) {
			late := &r.Status.Containment.Containers[0].FrozenAt.Time
			*late = late.Add(time.Hour)
		})},
		"never frozen":               {check: verify.CheckFrozenThroughout, change: response(v1alpha1.StepFreeze, func(r *v1alpha1.EventResponse) { r.Status.Containment.Containers[0].FrozenAt = nil })},
		"thawed during the capture":  {check: verify.CheckFrozenThroughout, change: response(v1alpha1.StepUnfreeze, func(r *v1alpha1.EventResponse) { thaw(r, -time.Minute) })},
		"a container that is no-one": {check: verify.CheckFrozenThroughout, change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) { r.Status.Artifacts[1].Container = "other" })},
		"another pod in a step":      {check: pod, change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) { r.Spec.PodRef.UID = "other" })},
		"another node in a step":     {check: pod, change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) { r.Spec.NodeName = "other" })},
		"another pod in the trigger": {check: pod, change: trigger(func(e *v1alpha1.SecurityEvent) { e.Spec.Subject.UID = "other" })},
		"another name of the pod":    {check: pod, change: trigger(func(e *v1alpha1.SecurityEvent) { e.Spec.Subject.Name = "other" })},
		"another pod in the end":     {check: pod, change: completed(func(e *v1alpha1.SecurityEvent) { e.Spec.Subject.UID = "" })},
		"another pod in the manifest": {check: pod, change: verifytest.Change{Manifest: func(m *evidence.Manifest) {
			m.Pod.UID = "other"
		}}},
		"another incident in a step": {check: incident, change: response(v1alpha1.StepFreeze, func(r *v1alpha1.EventResponse) { r.Spec.IncidentUID = "other" })},
		"another trigger of a step":  {check: incident, change: response(v1alpha1.StepFreeze, func(r *v1alpha1.EventResponse) { r.Spec.SecurityEventRef.UID = "other" })},
		"another incident at the end": {check: incident, change: completed(func(e *v1alpha1.SecurityEvent) {
			e.Spec.Incident.UID = "other"
		})},
		"another trigger at the end":       {check: incident, change: completed(func(e *v1alpha1.SecurityEvent) { e.Spec.Trigger.UID = "other" })},
		"another trigger in the manifest":  {check: incident, change: verifytest.Change{Manifest: func(m *evidence.Manifest) { m.Trigger.UID = "other" }}},
		"another incident in the manifest": {check: incident, change: verifytest.Change{Manifest: func(m *evidence.Manifest) { m.Incident.UID = "other" }}},
		"the trigger of another name":      {check: incident, change: trigger(func(e *v1alpha1.SecurityEvent) { e.UID = "other" })},
	}
	for name, row := range facts {
		row.link = verify.LinkFacts
		facts[name] = row
	}
	run(t, facts)
}

func thaw(r *v1alpha1.EventResponse, by time.Duration) {
	at := &r.Status.Containment.Containers[0].ThawedAt.Time
	*at = at.Add(by)
}
