package kubernetes

import "ugallu.io/forensics/hack/internal/asset"

const (
	// ContainerdVersion is the containerd of the nodes, the release the node agent's client is built from.
	ContainerdVersion = "v2.2.9"
	// CoreDNSVersion is the release whose image kubeadm of Version asks for.
	CoreDNSVersion = "v1.12.1"
	// KindVersion is the kind that makes the cluster and whose files the node image holds.
	KindVersion = "v0.33.0"
)

// Containerd is the nodes' container runtime with its client and its shim.
func Containerd() asset.Program {
	const path = "github.com/containerd/containerd/v2"
	return asset.Program{
		Name: "containerd", Module: path, Version: ContainerdVersion,
		Packages: []string{path + "/cmd/containerd", path + "/cmd/ctr", path + "/cmd/containerd-shim-runc-v2"},
		Tags:     "no_aufs no_zfs no_btrfs no_devmapper",
		LDFlags:  "-X " + path + "/version.Version=" + ContainerdVersion,
	}
}

// CoreDNS is the cluster's name server.
func CoreDNS() asset.Program {
	const path = "github.com/coredns/coredns"
	return asset.Program{Name: "coredns", Module: path, Version: CoreDNSVersion, Packages: []string{path}}
}

// Kind makes and removes clusters of node containers.
func Kind() asset.Program {
	const path = "sigs.k8s.io/kind"
	return asset.Program{Name: "kind", Module: path, Version: KindVersion, Packages: []string{path}}
}
