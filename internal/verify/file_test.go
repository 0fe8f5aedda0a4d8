package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
)

func proveFile(t *testing.T, incident *verifytest.Incident, prover verify.Prover, name string) (*verify.Report, []verify.FileProof) {
	t.Helper()
	report, proofs, err := verify.File(t.Context(), incident, prover, verify.Target{Key: incident.Released}, verify.FileQuery{Path: name})
	if err != nil {
		t.Fatal(err)
	}
	return report, proofs
}

func TestOneFileIsProvenByItsFramesAlone(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	for name, digest := range map[string]string{
		"/etc/passwd":    verifytest.ContentSHA256("passwd", 700),
		"/usr/bin/x":     verifytest.ContentSHA256("x", 3000),
		"usr/bin/y":      verifytest.ContentSHA256("x", 3000),
		"/usr/lib/large": verifytest.ContentSHA256("large", 5<<13),
	} {
		incident.Read = 0
		report, proofs := proveFile(t, incident, authority.Trust(), name)
		if report.Verdict() != verify.Verified || len(proofs) != 1 {
			t.Fatalf("%s: %d proofs:\n%s", name, len(proofs), table(t, report))
		}
		proof := proofs[0]
		line := proof.Entry.AppendCanonical(nil)
		if err := proof.Inclusion.Verify(line, incident.Archive.Root); err != nil || proof.Entry.SHA256 != digest || proof.MerkleRoot != incident.Archive.Root {
			t.Errorf("%s: %+v, %v", name, proof, err)
		}
		want := max(proof.Entry.Position.FrameSize, proof.Entry.Position.Span)
		if proof.FrameBytes != want || want >= int64(len(incident.Archive.Stream)) || proof.IndexBytes != int64(len(incident.Archive.Index)) {
			t.Errorf("%s: read %d bytes of frames, its frames have %d, the archive %d", name, proof.FrameBytes, want, len(incident.Archive.Stream))
		}
	}
	if large := int64(len(incident.Archive.Stream)); incident.Read > 10*large {
		t.Errorf("read %d bytes", incident.Read)
	}
}

// shorten the retention of the one key with this part.
func shorten(part string) func(*testing.T, *verifytest.Incident) {
	return func(_ *testing.T, i *verifytest.Incident) {
		lock := &i.Newest(i.Key(part)).Object.Lock
		lock.RetainUntil = lock.RetainUntil.Add(-time.Second)
	}
}

func TestAFileThatIsNotAsSignedIsRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	readBack := func(change func(*evidence.EventResponsePredicate)) verifytest.Change {
		return predicate(v1alpha1.StepSnapshot, change)
	}
	const indexLink = "object forensics/INCIDENT/artifacts/web/rootfs.index.ndjson.zst"
	rows := map[string]struct {
		tampering
		file string
	}{
		"no such file":    {tampering{link: "file /etc/shadow", check: verify.CheckIncluded}, "/etc/shadow"},
		"a changed frame": {tampering{tamper: flipFrame, check: verify.CheckContent}, "/usr/lib/large"},
		"a changed index": {tampering{tamper: flip("rootfs.index"), check: verify.CheckDigest}, "/etc/passwd"},
		"another root": {tampering{change: response(v1alpha1.StepSnapshot, func(r *v1alpha1.EventResponse) {
			r.Status.Artifacts[1].MerkleRoot = evidence.Digest(nil)
		}), check: verify.CheckMerkle}, "/etc/passwd"},
		"a wrong signer": {tampering{
			change: signer(func(s *verifytest.Signature) { s.Identity += "-2" }),
			link:   snapshotLink, check: verify.CheckSignature,
		}, "/etc/passwd"},
		"nobody read back":          {tampering{change: readBack(func(p *evidence.EventResponsePredicate) { p.ReadBack = nil }), link: snapshotLink, check: verify.CheckReadBack}, "/etc/passwd"},
		"the read-back disagrees":   {tampering{change: readBack(func(p *evidence.EventResponsePredicate) { p.ReadBack.Agrees = false }), link: snapshotLink, check: verify.CheckReadBack}, "/etc/passwd"},
		"the node read back itself": {tampering{change: readBack(func(p *evidence.EventResponsePredicate) { p.ReadBack.By = p.Artifacts[0].Asserted.By }), link: snapshotLink, check: verify.CheckReadBack}, "/etc/passwd"},
		"an index kept too short":   {tampering{tamper: shorten("rootfs.index"), link: indexLink, check: verify.CheckLock}, "/etc/passwd"},
		"a segment kept too short":  {tampering{tamper: shorten("rootfs.tar.zst/0"), link: strings.TrimSuffix(segmentLink, "1") + "0", check: verify.CheckLock}, "/etc/passwd"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			incident := verifytest.NewIncident(t, authority, row.change)
			if row.tamper != nil {
				row.tamper(t, incident)
			}
			if row.link == "" {
				row.link = "file " + row.file + " in " + verifytest.RootArtifact
			}
			report, _ := proveFile(t, incident, authority.Trust(), row.file)
			demand(t, report, strings.ReplaceAll(row.link, "INCIDENT", incident.Name), row.check)
		})
	}
}

// TestAFileThatNobodyLookedForIsNotRefused: what cannot be searched neither proves a file nor refutes it.
func TestAFileThatNobodyLookedForIsNotRefused(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	index := func(change func(*evidence.Artifact)) verifytest.Change {
		return predicate(v1alpha1.StepSnapshot, func(p *evidence.EventResponsePredicate) { change(&p.Artifacts[1]) })
	}
	away := func(parts ...string) func(*verifytest.Incident) verify.Source {
		return func(i *verifytest.Incident) verify.Source { return broken{i, i.Key(parts...)} }
	}
	here := func(i *verifytest.Incident) verify.Source { return i }
	rows := map[string]struct {
		change verifytest.Change
		source func(*verifytest.Incident) verify.Source
		reason string
	}{
		"an index that cannot be read":    {source: away("rootfs.index"), reason: "1 could not be searched"},
		"a statement that cannot be read": {source: away(bundleOf(v1alpha1.StepSnapshot)(nil)), reason: "not all statements could be read"},
		"an encrypted index":              {index(func(a *evidence.Artifact) { a.Index.Plain = &evidence.PlainContent{} }), here, "1 could not be searched"},
		"an index that is too large":      {index(func(a *evidence.Artifact) { a.Index.Size = 1<<30 + 1 }), here, "1 could not be searched"},
		"an index that was not stored":    {index(func(a *evidence.Artifact) { a.Index = nil }), here, "1 could not be searched"},
	}
	for name, row := range rows {
		for _, file := range []string{"/etc/passwd", "/etc/shadow"} {
			t.Run(name+", "+file, func(t *testing.T) {
				incident := verifytest.NewIncident(t, authority, row.change)
				report, proofs, err := verify.File(t.Context(), row.source(incident), authority.Trust(), verify.Target{Key: incident.Released}, verify.FileQuery{Path: file})
				if err != nil || len(proofs) != 0 || report.Verdict() != verify.Incomplete || !has(report, verify.Unread, verify.LinkFile+file, row.reason) {
					t.Errorf("%d proofs, %v, verdict %s:\n%s", len(proofs), err, report.Verdict(), table(t, report))
				}
			})
		}
	}
}

// TestOneIndexThatWasSearchedRefutesNothingInAnother has two archives, of one of which the index is encrypted.
func TestOneIndexThatWasSearchedRefutesNothingInAnother(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	change := predicate(v1alpha1.StepSnapshot, func(p *evidence.EventResponsePredicate) { p.Artifacts[1].Index.Plain = &evidence.PlainContent{} })
	change.MoreArchives = 1
	incident := verifytest.NewIncident(t, authority, change)
	link := verify.LinkFile + "/etc/shadow"
	report, _ := proveFile(t, incident, authority.Trust(), "/etc/shadow")
	if report.Verdict() != verify.Incomplete || !has(report, verify.NotChecked, link+" in "+verifytest.RootArtifact, "encrypted") ||
		!has(report, verify.Unread, link, "no index of 1 names it, 1 could not be searched") {
		t.Error(table(t, report))
	}
	report, proofs := proveFile(t, incident, authority.Trust(), "/etc/passwd")
	if report.Verdict() != verify.Verified || len(proofs) != 1 {
		t.Errorf("%d proofs:\n%s", len(proofs), table(t, report))
	}
}

// ranged is a store from which no archive can be read whole.
type ranged struct {
	*verifytest.Incident
	bytes int64
}

func (r *ranged) Open(ctx context.Context, key, version string) (io.ReadCloser, error) {
	if strings.Contains(key, ".tar.zst/") {
		return nil, errAway
	}
	return r.Incident.Open(ctx, key, version)
}

func (r *ranged) OpenRange(ctx context.Context, key, version string, offset, length int64) (io.ReadCloser, error) {
	r.bytes += length
	return r.Incident.OpenRange(ctx, key, version, offset, length)
}

func TestOneFileDownloadsNoArchive(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	source := &ranged{Incident: verifytest.NewIncident(t, authority, verifytest.Change{})}
	report, proofs, err := verify.File(t.Context(), source, authority.Trust(), verify.Target{Key: source.Released}, verify.FileQuery{Path: "usr/bin/x"})
	if err != nil || report.Verdict() != verify.Verified || len(proofs) != 1 {
		t.Fatalf("%v\n%s", err, table(t, report))
	}
	if at := proofs[0].Entry.Position; source.bytes != max(at.FrameSize, at.Span) || proofs[0].FrameBytes != source.bytes {
		t.Errorf("%d bytes were asked for, %d are told, the frame has %d", source.bytes, proofs[0].FrameBytes, at.FrameSize)
	}
}

// flipFrame changes the middle of the large file, in whichever segment it lies.
func flipFrame(_ *testing.T, i *verifytest.Incident) {
	for _, part := range []string{"rootfs.tar.zst/0", "rootfs.tar.zst/1"} {
		version := i.Newest(i.Key(part))
		version.Data = append([]byte(nil), version.Data...)
		for n := range version.Data {
			version.Data[n] ^= byte(n & 1)
		}
	}
}

// recorded is an archive that the node's agent wrote.
func recorded(t *testing.T, format, mediaType string) *verifytest.Archive {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	archive := &verifytest.Archive{Stream: read("archive.tar." + format), Index: read("archive." + format + ".index.zst"), MediaType: mediaType}
	plain, err := zstd.NewReader(bytes.NewReader(archive.Index))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	lines := evidence.NewIndexReader(plain)
	for _, err = lines.Next(); err == nil; _, err = lines.Next() {
		archive.Lines++
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	archive.Root = lines.Root()
	return archive
}

func TestFilesOfRealArchivesAreProven(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	deep := strings.Repeat("a-folder-with-a-rather-long-name-indeed/", 6)
	for format, mediaType := range map[string]string{"zstd": evidence.MediaTypeTarZstd, "gzip": evidence.MediaTypeTarGzip} {
		incident := verifytest.NewIncident(t, authority, verifytest.Change{Archive: recorded(t, format, mediaType)})
		if report := check(t, incident, authority.Trust(), incident.Released); report.Verdict() != verify.Verified {
			t.Error(table(t, report))
		}
		for _, name := range []string{"usr/bin/x", "usr/bin/y", "large", "sparse", "huge", "caf\xff", "d/" + deep + "deep"} {
			t.Run(format+" "+name, func(t *testing.T) {
				report, proofs := proveFile(t, incident, authority.Trust(), name)
				last := report.Checks[len(report.Checks)-1]
				if report.Verdict() != verify.Verified || len(proofs) != 1 || last.Check != verify.CheckContent || last.Status != verify.Passed {
					t.Error(table(t, report))
				}
			})
		}
		report, _ := proveFile(t, incident, authority.Trust(), "usr/bin")
		if last := report.Checks[len(report.Checks)-1]; last.Status != verify.NotChecked || report.Verdict() != verify.Verified {
			t.Errorf("a folder: %+v", last)
		}
	}
}
