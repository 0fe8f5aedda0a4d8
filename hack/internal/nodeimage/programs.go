package nodeimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"ugallu.io/forensics/hack/internal/asset"
	"ugallu.io/forensics/hack/internal/kubernetes"
	"ugallu.io/forensics/hack/internal/rootfs"
)

// revision changes the image's name when the way it is put together changes.
const revision = "1"

// parts are the files that an image is put together from.
type parts struct {
	rootfs string
	// binaries has the path of every program by its name.
	binaries map[string]string
}

// contents lists each program with the binaries that it makes.
func contents() map[string]asset.Program {
	return map[string]asset.Program{
		"kube-apiserver": kubernetes.APIServer(), "kubectl": kubernetes.APIServer(), "etcd": kubernetes.Etcd(),
		"kube-controller-manager": kubernetes.Node(), "kube-scheduler": kubernetes.Node(), "kubelet": kubernetes.Node(),
		"kubeadm": kubernetes.Node(), "kube-proxy": kubernetes.Node(), "containerd": kubernetes.Containerd(),
		"ctr": kubernetes.Containerd(), "containerd-shim-runc-v2": kubernetes.Containerd(), "coredns": kubernetes.CoreDNS(),
	}
}

// gather builds what is not there yet; on two cores that is about ten minutes the first time and nothing later.
func gather(ctx context.Context) (parts, error) {
	found := parts{binaries: map[string]string{}}
	for _, program := range []asset.Program{
		kubernetes.Etcd(), kubernetes.APIServer(), kubernetes.Containerd(), kubernetes.Node(), kubernetes.CoreDNS(),
	} {
		if _, err := program.Build(ctx); err != nil {
			return parts{}, err
		}
	}
	for name, program := range contents() {
		dir, err := program.Dir()
		if err != nil {
			return parts{}, err
		}
		found.binaries[name] = filepath.Join(dir, name)
	}
	pause, err := asset.Command(ctx, "./hack/internal/nodeimage/pause")
	if err != nil {
		return parts{}, err
	}
	found.binaries["pause"] = pause
	found.rootfs, err = rootfs.Build(ctx)
	return found, err
}

// reference names the image by everything that goes into it: the parts' folders are named by their own inputs.
func (p parts) reference() string {
	hash := sha256.New()
	hash.Write(fmt.Appendln(nil, revision, kubernetes.KindVersion, filepath.Base(p.rootfs)))
	for _, name := range sortedKeys(p.binaries) {
		hash.Write(fmt.Appendln(nil, name, filepath.Base(filepath.Dir(p.binaries[name]))))
	}
	return "ugallu/node:" + hex.EncodeToString(hash.Sum(nil))[:12]
}
