package nodeimage

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ugallu.io/forensics/hack/internal/image"
	"ugallu.io/forensics/hack/internal/kubernetes"
	"ugallu.io/forensics/hack/internal/step"
)

// storage replaces kind's provisioner, whose images are not built here: nothing of ours claims a volume.
const storage = `apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations:
    storageclass.kubernetes.io/is-default-class: "true"
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
`

// kindFiles is the folder of kind's module that its base image is made from.
func kindFiles(ctx context.Context) (string, error) {
	out, err := step.Run(ctx, "go", "mod", "download", "-json", "sigs.k8s.io/kind@"+kubernetes.KindVersion)
	if err != nil {
		return "", err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &module); err != nil {
		return "", fmt.Errorf("parse what go says of kind: %w", err)
	}
	return filepath.Join(module.Dir, "images", "base", "files"), nil
}

// files is everything that a node has beyond Debian's packages.
func (p parts) files(ctx context.Context, kind string) ([]image.File, error) {
	files, err := copied(kind)
	if err != nil {
		return nil, err
	}
	for inside, names := range map[string][]string{
		"usr/local/bin": {"containerd", "ctr", "containerd-shim-runc-v2"},
		"usr/bin":       {"kubelet", "kubeadm", "kubectl"},
	} {
		for _, name := range names {
			content, err := os.ReadFile(p.binaries[name])
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
			files = append(files, image.File{Path: inside + "/" + name, Content: content})
		}
	}
	spec, err := step.Run(ctx, p.binaries["ctr"], "oci", "spec")
	if err != nil {
		return nil, err
	}
	base, err := baseSpecification([]byte(spec))
	if err != nil {
		return nil, err
	}
	return append(append(files, fixed()...), image.File{Path: "etc/containerd/cri-base.json", Mode: 0o644, Content: base}), nil
}

func fixed() []image.File {
	files := []image.File{
		{Path: "kind/version", Mode: 0o644, Content: []byte(kubernetes.Version)},
		{Path: "kind/manifests/default-storage.yaml", Mode: 0o644, Content: []byte(storage)},
		// The kernel's log is the host's, and confusing in a node.
		{Path: "etc/systemd/journald.conf.d/kind.conf", Mode: 0o644, Content: []byte("[Journal]\nReadKMsg=no\n")},
		// It would register formats for the whole kernel.
		{Path: "etc/systemd/system/systemd-binfmt.service", Link: "/dev/null"},
		{Path: "etc/kubernetes/manifests", Dir: true},
	}
	for _, unit := range []string{"kubelet.service", "containerd.service", "undo-mount-hacks.service"} {
		files = append(files, image.File{
			Path: "etc/systemd/system/multi-user.target.wants/" + unit, Link: "/etc/systemd/system/" + unit,
		})
	}
	for _, plugin := range []string{"host-local", "loopback", "ptp", "portmap"} {
		files = append(files, image.File{Path: "opt/cni/bin/" + plugin, Link: "/usr/lib/cni/" + plugin})
	}
	return files
}

// copied are kind's own files with the modes that its Dockerfile gives them.
func copied(dir string) ([]image.File, error) {
	var files []image.File
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path) // #nosec G304 G122 -- a file of the module cache
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if strings.HasPrefix(name, "usr/local/bin/") || strings.HasPrefix(name, "kind/bin/") {
			mode = 0o755
		}
		files = append(files, image.File{Path: name, Mode: mode, Content: content})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read kind's files: %w", err)
	}
	return files, nil
}

// baseSpecification adds kind's hook to containerd's default specification and takes out its limits.
func baseSpecification(spec []byte) ([]byte, error) {
	var document map[string]any
	if err := json.Unmarshal(spec, &document); err != nil {
		return nil, fmt.Errorf("parse containerd's default specification: %w", err)
	}
	if process, ok := document["process"].(map[string]any); ok {
		delete(process, "rlimits")
	}
	document["hooks"] = map[string]any{
		"createContainer": []any{map[string]any{"path": "/kind/bin/mount-product-files.sh"}},
	}
	out, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the base specification: %w", err)
	}
	return out, nil
}
