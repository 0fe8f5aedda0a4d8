package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"ugallu.io/forensics/hack/internal/step"
)

// Binary is a Scratch image of one static binary, its entrypoint.
func Binary(file string) (v1.Image, error) {
	content, err := os.ReadFile(file) // #nosec G304 -- a binary that was just built
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	inside := "/" + filepath.Base(file)
	return Scratch([]string{inside}, []File{{Path: inside, Content: content}})
}

// Save writes images into one archive that both `docker load` and `ctr images import` read.
func Save(out io.Writer, images map[string]v1.Image) error {
	refs := map[name.Reference]v1.Image{}
	for tag, img := range images {
		ref, err := name.NewTag(tag)
		if err != nil {
			return fmt.Errorf("parse %s: %w", tag, err)
		}
		refs[ref] = img
	}
	if err := tarball.MultiRefWrite(refs, out); err != nil {
		return fmt.Errorf("write an image archive: %w", err)
	}
	return nil
}

// Load gives an image to the engine under a tag.
func Load(ctx context.Context, tag string, img v1.Image) error {
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(Save(writer, map[string]v1.Image{tag: img})) }()
	load := step.Command{Stdin: reader, Args: []string{"docker", "load"}}
	_, err := load.Run(ctx)
	// A load that ended early leaves the writer at a full pipe.
	return errors.Join(err, reader.Close())
}

// Push puts an image into a registry that speaks plain HTTP unless the tag is there with that digest already.
func Push(ctx context.Context, tag string, img v1.Image) error {
	ref, err := name.NewTag(tag, name.Insecure)
	if err != nil {
		return fmt.Errorf("parse %s: %w", tag, err)
	}
	want, err := img.Digest()
	if err != nil {
		return fmt.Errorf("digest of %s: %w", tag, err)
	}
	there, err := remote.Head(ref, remote.WithContext(ctx))
	if err == nil && there.Digest == want {
		return step.ErrCached
	}
	if err != nil && !missing(err) {
		return fmt.Errorf("look for %s: %w", tag, err)
	}
	if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	return nil
}

func missing(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

func architecture() string { return runtime.GOARCH }
