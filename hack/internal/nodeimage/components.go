package nodeimage

import (
	"context"
	"fmt"
	"os"
	"path"
	"regexp"
	"sort"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ugallu.io/forensics/hack/internal/image"
	"ugallu.io/forensics/hack/internal/kubernetes"
	"ugallu.io/forensics/hack/internal/step"
)

// components makes every image that a node must hold before it can pull anything, by its full name.
func (p parts) components(ctx context.Context, kindConfig string) (map[string]v1.Image, error) {
	tags, err := step.Run(ctx, p.binaries["kubeadm"], "config", "images", "list", "--kubernetes-version", kubernetes.Version)
	if err != nil {
		return nil, err
	}
	images := map[string]v1.Image{}
	for _, tag := range append(strings.Fields(tags), sandboxImage(kindConfig)) {
		img, err := p.component(component(tag))
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", tag, err)
		}
		images[tag] = img
	}
	return images, nil
}

// component is the program of an image, "etcd" of registry.k8s.io/etcd:3.6.5-0.
func component(tag string) string {
	name, _, _ := strings.Cut(path.Base(tag), ":")
	return name
}

var sandbox = regexp.MustCompile(`sandbox_image = "([^"]+)"`)

// sandboxImage is the pause image of kind's containerd configuration, which is not always kubeadm's.
func sandboxImage(config string) string {
	found := sandbox.FindStringSubmatch(config)
	if found == nil {
		return "registry.k8s.io/pause:3.10"
	}
	return found[1]
}

func (p parts) component(name string) (v1.Image, error) {
	content, err := os.ReadFile(p.binaries[name])
	if err != nil {
		return nil, fmt.Errorf("read the program: %w", err)
	}
	switch name {
	case "pause", "coredns":
		return image.Scratch([]string{"/" + name}, []image.File{{Path: name, Content: content}})
	case "kube-proxy":
		tools, err := packetTools(p.rootfs)
		if err != nil {
			return nil, err
		}
		return image.Scratch(nil, append(tools, image.File{Path: "usr/local/bin/kube-proxy", Content: content}))
	default:
		return image.Scratch(nil, []image.File{{Path: "usr/local/bin/" + name, Content: content}})
	}
}

func sortedKeys[V any](values map[string]V) []string {
	var keys []string
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
