package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestKeeperHasItsImagesAfterARestart(t *testing.T) {
	dir := t.TempDir()
	first := startRegistry(t, dir)
	push(t, first, empty.Image)
	first.Close()

	second := startRegistry(t, dir)
	defer second.Close()
	got, err := remote.Head(tag(t, second))
	if err != nil {
		t.Fatal(err)
	}
	want, err := empty.Image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != want {
		t.Errorf("digest after the restart = %s, want %s", got.Digest, want)
	}
}

func TestKeeperRefusesAStoreThatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "%2Fv2%2Fa%2Fmanifests%2Flatest"), []byte("application/vnd.oci.image.index.v1+json\nnot JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keep(registry.New(), dir); err == nil {
		t.Error("no error for a manifest that the registry refuses")
	}
}

func startRegistry(t *testing.T, dir string) *httptest.Server {
	t.Helper()
	blobs, manifests := filepath.Join(dir, "blobs"), filepath.Join(dir, "manifests")
	for _, sub := range []string{blobs, manifests} {
		if err := os.MkdirAll(sub, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := keep(registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs))), manifests)
	if err != nil {
		t.Fatal(err)
	}
	return httptest.NewServer(kept)
}

func push(t *testing.T, server *httptest.Server, img v1.Image) {
	t.Helper()
	if err := remote.Write(tag(t, server), img); err != nil {
		t.Fatal(err)
	}
}

func tag(t *testing.T, server *httptest.Server) name.Tag {
	t.Helper()
	parsed, err := name.NewTag(strings.TrimPrefix(server.URL, "http://")+"/library/nginx:latest", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
