package install

import (
	"context"
	"fmt"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ugallu.io/forensics/hack/internal/asset"
	"ugallu.io/forensics/hack/internal/image"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// programs are the main packages that run in the cluster; each is the image ugallu/NAME.
func programs() []string { return []string{"./controller", "./nodeagent", "./webhook"} }

// Images builds the project's own images from the checkout, pushes them to the cluster's registry and returns the tag
// of each by its name. A tag is the image's own digest, so that only a changed program makes a changed Deployment.
func Images(ctx context.Context, env state.Env) (map[string]string, error) {
	tags := map[string]string{}
	for _, pkg := range programs() {
		name := "ugallu/" + path.Base(pkg)
		err := step.Do("image "+name, func() error {
			binary, err := asset.Command(ctx, pkg)
			if err != nil {
				return err
			}
			img, err := image.Binary(binary)
			if err != nil {
				return err
			}
			if tags[name], err = contentTag(img); err != nil {
				return err
			}
			return image.Push(ctx, env.RegistryHost+"/"+name+":"+tags[name], img)
		})
		if err != nil {
			return nil, err
		}
	}
	return tags, nil
}

func contentTag(img v1.Image) (string, error) {
	digest, err := img.Digest()
	if err != nil {
		return "", fmt.Errorf("digest of an image: %w", err)
	}
	return strings.TrimPrefix(digest.String(), "sha256:")[:16], nil
}
