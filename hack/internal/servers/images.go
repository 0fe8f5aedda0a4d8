package servers

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"ugallu.io/forensics/hack/internal/image"
	"ugallu.io/forensics/hack/internal/step"
)

// pushAll puts an image of each binary into the registry and returns the images' tags by server. A tag names what the
// binary was built from, so that one look at the registry tells that nothing has to be read or compressed again.
func pushAll(ctx context.Context, registry string, binaries map[string]string) (map[string]string, error) {
	tags := make(map[string]string, len(binaries))
	for server, binary := range binaries {
		folder := filepath.Base(filepath.Dir(binary))
		tag := folder[strings.LastIndex(folder, "-")+1:]
		reference := registry + "/ugallu/" + server + ":" + tag
		err := step.Do("image of "+server, func() error {
			there, err := pushed(ctx, reference)
			if err != nil {
				return err
			}
			if there {
				return step.ErrCached
			}
			img, err := image.Binary(binary)
			if err != nil {
				return err
			}
			return image.Push(ctx, reference, img)
		})
		if err != nil {
			return nil, err
		}
		tags[server] = tag
	}
	return tags, nil
}

func pushed(ctx context.Context, reference string) (bool, error) {
	ref, err := name.NewTag(reference, name.Insecure)
	if err != nil {
		return false, fmt.Errorf("parse %s: %w", reference, err)
	}
	// An error means that the registry has no such tag, or that the push after this will say what is wrong.
	_, err = remote.Head(ref, remote.WithContext(ctx))
	return err == nil, nil
}
