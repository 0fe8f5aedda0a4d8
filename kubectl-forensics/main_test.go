package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/custodytest/storetest"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
	"ugallu.io/forensics/internal/worm"
)

// files of an analyst: what is believed in.
type files struct{ root, key string }

func store(t *testing.T, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func filesOf(t *testing.T, authority *verifytest.Authority) files {
	t.Helper()
	return files{store(t, "trusted_root.json", authority.TrustedRoot()), store(t, "attestor.pub", authority.PublicKey())}
}

func (f files) trust() []string {
	return []string{"--trusted-root", f.root, "--identity", verifytest.Identity, "--issuer", verifytest.Issuer}
}

func command(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// copied is a folder with an incident.
func copied(t *testing.T, authority *verifytest.Authority) string {
	t.Helper()
	incident := verifytest.NewIncident(t, authority, verifytest.Change{})
	dir := filepath.Join(t.TempDir(), "copy")
	copier, err := verify.NewCopier(incident, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Incident(t.Context(), copier, authority.Trust(), verify.Target{Key: incident.Released}); err != nil {
		t.Fatal(err)
	}
	if err := copier.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// glob finds files of the one incident in a folder.
func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "forensics", "*", pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s in %s: %v", pattern, dir, err)
	}
	return found
}

func TestExitCodes(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	dir, believed := copied(t, authority), filesOf(t, authority)
	other := filesOf(t, verifytest.NewAuthority(t))
	with := func(args ...string) []string { return append(args, believed.trust()...) }
	record := glob(t, dir, "custody-1-"+strings.Repeat("?", 64)+".json")
	unsealed := copied(t, authority)
	for _, file := range glob(t, unsealed, "custody-*") {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		args []string
		code int
		text string
	}{
		"verified":             {with("verify", dir), exitVerified, "VERIFIED"},
		"verified by a record": {with("verify", record[0]), exitVerified, "VERIFIED"},
		"flags first":          {append([]string{"verify"}, append(believed.trust(), dir)...), exitVerified, "VERIFIED"},
		"one file":             {with("verify", dir, "--file", "/usr/bin/x"), exitVerified, "bytes of the archive were read"},
		"no such file":         {with("verify", dir, "--file", "/no"), exitRefused, "✗ file /no"},
		"another root":         {append([]string{"verify", record[0]}, other.trust()...), exitRefused, "✗ statement over custody-1: signature"},
		"another identity":     {[]string{"verify", record[0], "--trusted-root", believed.root, "--identity", "x", "--issuer", verifytest.Issuer}, exitRefused, "✗ statement over custody-1: signature"},
		"another issuer":       {[]string{"verify", record[0], "--trusted-root", believed.root, "--identity", verifytest.Identity, "--issuer", "x"}, exitRefused, "✗ statement over custody-1: signature"},
		"the key alone":        {[]string{"verify", record[0], "--trusted-root", believed.root, "--key", believed.key}, exitRefused, "✗ statement over custody-1: signature"},
		"nobody's folder":      {[]string{"verify", dir, "--trusted-root", believed.root, "--key", believed.key}, exitRefused, "✗ statement"},
		"an empty folder":      {with("verify", t.TempDir()), exitUnread, "0 incidents"},
		"no such folder":       {with("verify", filepath.Join(dir, "no")), exitUnread, "open folder"},
		"no store":             {with("verify", "s3://evidence/forensics/x/", "--endpoint", "http://127.0.0.1:1"), exitUnread, "list custody records"},
		"nobody to trust":      {[]string{"verify", dir, "--trusted-root", believed.root}, exitUsage, "anybody could have signed"},
		"no issuer":            {[]string{"verify", dir, "--trusted-root", believed.root, "--identity", "x"}, exitUsage, "go together"},
		"no root":              {[]string{"verify", dir, "--key", believed.key}, exitUsage, "--trusted-root"},
		"a root that is none":  {[]string{"verify", dir, "--trusted-root", believed.key, "--key", believed.key}, exitUsage, "parse trusted root"},
		"neither nor":          {with("verify", "s3://evidence/forensics/x/custody-1-x.json", "--endpoint", "http://127.0.0.1:1"), exitUnread, "not the key of"},
		"a URL without a key":  {with("verify", "s3://evidence"), exitUnread, "is not s3://bucket/key"},
		"no CA file":           {with("verify", "s3://evidence/forensics/x/", "--ca-file", "no"), exitUnread, "read CA file"},
		"a CA file of nobody":  {with("verify", "s3://evidence/forensics/x/", "--ca-file", believed.root), exitUnread, "no PEM certificate"},
		"no sealed record":     {with("verify", unsealed), exitUnsealed, "UNSEALED"},
		"a file, not sealed":   {with("verify", unsealed, "--file", "/usr/bin/x"), exitUnsealed, "no custody record"},
		"two targets":          {with("verify", dir, dir), exitUsage, "takes 1"},
		"unknown flag":         {with("verify", dir, "--force"), exitUsage, "force"},
		"unknown format":       {with("verify", dir, "-o", "yaml"), exitUsage, "yaml"},
		"unknown command":      {[]string{"trust"}, exitUsage, "trust"},
		"no command":           {nil, exitUsage, "required"},
		"help":                 {[]string{"--help"}, exitVerified, "Exit codes"},
		"help of a command":    {[]string{"verify", "--help"}, exitVerified, "trusted-root"},
		"fetch from a folder":  {with("fetch", dir, t.TempDir()), exitUsage, "s3://"},
		"fetch into something": {with("fetch", "s3://evidence/forensics/x/manifest-y.json", dir), exitUsage, "not empty"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			code, out, errOut := command(t, test.args...)
			if code != test.code || !strings.Contains(out+errOut, test.text) {
				t.Errorf("exit code %d, want %d; no %q in:\n%s%s", code, test.code, test.text, out, errOut)
			}
		})
	}
}

func TestJSONNamesTheFailedLink(t *testing.T) {
	authority := verifytest.NewAuthority(t)
	dir, believed := copied(t, authority), filesOf(t, authority)
	gaps := glob(t, dir, "artifacts/gaps.jsonl")
	if err := os.WriteFile(gaps[0], []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ := command(t, append([]string{"verify", dir, "-o", "json"}, believed.trust()...)...)
	var found answer
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, check := range found.Checks {
		if check.Status == verify.Failed {
			failed++
			if !strings.HasSuffix(check.Link, "gaps.jsonl") {
				t.Errorf("%+v", check)
			}
		}
	}
	if code != exitRefused || found.Verdict != verify.Refused || failed == 0 {
		t.Errorf("exit code %d, verdict %s, %d failed", code, found.Verdict, failed)
	}
}

// TestRealStores plays an analyst against each server that the store's contract is tested on.
func TestRealStores(t *testing.T) {
	for name, start := range storetest.Servers() {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
			t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
			authority := verifytest.NewAuthority(t)
			incident := verifytest.NewIncidentIn(t, authority, putter(t, server))
			with := func(args ...string) []string {
				return append(append(args, "--endpoint", server.Endpoint), filesOf(t, authority).trust()...)
			}
			record := "s3://" + storetest.Bucket + "/" + incident.Released
			expect(t, exitVerified, "VERIFIED", with("verify", record)...)
			expect(t, exitVerified, "VERIFIED", with("verify", "s3://"+storetest.Bucket+"/"+incident.ManifestKey)...)
			expect(t, exitVerified, "VERIFIED", with("verify", "s3://"+storetest.Bucket+"/"+incident.Prefix+"/")...)
			expect(t, exitVerified, "usr/lib/large", with("verify", record, "--file", "/usr/lib/large")...)
			countsOneFile(t, int64(len(incident.Archive.Stream)), with("verify", record, "--file", "/usr/bin/x", "-o", "json")...)
			expect(t, exitVerified, " bytes downloaded", with("verify", record, "--file", "/usr/bin/x")...)
			folder := filepath.Join(t.TempDir(), "fetched")
			expect(t, exitVerified, "VERIFIED", with("fetch", record, folder)...)
			expect(t, exitVerified, "0 not checked", append([]string{"verify", folder}, filesOf(t, authority).trust()...)...)
			expect(t, exitUnread, "bucket does not exist", with("verify", "s3://another/"+incident.Released)...)
			expect(t, exitUnread, "not found", with("verify", "s3://"+storetest.Bucket+"/"+evidence.CustodyKey(incident.Prefix, 2, evidence.Digest(nil)))...)
			t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
			expect(t, exitUnread, "signature", with("verify", record)...)
		})
	}
}

// countsOneFile wants the bytes of the index and of the frames told, and few others downloaded beside them.
func countsOneFile(t *testing.T, archive int64, args ...string) {
	t.Helper()
	_, out, _ := command(t, args...)
	var found answer
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found.Files) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	file := found.Files[0]
	at, told := file.Entry.Position, file.IndexBytes+file.FrameBytes
	if file.IndexBytes == 0 || file.FrameBytes != max(at.FrameSize, at.Span) || found.BytesDownloaded <= told || found.BytesDownloaded >= archive {
		t.Errorf("%d bytes of the index, %d of frames, %d downloaded, of an archive of %d", file.IndexBytes, file.FrameBytes, found.BytesDownloaded, archive)
	}
}

// putter stores as the product does.
func putter(t *testing.T, server *storetest.Server) verifytest.Put {
	t.Helper()
	store, err := worm.NewS3(worm.Config{
		Endpoint: server.Endpoint, Bucket: storetest.Bucket, AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(key string, data []byte, lock worm.Lock) worm.Object {
		object, err := store.Put(t.Context(), key, io.Reader(bytes.NewReader(data)), lock)
		if err != nil {
			t.Fatal(err)
		}
		return object
	}
}

func expect(t *testing.T, code int, text string, args ...string) {
	t.Helper()
	got, out, errOut := command(t, args...)
	if got != code || !strings.Contains(strings.ToLower(out+errOut), strings.ToLower(text)) {
		t.Errorf("%s %s: exit code %d, want %d; no %q in:\n%s%s", args[0], args[1], got, code, text, out, errOut)
	}
}
