package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/kubectl-forensics/internal/options"
)

// answer is what verify and fetch print as JSON.
type answer struct {
	Verdict verify.Verdict `json:"verdict"`
	*verify.Report
	Files []verify.FileProof `json:"files,omitempty"`
	// Folder that fetch filled.
	Folder string `json:"folder,omitempty"`
	// BytesDownloaded from the bucket; absent for a folder.
	BytesDownloaded int64 `json:"bytesDownloaded,omitempty"`
}

// place is where evidence is read from, and where to begin.
type place struct {
	source verify.Source
	target verify.Target
	close  func() error
	// bytes read from a bucket.
	bytes func() int64
}

func runVerify(ctx context.Context, o options.Options, out, errOut io.Writer) int {
	trust, err := loadTrust(o.Trust)
	if err != nil {
		return complain(errOut, err, exitUsage)
	}
	at, err := open(ctx, o)
	if err != nil {
		return complain(errOut, err, exitUnread)
	}
	found := answer{}
	if o.File != "" {
		found.Report, found.Files, err = verify.File(ctx, at.source, trust, at.target, verify.FileQuery{Path: o.File, Artifact: o.Artifact})
	} else {
		found.Report, err = verify.Incident(ctx, at.source, trust, at.target)
	}
	found.BytesDownloaded = at.bytes()
	if err := errors.Join(err, at.close()); err != nil {
		return complain(errOut, err, exitUnread)
	}
	return conclude(found, o, out, errOut)
}

func runFetch(ctx context.Context, o options.Options, out, errOut io.Writer) int {
	trust, err := loadTrust(o.Trust)
	if err != nil {
		return complain(errOut, err, exitUsage)
	}
	at, err := open(ctx, o)
	if err != nil {
		return complain(errOut, err, exitUnread)
	}
	copier, err := verify.NewCopier(at.source, o.Folder)
	if err != nil {
		return complain(errOut, err, exitUsage)
	}
	report, err := verify.Fetch(ctx, copier, trust, at.target)
	if err := errors.Join(err, copier.Close(), at.close()); err != nil {
		return complain(errOut, err, exitUnread)
	}
	return conclude(answer{Report: report, Folder: o.Folder, BytesDownloaded: at.bytes()}, o, out, errOut)
}

// conclude prints a report and turns its verdict into the exit code.
func conclude(found answer, o options.Options, out, errOut io.Writer) int {
	found.Verdict = found.Report.Verdict()
	if err := write(found, o, out); err != nil {
		return complain(errOut, err, exitUnread)
	}
	switch found.Verdict {
	case verify.Verified:
		return exitVerified
	case verify.Refused:
		return exitRefused
	case verify.Unsealed:
		return exitUnsealed
	default:
		return exitUnread
	}
}

func write(found answer, o options.Options, out io.Writer) error {
	if o.Format == options.FormatJSON {
		return writeJSON(out, found)
	}
	if err := found.Table(out); err != nil {
		return err
	}
	var text strings.Builder
	for _, file := range found.Files {
		fmt.Fprintf(&text, "%s in %s: %d bytes of the index and %d bytes of the archive were read\n",
			o.File, file.Artifact, file.IndexBytes, file.FrameBytes)
	}
	if o.Remote() {
		fmt.Fprintf(&text, "%d bytes downloaded\n", found.BytesDownloaded)
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func loadTrust(from options.Trust) (*attest.Trust, error) {
	trustedRoot, err := os.ReadFile(from.RootFile)
	if err != nil {
		return nil, fmt.Errorf("read trusted root: %w", err)
	}
	keys := map[string][]byte{}
	for _, file := range from.KeyFiles {
		if keys[file], err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("read trusted key: %w", err)
		}
	}
	var identities []attest.Identity
	if from.Identity != "" {
		identities = append(identities, attest.Identity{Name: from.Identity, Issuer: from.Issuer})
	}
	return attest.LoadTrust(trustedRoot, keys, identities...)
}

func open(ctx context.Context, o options.Options) (place, error) {
	if !o.Remote() {
		return openFolder(ctx, o.Target)
	}
	return openBucket(o)
}

// openFolder takes the one incident of a folder. Of several, the path of a record or a manifest in the folder names one.
func openFolder(ctx context.Context, target string) (place, error) {
	dir, key := target, ""
	if info, err := os.Stat(target); err == nil && !info.IsDir() {
		// <dir>/forensics/<incident>/<record>
		incident := filepath.Dir(target)
		dir = filepath.Join(incident, "..", "..")
		key = path.Join(filepath.Base(filepath.Dir(incident)), filepath.Base(incident), filepath.Base(target))
	}
	folder, err := verify.OpenFolder(dir)
	if err != nil {
		return place{}, err
	}
	at := place{source: folder, target: verify.Target{Key: key}, close: folder.Close, bytes: func() int64 { return 0 }}
	if key != "" {
		return at, nil
	}
	targets, err := verify.Find(ctx, folder, "")
	if err == nil && len(targets) != 1 {
		err = fmt.Errorf("%s holds %d incidents; name one record: %v", target, len(targets), targets)
	}
	if err != nil {
		return place{}, errors.Join(err, folder.Close())
	}
	at.target = targets[0]
	return at, nil
}
