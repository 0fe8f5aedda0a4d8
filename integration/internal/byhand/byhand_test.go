package byhand_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/integration/internal/byhand"
	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
)

// Steps of the document.
const (
	recordSigned     = "2. The last custody record is signed"
	bytesOnRecord    = "3. Every object has the bytes on record"
	statementsSigned = "4. Every statement is signed"
	oneChain         = "5. The statements are one chain, about one pod"
	announced        = "6. The manifest is the one that was announced"
	twoAccounts      = "7. Two accounts agree on every artifact, and so do the stored bytes"
	fileInArchive    = "8. A file in an archive is the one that the index lists"
)

// cosign is the program that the test environment was built with.
func cosign(t *testing.T) string {
	t.Helper()
	path := os.Getenv("FORENSICS_COSIGN")
	testneeds.That(t, path != "", "FORENSICS_COSIGN names no cosign")
	return path
}

func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/verify-by-hand.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// reader has a copy of the incident, as fetch makes it, and what a stranger brings.
func reader(t *testing.T, incident *verifytest.Incident) byhand.Incident {
	t.Helper()
	folder := t.TempDir()
	has := byhand.Incident{
		Folder: filepath.Join(folder, "copy"), TrustedRoot: filepath.Join(folder, "trusted_root.json"), Key: filepath.Join(folder, "key.pub"),
		Identity: verifytest.Identity, Issuer: verifytest.Issuer,
	}
	bring(t, incident.Authority, has)
	copier, err := verify.NewCopier(incident, has.Folder)
	if err != nil {
		t.Fatal(err)
	}
	// Whether the incident verifies is the document's business: the copy has what the store gave.
	if _, err := verify.Incident(t.Context(), copier, incident.Authority.TrustBoth(), verify.Target{Key: incident.Released}); err != nil {
		t.Fatal(err)
	}
	if err := copier.Close(); err != nil {
		t.Fatal(err)
	}
	return has
}

// bring writes what an authority is trusted by.
func bring(t *testing.T, authority *verifytest.Authority, has byhand.Incident) {
	t.Helper()
	root, key := os.WriteFile(has.TrustedRoot, authority.TrustedRoot(), 0o600), os.WriteFile(has.Key, authority.PublicKey(), 0o600)
	if err := errors.Join(root, key); err != nil {
		t.Fatal(err)
	}
}

// byKey has everything signed by the trusted key.
func byKey(string) verifytest.Signature { return verifytest.Signature{Key: true} }

func TestAWholeIncidentVerifiesByHand(t *testing.T) {
	program, authority := cosign(t), verifytest.NewAuthority(t)
	both := verifytest.Change{Signer: byKey, Countersigner: func(string) verifytest.Signature { return verifytest.Keyless() }}
	for name, row := range map[string]struct {
		mode   byhand.Mode
		change verifytest.Change
	}{
		"by key": {byhand.Key, verifytest.Change{Signer: byKey}}, "keyless": {byhand.Keyless, verifytest.Change{}},
		"in both modes, by key": {byhand.Key, both}, "in both modes, keyless": {byhand.Keyless, both},
	} {
		t.Run(name, func(t *testing.T) {
			has := reader(t, verifytest.NewIncident(t, authority, row.change))
			said, err := byhand.Verify(t.Context(), document(t), program, row.mode, has)
			if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			// The record, and what it lists: the trigger, four steps, the Completed event and the record before.
			if proven := strings.Count(said, "Verified OK"); proven != 8 {
				t.Errorf("cosign verified %d bundles, want 8:\n%s", proven, said)
			}
		})
	}
}

// TestARecordThatNobodySignedIsNoneByHand has one put beside that which counts.
func TestARecordThatNobodySignedIsNoneByHand(t *testing.T) {
	program := cosign(t)
	incident := verifytest.NewIncident(t, verifytest.NewAuthority(t), verifytest.Change{})
	has := reader(t, incident)
	added := filepath.Join(has.Folder, evidence.CustodyKey(incident.Prefix, evidence.CustodyReleased, evidence.Digest(nil)))
	if err := os.WriteFile(added, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := byhand.Verify(t.Context(), document(t), program, byhand.Keyless, has); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestWhatThePodChoseRefusesNothingByHand has archives that step 8 cannot, or need not, look into.
func TestWhatThePodChoseRefusesNothingByHand(t *testing.T) {
	program, authority := cosign(t), verifytest.NewAuthority(t)
	named := func(name string) verifytest.Change {
		archive := verifytest.NewArchive(t)
		archive.Index = rewrite(t, archive.Index, `"path":"etc/passwd"`, `"path":"`+name+`"`)
		return verifytest.Change{Archive: &archive}
	}
	archives := func(change func(*evidence.Artifact)) verifytest.Change {
		return verifytest.Change{Predicate: func(p *evidence.EventResponsePredicate) {
			for i := range p.Artifacts {
				if p.Artifacts[i].Index != nil {
					change(&p.Artifacts[i])
				}
			}
		}}
	}
	empty := verifytest.NewArchive(t)
	empty.Index = rewrite(t, empty.Index, `"size":"[0-9]+"`, `"size":"0"`)
	rows := map[string]verifytest.Change{
		"a line break in a name": named(`etc/pass\nwd`),
		"a backslash in a name":  named(`etc/pass\\wd`),
		"a blank before a name":  named(` other`),
		"a blank after a name":   named(`other `),
		"no file with content":   {Archive: &empty},
		"no root filesystem":     archives(func(a *evidence.Artifact) { a.Kind = "Volume" }),
		"archives in gzip":       archives(func(a *evidence.Artifact) { a.MediaType = evidence.MediaTypeTarGzip }),
		"encrypted archives": archives(func(a *evidence.Artifact) {
			for i := range a.Segments {
				a.Segments[i].Plain = &evidence.PlainContent{Size: 1}
			}
		}),
	}
	for name, change := range rows {
		t.Run(name, func(t *testing.T) {
			has := reader(t, verifytest.NewIncident(t, authority, change))
			if said, err := byhand.Verify(t.Context(), document(t), program, byhand.Keyless, has); err != nil {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

// TestACopyOfTheRecordIsNoneByHand has the record that counts lie under another record's name as well.
func TestACopyOfTheRecordIsNoneByHand(t *testing.T) {
	program := cosign(t)
	incident := verifytest.NewIncident(t, verifytest.NewAuthority(t), verifytest.Change{})
	has := reader(t, incident)
	added := evidence.CustodyKey(incident.Prefix, evidence.CustodyReleased, strings.Repeat("f", 64))
	for key, of := range map[string]string{added: incident.Released, evidence.CustodyBundleKey(added): evidence.CustodyBundleKey(incident.Released)} {
		if err := os.WriteFile(filepath.Join(has.Folder, key), incident.Newest(of).Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := byhand.Verify(t.Context(), document(t), program, byhand.Keyless, has); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestNothingOutsideTheFolderIsOpenedByHand has keys lead to a file that is there, with the bytes on record.
func TestNothingOutsideTheFolderIsOpenedByHand(t *testing.T) {
	cosign(t)
	authority := verifytest.NewAuthority(t)
	outside := []byte("outside")
	for name, row := range map[string]struct{ key, file string }{
		"climbing":       {"forensics/../../outside", "../outside"},
		"another folder": {"elsewhere/outside", "elsewhere/outside"},
	} {
		t.Run(name, func(t *testing.T) {
			change := verifytest.Change{Record: func(c *evidence.Custody) {
				c.Objects = append(c.Objects, evidence.CustodyObject{StoredVersion: evidence.StoredVersion{Key: row.key, SHA256: evidence.Digest(outside)}})
			}}
			has := reader(t, verifytest.NewIncident(t, authority, change))
			file := filepath.Join(has.Folder, row.file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, outside, 0o600)); err != nil {
				t.Fatal(err)
			}
			demand(t, byhand.Keyless, has, bytesOnRecord)
		})
	}
	t.Run("of a segment", func(t *testing.T) {
		change := verifytest.Change{Predicate: func(p *evidence.EventResponsePredicate) {
			if p.Step == string(v1alpha1.StepSnapshot) {
				p.Artifacts[0].Segments[0].Key = "/dev/null"
				p.Artifacts[0].Asserted.SHA256, p.Artifacts[0].Observed.SHA256 = evidence.Digest(nil), evidence.Digest(nil)
			}
		}, Manifest: func(m *evidence.Manifest) { m.Artifacts[0].Asserted.SHA256 = evidence.Digest(nil) }}
		demand(t, byhand.Keyless, reader(t, verifytest.NewIncident(t, authority, change)), twoAccounts)
	})
}

// TestTheAgentsOwnArchiveIsReadByHand has tar and zstd read what the node's agent wrote.
func TestTheAgentsOwnArchiveIsReadByHand(t *testing.T) {
	program := cosign(t)
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("../../../internal/verify/testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	archive := &verifytest.Archive{Stream: read("archive.tar.zstd"), Index: read("archive.zstd.index.zst"), MediaType: evidence.MediaTypeTarZstd}
	has := reader(t, verifytest.NewIncident(t, verifytest.NewAuthority(t), verifytest.Change{Archive: archive}))
	if said, err := byhand.Verify(t.Context(), document(t), program, byhand.Keyless, has); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// demand runs the document and demands that a step refuses.
func demand(t *testing.T, mode byhand.Mode, has byhand.Incident, step string) {
	t.Helper()
	said, err := byhand.Verify(t.Context(), document(t), cosign(t), mode, has)
	var refused *byhand.RefusedError
	if !errors.As(err, &refused) || refused.Step != step {
		t.Errorf("%v\n%s\nwant a refusal by step %q", err, said, step)
	}
}

// TestAnotherTrustIsRefusedByHand leaves the incident as it is.
func TestAnotherTrustIsRefusedByHand(t *testing.T) {
	cosign(t)
	authority, stranger := verifytest.NewAuthority(t), verifytest.NewAuthority(t)
	rows := map[string]struct {
		mode   byhand.Mode
		change func(*testing.T, *byhand.Incident)
	}{
		"another identity": {byhand.Keyless, func(_ *testing.T, has *byhand.Incident) { has.Identity += "-of-another" }},
		"another issuer":   {byhand.Keyless, func(_ *testing.T, has *byhand.Incident) { has.Issuer += ".invalid" }},
		"another root":     {byhand.Keyless, func(t *testing.T, has *byhand.Incident) { bring(t, stranger, *has) }},
		"a key":            {byhand.Key, func(*testing.T, *byhand.Incident) {}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			has := reader(t, verifytest.NewIncident(t, authority, verifytest.Change{}))
			row.change(t, &has)
			demand(t, row.mode, has, recordSigned)
		})
	}
	t.Run("another key", func(t *testing.T) {
		has := reader(t, verifytest.NewIncident(t, authority, verifytest.Change{Signer: byKey}))
		if err := os.WriteFile(has.Key, stranger.PublicKey(), 0o600); err != nil {
			t.Fatal(err)
		}
		demand(t, byhand.Key, has, recordSigned)
	})
}

// TestATamperedByteIsRefusedByHand changes one byte of the copy.
func TestATamperedByteIsRefusedByHand(t *testing.T) {
	cosign(t)
	incident := verifytest.NewIncident(t, verifytest.NewAuthority(t), verifytest.Change{Signer: byKey})
	rows := map[string]struct{ key, step string }{
		"record":               {incident.Released, recordSigned},
		"statement over it":    {evidence.CustodyBundleKey(incident.Released), recordSigned},
		"record before":        {incident.Captured, bytesOnRecord},
		"bundle of the event":  {evidence.TriggerBundleKey(verifytest.TriggerUID), bytesOnRecord},
		"bundle of a step":     {incident.Key(v1alpha1.BundleName("uid-" + string(v1alpha1.StepSnapshot))), bytesOnRecord},
		"manifest":             {incident.ManifestKey, bytesOnRecord},
		"segment":              {incident.Key(verifytest.RootArtifact + "/1"), bytesOnRecord},
		"index of the archive": {incident.Key("rootfs.index"), bytesOnRecord},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			has := reader(t, incident)
			flip(t, filepath.Join(has.Folder, row.key))
			demand(t, byhand.Key, has, row.step)
		})
	}
	t.Run("a countersignature", func(t *testing.T) {
		both := verifytest.NewIncident(t, incident.Authority, verifytest.Change{
			Signer: byKey, Countersigner: func(string) verifytest.Signature { return verifytest.Keyless() },
		})
		has := reader(t, both)
		step := both.Key(v1alpha1.BundleName("uid-"+string(v1alpha1.StepSnapshot)), evidence.ModeKeyless)
		flip(t, filepath.Join(has.Folder, step))
		demand(t, byhand.Key, has, bytesOnRecord)
	})
	t.Run("an object is missing", func(t *testing.T) {
		has := reader(t, incident)
		if err := os.Remove(filepath.Join(has.Folder, incident.Key("gaps.jsonl"))); err != nil {
			t.Fatal(err)
		}
		demand(t, byhand.Key, has, bytesOnRecord)
	})
}

// flip changes a byte in the middle of a file.
func flip(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// only changes how the statement about one object is signed.
func only(part string, by verifytest.Signature) func(string) verifytest.Signature {
	return func(name string) verifytest.Signature {
		if strings.Contains(name, part) {
			return by
		}
		return verifytest.Keyless()
	}
}

// TestAFalseStatementIsRefusedByHand has the tampering signed by whom the reader trusts, or the chain signed by others.
func TestAFalseStatementIsRefusedByHand(t *testing.T) {
	cosign(t)
	authority := verifytest.NewAuthority(t)
	stranger := verifytest.Signature{Identity: verifytest.Identity + "-of-another", Issuer: verifytest.Issuer}
	late, other := verifytest.Keyless(), verifytest.Keyless()
	late.CertifiedAt, other.Logged = time.Now().Add(-time.Hour), []byte("another payload")
	archive := verifytest.NewArchive(t)
	archive.Index = rewrite(t, archive.Index, `"sha256":"[0-9a-f]{64}"`, `"sha256":"`+evidence.Digest(nil)+`"`)
	snapshot := func(change func(*evidence.EventResponsePredicate)) verifytest.Change {
		return verifytest.Change{Predicate: func(p *evidence.EventResponsePredicate) {
			if p.Step == string(v1alpha1.StepSnapshot) {
				change(p)
			}
		}}
	}
	rows := map[string]struct {
		change verifytest.Change
		step   string
	}{
		"signed by another identity": {verifytest.Change{Signer: only("snapshot", stranger)}, statementsSigned},
		"signed by another key":      {verifytest.Change{Signer: only("snapshot", verifytest.Signature{Key: true})}, statementsSigned},
		"certificate had run out":    {verifytest.Change{Signer: only("snapshot", late)}, statementsSigned},
		"another entry of the log":   {verifytest.Change{Signer: only("snapshot", other)}, statementsSigned},
		"listed as another object": {verifytest.Change{Record: func(c *evidence.Custody) {
			c.Statements[1].Subject.UID = "uid-of-another"
		}}, statementsSigned},
		"a step is missing": {verifytest.Change{Record: func(c *evidence.Custody) {
			c.Statements = append(c.Statements[:2:2], c.Statements[3:]...)
		}}, oneChain},
		"two steps are swapped": {verifytest.Change{Record: func(c *evidence.Custody) {
			c.Statements[1], c.Statements[2] = c.Statements[2], c.Statements[1]
		}}, oneChain},
		"another statement before": {verifytest.Change{Predicate: func(p *evidence.EventResponsePredicate) {
			if p.Step == string(v1alpha1.StepUpload) {
				p.Previous = evidence.Digest(nil)
			}
		}}, oneChain},
		"another pod": {verifytest.Change{Response: func(r *v1alpha1.EventResponse) {
			if r.Labels[v1alpha1.LabelStep] == string(v1alpha1.StepSnapshot) {
				r.Spec.PodRef.UID = "uid-of-another"
			}
		}}, oneChain},
		"captured first": {verifytest.Change{Response: func(r *v1alpha1.EventResponse) {
			if c := r.Status.Containment; c != nil && c.ContainedAt != nil {
				c.ContainedAt.Time = c.ContainedAt.Add(time.Hour)
			}
		}}, oneChain},
		"never contained": {verifytest.Change{Response: func(r *v1alpha1.EventResponse) {
			if c := r.Status.Containment; c != nil {
				c.ContainedAt = nil
			}
		}}, oneChain},
		"another manifest announced": {verifytest.Change{Event: func(e *v1alpha1.SecurityEvent) {
			if e.Spec.Evidence != nil {
				e.Spec.Evidence.SHA256 = evidence.Digest(nil)
			}
		}}, announced},
		"an artifact less in the manifest": {verifytest.Change{Manifest: func(m *evidence.Manifest) {
			m.Artifacts = m.Artifacts[1:]
		}}, announced},
		"observed otherwise": {verifytest.Change{Predicate: func(p *evidence.EventResponsePredicate) {
			if p.Step == string(v1alpha1.StepSnapshot) {
				p.Artifacts[0].Observed.SHA256 = evidence.Digest(nil)
			}
		}}, twoAccounts},
		"read back otherwise": {snapshot(func(p *evidence.EventResponsePredicate) { p.ReadBack.Agrees = false }), twoAccounts},
		"never read back":     {snapshot(func(p *evidence.EventResponsePredicate) { p.ReadBack = nil }), twoAccounts},
		"read back by the agent": {snapshot(func(p *evidence.EventResponsePredicate) {
			p.ReadBack.By = p.Artifacts[0].Asserted.By
		}), twoAccounts},
		"an index observed otherwise": {snapshot(func(p *evidence.EventResponsePredicate) {
			p.Artifacts[1].Index.ObservedSHA256 = evidence.Digest(nil)
		}), twoAccounts},
		"a timeline observed otherwise": {snapshot(func(p *evidence.EventResponsePredicate) {
			p.Artifacts[1].Timeline.ObservedSHA256 = evidence.Digest(nil)
		}), twoAccounts},
		"an attachment observed otherwise": {snapshot(func(p *evidence.EventResponsePredicate) {
			p.Attachments[0].ObservedSHA256 = evidence.Digest(nil)
		}), twoAccounts},
		"index of another archive": {verifytest.Change{Archive: &archive}, fileInArchive},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			demand(t, byhand.Keyless, reader(t, verifytest.NewIncident(t, authority, row.change)), row.step)
		})
	}
}

// rewrite changes every line of an index.
func rewrite(t *testing.T, index []byte, from, to string) []byte {
	t.Helper()
	reader, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	lines, err := reader.DecodeAll(index, nil)
	if err != nil {
		t.Fatal(err)
	}
	writer, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return writer.EncodeAll(regexp.MustCompile(from).ReplaceAll(lines, []byte(to)), nil)
}

func TestOnlyBlocksOfTheModeAreRun(t *testing.T) {
	text := "## one\n```sh\necho always\n```\n```\nnever\n```\n## it's two\n```sh key\necho by key; exit 3\n```\n```sh keyless\necho certified\n```\n"
	program := filepath.Join(t.TempDir(), "cosign")
	for mode, want := range map[byhand.Mode]string{byhand.Key: "always\nby key\n", byhand.Keyless: "always\ncertified\n"} {
		said, err := byhand.Verify(t.Context(), text, program, mode, byhand.Incident{Folder: t.TempDir()})
		var refused *byhand.RefusedError
		if errors.As(err, &refused) != (mode == byhand.Key) || (refused != nil && refused.Step != "it's two") || said != want {
			t.Errorf("%s: %q, %v", mode, said, err)
		}
	}
	if _, err := byhand.Verify(t.Context(), "# nothing\n", program, byhand.Key, byhand.Incident{}); err == nil {
		t.Error("a document without commands verifies")
	}
}
