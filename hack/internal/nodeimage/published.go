package nodeimage

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"ugallu.io/forensics/hack/internal/engine"
	"ugallu.io/forensics/hack/internal/kubernetes"
	"ugallu.io/forensics/hack/internal/step"
)

const repository = "kindest/node"

// Published pulls kind's own node image and returns its name, or "" where no registry answers within ten seconds.
func Published(ctx context.Context) (string, error) {
	tag := lookUp(ctx)
	if tag == "" {
		return "", nil
	}
	ref := repository + ":" + tag
	err := step.Do("pull "+ref, func() error {
		pull := step.Command{Timeout: 15 * time.Minute, Args: []string{"docker", "pull", "--quiet", ref}}
		_, err := pull.Run(ctx)
		return err
	})
	return ref, err
}

// IsPublished tells kind's own image from one that Build made.
func IsPublished(ref string) bool { return strings.HasPrefix(ref, repository+":") }

// Exists tells whether the engine has the image.
func Exists(ctx context.Context, ref string) bool {
	_, err := engine.Docker(ctx, "image", "inspect", "--format", "{{.ID}}", ref)
	return err == nil
}

// lookUp answers "" for every error: no registry is one of the two ordinary cases.
func lookUp(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	repo, err := name.NewRepository(repository)
	if err != nil {
		return ""
	}
	tags, err := remote.List(repo, remote.WithContext(ctx))
	if err != nil {
		return ""
	}
	return newest(tags, kubernetes.Version)
}

// newest is the highest patch release among tags of the wanted version's minor release.
func newest(tags []string, version string) string {
	minor := version[:strings.LastIndex(version, ".")+1]
	best := -1
	for _, tag := range tags {
		patch, found := strings.CutPrefix(tag, minor)
		if number, err := strconv.Atoi(patch); found && err == nil && number > best {
			best = number
		}
	}
	if best < 0 {
		return ""
	}
	return fmt.Sprintf("%s%d", minor, best)
}
