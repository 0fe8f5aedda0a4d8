package victim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"ugallu.io/forensics/hack/internal/image"
	"ugallu.io/forensics/hack/internal/step"
)

// Images returns the images by repository, as Docker Hub names them: library/nginx and library/busybox. The first
// call needs root and a Debian mirror; later ones take seconds.
func Images(ctx context.Context) (map[string]v1.Image, error) {
	dir, err := build(ctx)
	if err != nil {
		return nil, err
	}
	nginx, err := webServer(filepath.Join(dir, layerName))
	if err != nil {
		return nil, err
	}
	busybox, err := busyboxImage(ctx, filepath.Join(dir, busyboxName))
	if err != nil {
		return nil, err
	}
	return map[string]v1.Image{"library/nginx": nginx, "library/busybox": busybox}, nil
}

func webServer(layerFile string) (v1.Image, error) {
	layer, err := tarball.LayerFromFile(layerFile)
	if err != nil {
		return nil, fmt.Errorf("read layer %s: %w", layerFile, err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("append the layer: %w", err)
	}
	return configure(img, func(config *v1.Config) {
		config.Cmd = []string{"nginx", "-g", "daemon off;"}
		config.ExposedPorts = map[string]struct{}{"80/tcp": {}}
		config.StopSignal = "SIGQUIT"
	})
}

func busyboxImage(ctx context.Context, binary string) (v1.Image, error) {
	content, err := os.ReadFile(binary) // #nosec G304 -- taken from the tree we made
	if err != nil {
		return nil, fmt.Errorf("read busybox: %w", err)
	}
	applets, err := step.Run(ctx, binary, "--list")
	if err != nil {
		return nil, err
	}
	files := []image.File{
		{Path: "bin/busybox", Content: content},
		{Path: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{Path: "etc/group", Mode: 0o644, Content: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{Path: "root", Dir: true, Mode: 0o700},
		{Path: "tmp", Dir: true, Mode: 0o1777},
	}
	for _, applet := range strings.Fields(applets) {
		if applet != "busybox" {
			files = append(files, image.File{Path: "bin/" + applet, Link: "busybox"})
		}
	}
	img, err := image.Scratch(nil, files)
	if err != nil {
		return nil, err
	}
	return configure(img, func(config *v1.Config) { config.Cmd = []string{"sh"} })
}

func configure(img v1.Image, set func(*v1.Config)) (v1.Image, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the image's configuration: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", runtime.GOARCH, v1.Time{Time: time.Unix(0, 0).UTC()}
	file.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	set(&file.Config)
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		return nil, fmt.Errorf("configure the image: %w", err)
	}
	return img, nil
}
