package worm_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ugallu.io/forensics/internal/custodytest/storetest"
	"ugallu.io/forensics/internal/worm"
)

func TestS3ReadsPartsAndLists(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		store := open(t, server.Endpoint, server)
		put, err := store.Put(t.Context(), "list/b", strings.NewReader("0123456789"), lockFor(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"list/a/c", "other/d"} {
			if _, err := store.Put(t.Context(), key, strings.NewReader(key), lockFor(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		body, err := store.OpenRange(t.Context(), "list/b", put.VersionID, 3, 4)
		if err != nil {
			t.Fatal(err)
		}
		if part, err := io.ReadAll(body); err != nil || string(part) != "3456" || body.Close() != nil {
			t.Errorf("read %q, %v", part, err)
		}
		if _, err := store.OpenRange(t.Context(), "list/none", "", 3, 4); !errors.Is(err, worm.ErrNotFound) {
			t.Errorf("a part of nothing: %v", err)
		}
		for _, bad := range [][2]int64{{-1, 4}, {0, 0}, {0, -1}, {1 << 62, 1 << 62}} {
			if _, err := store.OpenRange(t.Context(), "list/b", "", bad[0], bad[1]); err == nil {
				t.Errorf("%d bytes at %d were opened", bad[1], bad[0])
			}
		}
		keys, err := store.List(t.Context(), "list/")
		if want := []string{"list/a/c", "list/b"}; err != nil || !slices.Equal(keys, want) {
			t.Errorf("listed %q, %v; want %q", keys, err, want)
		}
	})
}

// TestNoBucketIsNotNothing: what a store without the bucket does not have says nothing of the evidence.
func TestNoBucketIsNotNothing(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		store := open(t, server.Endpoint, server, func(c *worm.Config) { c.Bucket = "another" })
		if _, err := store.Open(t.Context(), "key", ""); !errors.Is(err, worm.ErrNoBucket) || errors.Is(err, worm.ErrNotFound) {
			t.Errorf("open: %v", err)
		}
		if _, err := store.List(t.Context(), "key"); !errors.Is(err, worm.ErrNoBucket) {
			t.Errorf("list: %v", err)
		}
	})
}

func TestSharedCredentials(t *testing.T) {
	onEachServer(t, func(t *testing.T, server *storetest.Server) {
		for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "MINIO_ROOT_USER", "MINIO_ACCESS_KEY"} {
			t.Setenv(name, "")
		}
		file := filepath.Join(t.TempDir(), "credentials")
		text := fmt.Sprintf("[analyst]\naws_access_key_id = %s\naws_secret_access_key = %s\n", server.AccessKey, server.SecretKey)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		listed := func(shared worm.Shared) error {
			_, err := open(t, server.Endpoint, server, func(c *worm.Config) {
				c.AccessKey, c.SecretKey, c.Shared = "", "", &shared
			}).List(t.Context(), "x")
			return err
		}
		if err := listed(worm.Shared{File: file, Profile: "analyst"}); err != nil {
			t.Errorf("by file: %v", err)
		}
		if err := listed(worm.Shared{File: file + "-none"}); err == nil {
			t.Error("let in without a credential")
		}
		t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
		t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
		if err := listed(worm.Shared{File: file + "-none"}); err != nil {
			t.Errorf("by environment: %v", err)
		}
	})
}

// TestAnEndlessListingEnds: whoever may write can make any number of keys.
func TestAnEndlessListingEnds(t *testing.T) {
	pages := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		pages++
		var page strings.Builder
		page.WriteString(`<ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated><NextContinuationToken>n</NextContinuationToken>`)
		for n := range 10_000 {
			fmt.Fprintf(&page, "<Contents><Key>k-%d-%d</Key></Contents>", pages, n)
		}
		page.WriteString(`</ListBucketResult>`)
		_, _ = io.WriteString(w, page.String())
	}))
	defer server.Close()
	store, err := worm.NewS3(worm.Config{Endpoint: server.URL, Bucket: "bucket", AccessKey: "a", SecretKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := store.List(t.Context(), "")
	if !errors.Is(err, worm.ErrManyKeys) || !strings.Contains(err.Error(), "more than 100000 keys") || len(keys) != 100_000 || pages > 12 {
		t.Errorf("%d keys after %d pages: %v", len(keys), pages, err)
	}
}
