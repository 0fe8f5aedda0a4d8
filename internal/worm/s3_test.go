package worm_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"ugallu.io/forensics/internal/custodytest/storetest"
	"ugallu.io/forensics/internal/worm"
)

// onEachServer runs a check against a fresh store of each kind.
func onEachServer(t *testing.T, check func(*testing.T, *storetest.Server)) {
	t.Helper()
	for name, start := range storetest.Servers() {
		t.Run(name, func(t *testing.T) { check(t, start(t)) })
	}
}

// open reaches the server's bucket at an endpoint, which may be a proxy's.
func open(t *testing.T, endpoint string, server *storetest.Server, adjust ...func(*worm.Config)) *worm.S3 {
	t.Helper()
	config := worm.Config{
		Endpoint: endpoint, Bucket: storetest.Bucket, AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	}
	for _, change := range adjust {
		change(&config)
	}
	store, err := worm.NewS3(config)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func noUnfinishedUpload(t *testing.T, server *storetest.Server) {
	t.Helper()
	for upload := range server.Admin.ListIncompleteUploads(t.Context(), storetest.Bucket, "", true) {
		if upload.Err != nil {
			t.Fatal(upload.Err)
		}
		t.Errorf("unfinished upload of %s", upload.Key)
	}
}

func TestS3LeavesNoUnfinishedUpload(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		store := open(t, server.Endpoint, server)
		refusesToReplace(t, store)
		keepsNothingOfTornBody(t, store)
		noUnfinishedUpload(t, server)
	})
}

func TestS3RefusesToDeleteALockedVersion(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		for name, size := range map[string]int{"whole": 1, "parts": 6 * mebibyte} {
			t.Run(name, func(t *testing.T) { keepsLocked(t, server, size) })
		}
	})
}

func keepsLocked(t *testing.T, server *storetest.Server, size int) {
	key, store := fmt.Sprint("locked-", size), open(t, server.Endpoint, server)
	put, err := store.Put(t.Context(), key, bytes.NewReader(randomBytes(size)), lockFor(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	err = server.Admin.RemoveObject(t.Context(), storetest.Bucket, key, minio.RemoveObjectOptions{
		VersionID: put.VersionID, GovernanceBypass: true,
	})
	if err == nil {
		t.Error("deleted it")
	}
	shorter := time.Now().Add(time.Minute)
	for _, mode := range []minio.RetentionMode{minio.Governance, minio.Compliance} {
		err = server.Admin.PutObjectRetention(t.Context(), storetest.Bucket, key, minio.PutObjectRetentionOptions{
			VersionID: put.VersionID, Mode: &mode, RetainUntilDate: &shorter, GovernanceBypass: true,
		})
		if err == nil {
			t.Errorf("shortened it in mode %s", mode)
		}
	}
	stat, err := store.Stat(t.Context(), key, put.VersionID)
	if err != nil {
		t.Fatal(err)
	}
	if stat.Lock != put.Lock {
		t.Errorf("lock %+v became %+v", put.Lock, stat.Lock)
	}
}

func TestS3NamesABucketWithoutObjectLock(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		const plain = "plain"
		if err := server.Admin.MakeBucket(t.Context(), plain, minio.MakeBucketOptions{}); err != nil {
			t.Fatal(err)
		}
		refusesWith(t, worm.ErrNotLocked, open(t, server.Endpoint, server, func(c *worm.Config) { c.Bucket = plain }))
	})
}

// refusesWith puts objects of one request and of several, and wants the same error.
func refusesWith(t *testing.T, want error, store worm.Store) {
	t.Helper()
	for _, size := range []int{1, 6 * mebibyte} {
		_, err := store.Put(t.Context(), fmt.Sprint("forensics/x/artifacts/refused/", size), bytes.NewReader(randomBytes(size)), lockFor(time.Hour))
		if !errors.Is(err, want) {
			t.Errorf("put of %d bytes: got %v, want %v", size, err, want)
		}
		if !worm.NeedsOperator(err) {
			t.Errorf("put of %d bytes: %v needs no operator", size, err)
		}
	}
}

func TestS3NamesWhatAnOperatorMustMend(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		refusesWith(t, worm.ErrDenied, open(t, server.Endpoint, server, func(c *worm.Config) { c.AccessKey = "nobody-knows-it" }))
		refusesWith(t, worm.ErrDenied, open(t, server.Endpoint, server, func(c *worm.Config) { c.SecretKey = "not-the-password" }))
	})
}

func TestS3NamesAMissingBucket(t *testing.T) {
	// MinIO looks for the bucket's lock first, and says of a missing bucket what it says of one without.
	want := map[string]error{"MinIO": worm.ErrNotLocked, "versitygw": worm.ErrNoBucket}
	for name, start := range storetest.Servers() {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			refusesWith(t, want[name], open(t, server.Endpoint, server, func(c *worm.Config) { c.Bucket = "nobody-made-it" }))
		})
	}
}

// TestS3PutsWhereADeleteMarkerHidesAnother is how what somebody else put under a key makes room, in stores that take it so.
func TestS3PutsWhereADeleteMarkerHidesAnother(t *testing.T) {
	want := map[string]error{"MinIO": nil, "versitygw": worm.ErrExists}
	for name, start := range storetest.Servers() {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			store, key := open(t, server.Endpoint, server), "forensics/x/bundles/b.sigstore.json"
			before, err := store.Put(t.Context(), key, bytes.NewReader([]byte("planted")), lockFor(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Admin.RemoveObject(t.Context(), storetest.Bucket, key, minio.RemoveObjectOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Put(t.Context(), key, bytes.NewReader([]byte("its own")), lockFor(time.Hour)); !errors.Is(err, want[name]) {
				t.Errorf("put over the marker: %v, want %v", err, want[name])
			}
			if kept, err := store.Stat(t.Context(), key, before.VersionID); err != nil || kept.VersionID != before.VersionID {
				t.Errorf("what was hidden: %+v, %v", kept, err)
			}
		})
	}
}

func TestS3PutNeedsNoReadPermission(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		credential := server.PutOnly(t)
		store := open(t, server.Endpoint, server, func(c *worm.Config) {
			c.AccessKey, c.SecretKey, c.SessionToken = credential.AccessKey, credential.SecretKey, credential.SessionToken
		})
		for _, size := range []int{1, 17 * mebibyte} {
			key := fmt.Sprintf("forensics/0123456789abcdef/artifacts/a/%d", size)
			if _, err := store.Put(t.Context(), key, bytes.NewReader(randomBytes(size)), lockFor(time.Hour)); err != nil {
				t.Errorf("put %d bytes: %v", size, err)
			}
			if _, err := store.Put(t.Context(), key, bytes.NewReader(randomBytes(size)), lockFor(time.Hour)); !errors.Is(err, worm.ErrExists) {
				t.Errorf("second put of %d bytes: got %v, want ErrExists", size, err)
			}
		}
		if _, err := store.Put(t.Context(), "forensics/x/manifest", bytes.NewReader(nil), lockFor(time.Hour)); !errors.Is(err, worm.ErrDenied) {
			t.Errorf("outside of the prefix: got %v, want ErrDenied", err)
		}
		if _, err := store.Stat(t.Context(), "forensics/0123456789abcdef/artifacts/a/1", ""); err == nil {
			t.Error("the policy of this test does not hold: read with a put-only credential")
		}
		noUnfinishedUpload(t, server)
	})
}
