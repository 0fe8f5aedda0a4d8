// Command registryd is a registry that keeps blobs and manifests in a folder.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	address := flag.String("address", ":5000", "address to listen on")
	dir := flag.String("dir", "/data", "folder to keep images in")
	flag.Parse()
	if err := serve(*address, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "registryd:", err)
		os.Exit(1)
	}
}

func serve(address, dir string) error {
	blobs, manifests := filepath.Join(dir, "blobs"), filepath.Join(dir, "manifests")
	if err := errors.Join(os.MkdirAll(blobs, 0o750), os.MkdirAll(manifests, 0o750)); err != nil {
		return fmt.Errorf("make the store: %w", err)
	}
	kept, err := keep(registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs))), manifests)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: address, Handler: kept, ReadHeaderTimeout: 10 * time.Second}
	return fmt.Errorf("serve %s: %w", address, server.ListenAndServe())
}
