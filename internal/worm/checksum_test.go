package worm_test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/time/rate"

	"ugallu.io/forensics/internal/custodytest/storetest"
	"ugallu.io/forensics/internal/worm"
)

func putAndLook(t *testing.T, server *storetest.Server, store worm.Store, key string, data []byte) minio.ObjectInfo {
	t.Helper()
	if _, err := store.Put(t.Context(), key, bytes.NewReader(data), lockFor(time.Hour)); err != nil {
		t.Fatal(err)
	}
	info, err := server.Admin.StatObject(t.Context(), storetest.Bucket, key, minio.StatObjectOptions{Checksum: true})
	if err != nil {
		t.Fatal(err)
	}
	stored(t, store, key, data)
	return info
}

func TestS3HasTheStoreKeepAChecksumOfTheWhole(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		store := open(t, server.Endpoint, server)
		small, large := randomBytes(10), randomBytes(11*mebibyte)
		whole := putAndLook(t, server, store, "whole", small)
		if want := minio.ChecksumSHA256.ChecksumBytes(small).Encoded(); whole.ChecksumSHA256 != want {
			t.Errorf("one request: sha256 %q, want %q", whole.ChecksumSHA256, want)
		}
		parts := putAndLook(t, server, store, "parts", large)
		want := minio.ChecksumCRC64NVME.ChecksumBytes(large).Encoded()
		if parts.ChecksumCRC64NVME != want || parts.ChecksumMode != "FULL_OBJECT" {
			t.Errorf("parts: CRC64NVME %q in mode %q, want %q of the whole", parts.ChecksumCRC64NVME, parts.ChecksumMode, want)
		}
	})
}

func TestS3ChecksEachPartWhereTheStoreHasNoChecksumOfTheWhole(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		proxy := storetest.NewProxy(t, server)
		asked := 0
		proxy.Intercept(func(r *http.Request) int {
			if r.Header.Get("X-Amz-Checksum-Algorithm") == "CRC64NVME" {
				asked++
				return http.StatusBadRequest
			}
			return 0
		})
		store := open(t, proxy.Endpoint, server)
		for _, key := range []string{"first", "second"} {
			info := putAndLook(t, server, store, key, randomBytes(11*mebibyte))
			if info.ChecksumSHA256 == "" || info.ChecksumCRC64NVME != "" {
				t.Errorf("%s: sha256 %q, CRC64NVME %q", key, info.ChecksumSHA256, info.ChecksumCRC64NVME)
			}
		}
		if asked != 1 {
			t.Errorf("asked for the checksum of the whole %d times, want once", asked)
		}
	})
}

func TestS3HasTheStoreEncryptWithTheNamedKey(t *testing.T) {
	server := storetest.MinIO(t, t.TempDir())
	store := open(t, server.Endpoint, server, func(c *worm.Config) { c.KMSKeyID = storetest.KMSKey })
	for key, size := range map[string]int{"whole": 10, "parts": 11 * mebibyte} {
		info := putAndLook(t, server, store, key, randomBytes(size))
		if got := info.Metadata.Get("X-Amz-Server-Side-Encryption"); got != "aws:kms" {
			t.Errorf("%s: encrypted with %q", key, got)
		}
		if got := info.Metadata.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"); got != "arn:aws:kms:"+storetest.KMSKey {
			t.Errorf("%s: encrypted with the key %q", key, got)
		}
	}
}

func TestS3StoresShareOneBandwidth(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		const burst = 32 * mebibyte
		limiter := rate.NewLimiter(1, burst) // one byte a second comes back: what was taken can be counted
		limited := func(c *worm.Config) { c.Bandwidth = limiter }
		one, other := open(t, server.Endpoint, server, limited), open(t, server.Endpoint, server, limited)
		putAndLook(t, server, one, "one", randomBytes(mebibyte))
		putAndLook(t, server, other, "other", randomBytes(11*mebibyte))
		if left := limiter.Tokens(); left >= burst-12*mebibyte+mebibyte {
			t.Errorf("%.0f bytes are left of %d after 12 MiB were sent", left, burst)
		}
	})
}
