package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

const (
	// maxRecord is above any custody record, manifest or bundle: 512 artifacts of 128 segments take less.
	maxRecord = 64 << 20
	// maxSeal is above the bundle over a custody record, which names one digest and lists nothing.
	maxSeal = 1 << 20
)

// Source is where stored versions are read from: a bucket, or a folder that holds a copy. What it does not have is
// worm.ErrNotFound.
type Source interface {
	worm.Reader
	// OpenRange streams length bytes of a version from offset on.
	OpenRange(ctx context.Context, key, versionID string, offset, length int64) (io.ReadCloser, error)
	// List returns the keys that begin with prefix, in order.
	List(ctx context.Context, prefix string) ([]string, error)
}

// Prover checks a bundle offline; *attest.Trust is the real one.
type Prover interface {
	// Sorts are whom the caller named: every statement needs a signature of each sort.
	Sorts() (keys, identities bool)
	// Asks is whether anybody is named who signs as this bundle is signed.
	Asks(bundle []byte) (bool, error)
	// Verify proves that somebody who is named signed.
	Verify(bundle []byte) (attest.Verified, error)
	// Witness proves a bundle that nobody asks about as far as the trusted root goes.
	Witness(bundle []byte) (attest.Verified, error)
}

// read returns a small object whole. Nothing is read beyond limit, nor beyond the size on record where there is one.
func read(ctx context.Context, from worm.Reader, listed evidence.StoredVersion, limit int64) (data []byte, err error) {
	if listed.SHA256 != "" && listed.Size > limit {
		return nil, refuse("%s has %d bytes on record, more than %d", listed.Key, listed.Size, limit)
	}
	if listed.SHA256 != "" {
		limit = listed.Size
	}
	body, err := from.Open(ctx, listed.Key, listed.VersionID)
	if err != nil {
		return nil, sourceError(err)
	}
	defer func() { err = errors.Join(err, sourceError(body.Close())) }()
	data, err = io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, sourceError(fmt.Errorf("read %s: %w", listed.Key, err))
	}
	if err := longer(listed.Key, int64(len(data)), limit); err != nil {
		return nil, err
	}
	return data, nil
}

// stream hands the bytes of a stored version to the writers and compares size and digest with what is on record. Of what
// is longer than on record no more is read than shows it.
func stream(ctx context.Context, from worm.Reader, listed evidence.StoredVersion, to ...io.Writer) (err error) {
	body, err := from.Open(ctx, listed.Key, listed.VersionID)
	if err != nil {
		return sourceError(err)
	}
	defer func() { err = errors.Join(err, sourceError(body.Close())) }()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(append(to, sum)...), io.LimitReader(body, listed.Size+1))
	if err != nil {
		return sourceError(fmt.Errorf("read %s: %w", listed.Key, err))
	}
	if err := longer(listed.Key, size, listed.Size); err != nil {
		return err
	}
	return sameBytes(listed, size, hex.EncodeToString(sum.Sum(nil)))
}

// longer refuses what was cut off after its limit.
func longer(key string, read, limit int64) error {
	if read > limit {
		return refuse("%s is longer than %d bytes", key, limit)
	}
	return nil
}

func sameBytes(listed evidence.StoredVersion, size int64, digest string) error {
	if size != listed.Size || digest != listed.SHA256 {
		return refuse("%s has %d bytes with sha256 %s, on record are %d with %s", listed.Key, size, digest, listed.Size, listed.SHA256)
	}
	return nil
}

// checkKept asks the source how the store keeps a version: its id, its size, and that it cannot be deleted too early.
// Without a lock mode on record any will do.
func (v *verification) checkKept(ctx context.Context, link string, listed evidence.StoredVersion, mode string) {
	kept, err := v.source.Stat(ctx, listed.Key, listed.VersionID)
	switch {
	case err != nil:
		v.report.add(link, CheckLock, sourceError(err), "")
	case kept.VersionID == "":
		v.report.notChecked(link, CheckLock, "the folder has no "+StoreFile+" that says how the store keeps the object")
	default:
		v.report.add(link, CheckLock, lockError(kept, listed, mode), "")
	}
}

// firmest mode of a lock. A trigger's bundle may have it where its incident, which opens later, asks for less.
const firmest = "COMPLIANCE"

func lockError(kept worm.Object, listed evidence.StoredVersion, mode string) error {
	until := kept.Lock.RetainUntil.UTC().Format(time.RFC3339)
	switch {
	case listed.VersionID != "" && kept.VersionID != listed.VersionID:
		return refuse("%s is version %s, on record is %s", listed.Key, kept.VersionID, listed.VersionID)
	case listed.Size > 0 && kept.Size != listed.Size:
		return refuse("%s has %d bytes in the store, on record are %d", listed.Key, kept.Size, listed.Size)
	case kept.Lock.Mode == "" || (mode != "" && kept.Lock.Mode != mode && kept.Lock.Mode != firmest):
		return refuse("%s is locked with mode %q, on record is %q", listed.Key, kept.Lock.Mode, mode)
	case kept.Lock.RetainUntil.Before(listed.RetainUntil):
		return refuse("%s is kept until %s, on record is %s", listed.Key, until, listed.RetainUntil.UTC().Format(time.RFC3339))
	}
	return nil
}

// version is how a segment is listed.
func version(of evidence.Segment) evidence.StoredVersion {
	return evidence.StoredVersion{
		Key: of.Key, VersionID: of.VersionID, Size: of.Size, SHA256: of.SHA256, RetainUntil: of.RetainUntil,
	}
}
