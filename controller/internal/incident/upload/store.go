package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// errNotAsStored is returned when the store holds something else than what was put, or holds it less firmly.
var errNotAsStored = errors.New("read back something else")

// store puts the manifest and believes nothing that it did not read back. A manifest that is there already, from before
// a crash, is read back just the same.
func (r *Reconciler) store(ctx context.Context, order *v1alpha1.EventResponse, manifest []byte) (v1alpha1.StoredObject, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	destination := order.Spec.Action.EvidenceUpload.Destination
	store, err := r.Open(ctx, destination.Bucket)
	if err != nil {
		return v1alpha1.StoredObject{}, fmt.Errorf("open bucket %s: %w", destination.Bucket, err)
	}
	digest := evidence.Digest(manifest)
	key := evidence.ManifestKey(destination.Prefix, digest)
	lock := worm.Lock{Mode: string(destination.LockMode), RetainUntil: destination.RetainUntil.UTC()}
	put, err := store.Put(ctx, key, bytes.NewReader(manifest), lock)
	if err != nil && !errors.Is(err, worm.ErrExists) {
		return v1alpha1.StoredObject{}, fmt.Errorf("store manifest: %w", err)
	}
	kept, err := store.Stat(ctx, key, put.VersionID)
	if err != nil {
		return v1alpha1.StoredObject{}, fmt.Errorf("read back manifest: %w", err)
	}
	if kept.Lock.Mode != lock.Mode || kept.Lock.RetainUntil.Before(lock.RetainUntil) {
		return v1alpha1.StoredObject{}, fmt.Errorf("manifest %s is locked %s until %s instead of %s until %s: %w", key,
			kept.Lock.Mode, kept.Lock.RetainUntil.Format(time.RFC3339), lock.Mode, lock.RetainUntil.Format(time.RFC3339), errNotAsStored)
	}
	if err := verify(ctx, store, kept, digest); err != nil {
		return v1alpha1.StoredObject{}, err
	}
	return v1alpha1.StoredObject{
		Key: key, VersionID: kept.VersionID, SHA256: digest, Size: int64(len(manifest)), RetainUntil: metav1.NewTime(kept.Lock.RetainUntil),
	}, nil
}

func verify(ctx context.Context, store worm.Reader, object worm.Object, digest string) (err error) {
	body, err := store.Open(ctx, object.Key, object.VersionID)
	if err != nil {
		return fmt.Errorf("read back manifest: %w", err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	hash := sha256.New()
	if _, err := io.Copy(hash, body); err != nil {
		return fmt.Errorf("read back manifest %s: %w", object.Key, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != digest {
		return fmt.Errorf("manifest %s has sha256 %s: %w", object.Key, got, errNotAsStored)
	}
	return nil
}
