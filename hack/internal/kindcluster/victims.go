package kindcluster

import (
	"context"

	"ugallu.io/forensics/hack/internal/image"
	"ugallu.io/forensics/hack/internal/step"
	"ugallu.io/forensics/hack/internal/victim"
)

// pushVictims puts what the scenarios attack into the registry under its name on Docker Hub.
func pushVictims(ctx context.Context, registryHost string) error {
	images, err := victim.Images(ctx)
	if err != nil {
		return err
	}
	for repository, img := range images {
		tag := registryHost + "/" + repository + ":latest"
		if err := step.Do("image "+repository, func() error { return image.Push(ctx, tag, img) }); err != nil {
			return err
		}
	}
	return nil
}
