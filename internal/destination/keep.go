package destination

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

// ErrNotAsStored is returned by Keep when the store holds something else than what was put, or holds it less firmly.
var ErrNotAsStored = errors.New("read back something else")

// Keep stores data under key, locked as the destination says, and believes nothing that it did not read back. What is
// there already, from before a crash, is read back just the same. It returns ErrNotAsStored and the errors of worm.Store.
func Keep(
	ctx context.Context, store worm.Store, to v1alpha1.Destination, key string, data []byte,
) (v1alpha1.StoredObject, error) {
	lock := worm.Lock{Mode: string(to.LockMode), RetainUntil: to.RetainUntil.UTC()}
	put, err := store.Put(ctx, key, bytes.NewReader(data), lock)
	if err != nil && !errors.Is(err, worm.ErrExists) {
		return v1alpha1.StoredObject{}, err
	}
	kept, err := store.Stat(ctx, key, put.VersionID)
	if err != nil {
		return v1alpha1.StoredObject{}, fmt.Errorf("read back: %w", err)
	}
	if kept.Lock.Mode != lock.Mode || kept.Lock.RetainUntil.Before(lock.RetainUntil) {
		return v1alpha1.StoredObject{}, fmt.Errorf("%s is locked %s until %s instead of %s until %s: %w", key,
			kept.Lock.Mode, kept.Lock.RetainUntil.Format(time.RFC3339), lock.Mode, lock.RetainUntil.Format(time.RFC3339), ErrNotAsStored)
	}
	digest := evidence.Digest(data)
	if err := verify(ctx, store, kept, digest); err != nil {
		return v1alpha1.StoredObject{}, err
	}
	return v1alpha1.StoredObject{
		Key: key, VersionID: kept.VersionID, SHA256: digest, Size: int64(len(data)), RetainUntil: metav1.NewTime(kept.Lock.RetainUntil),
	}, nil
}

func verify(ctx context.Context, store worm.Reader, object worm.Object, digest string) (err error) {
	body, err := store.Open(ctx, object.Key, object.VersionID)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	hash := sha256.New()
	if _, err := io.Copy(hash, body); err != nil {
		return fmt.Errorf("read back %s: %w", object.Key, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != digest {
		return fmt.Errorf("%s has sha256 %s: %w", object.Key, got, ErrNotAsStored)
	}
	return nil
}
