package registry

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"ugallu.io/forensics/hack/internal/asset"
	"ugallu.io/forensics/hack/internal/engine"
	"ugallu.io/forensics/hack/internal/image"
	"ugallu.io/forensics/hack/internal/step"
)

const (
	// Name is the registry's container, its volume and its name on the nodes' network.
	Name = "ugallu-registry"
	// InCluster is the registry as the nodes reach it.
	InCluster = Name + ":5000"

	network = "kind"
)

// Ensure returns the address, on this machine, of the registry that runs on the nodes' network.
func Ensure(ctx context.Context) (string, error) {
	var host string
	err := step.Do("image registry", func() error {
		binary, err := asset.Command(ctx, "./hack/internal/registry/registryd")
		if err != nil {
			return err
		}
		tag := "ugallu/registryd:" + strings.TrimPrefix(filepath.Base(filepath.Dir(binary)), "registryd-")
		if running(ctx, tag) {
			if host, err = address(ctx); err == nil {
				return step.ErrCached
			}
		}
		if err := replace(ctx, tag, binary); err != nil {
			return err
		}
		host, err = address(ctx)
		return err
	})
	return host, err
}

// Remove ends the registry and forgets its images.
func Remove(ctx context.Context) error {
	if _, err := engine.Docker(ctx, "rm", "--force", "--volumes", Name); err != nil {
		return err
	}
	_, err := engine.Docker(ctx, "volume", "rm", "--force", Name)
	return err
}

func running(ctx context.Context, tag string) bool {
	out, err := engine.Docker(ctx, "container", "inspect", "--format", "{{.State.Running}} {{.Config.Image}}", Name)
	return err == nil && out == "true "+tag
}

func replace(ctx context.Context, tag, binary string) error {
	if _, err := engine.Docker(ctx, "image", "inspect", "--format", "{{.ID}}", tag); err != nil {
		img, err := image.Binary(binary)
		if err != nil {
			return err
		}
		if err := image.Load(ctx, tag, img); err != nil {
			return err
		}
	}
	if _, err := engine.Docker(ctx, "container", "inspect", "--format", "{{.ID}}", Name); err == nil {
		if _, err := engine.Docker(ctx, "rm", "--force", Name); err != nil {
			return err
		}
	}
	_, err := engine.Docker(ctx, "run", "--detach", "--name", Name, "--network", network, "--restart", "unless-stopped",
		"--publish", "127.0.0.1::5000", "--volume", Name+":/data", tag)
	return err
}

// address waits until the registry answers.
func address(ctx context.Context) (string, error) {
	out, err := engine.Docker(ctx, "port", Name, "5000/tcp")
	if err != nil {
		return "", err
	}
	host, _, _ := strings.Cut(out, "\n")
	err = step.Wait(ctx, 20*time.Second, func(ctx context.Context) (bool, error) {
		return responds(ctx, "http://"+host+"/v2/"), nil
	})
	if err != nil {
		return "", fmt.Errorf("wait for the registry at %s: %w", host, err)
	}
	return host, nil
}

func responds(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
}
