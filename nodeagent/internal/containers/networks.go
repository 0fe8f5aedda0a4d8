package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// errNoSpecification says that a sandbox's network cannot be told.
var errNoSpecification = errors.New("its runtime specification does not tell")

// Networks returns those of the sandboxes that run, or where none does that of the newest: what earlier ones had may be taken
// down.
func (p Pod) Networks() (networks []string) {
	var newest Container
	running := false
	for _, sandbox := range p.Sandboxes {
		running = running || sandbox.Process != 0
		if sandbox.Process != 0 && sandbox.Network != "" {
			networks = append(networks, sandbox.Network)
		}
		if sandbox.CreatedAt.After(newest.CreatedAt) {
			newest = sandbox
		}
	}
	if !running && newest.Network != "" {
		networks = append(networks, newest.Network)
	}
	return networks
}

// othersFilter is containerd's filter for the sandboxes of all pods but one.
func othersFilter(uid string) string {
	return fmt.Sprintf("labels.%q==%q,labels.%q!=%q", labelKind, kindSandbox, labelPodUID, uid)
}

// OthersNetworks returns the inodes of the network namespaces that the runtime made for the sandboxes of other pods than this
// one, whatever their processes joined since. One that uses the node's, or whose network was taken down, has none. The error
// names the sandboxes whose network cannot be told; those of the others are returned with it.
func (l *Lister) OthersNetworks(ctx context.Context, uid string) (map[uint64]bool, error) {
	list, err := l.client.Containers(ctx, othersFilter(uid))
	if err != nil {
		return nil, fmt.Errorf("list the sandboxes of other pods than %s: %w", uid, err)
	}
	found, errs := map[uint64]bool{}, []error{}
	for _, container := range list {
		info, err := container.Info(ctx, containerd.WithoutRefreshedMetadata)
		if err != nil {
			errs = append(errs, fmt.Errorf("describe sandbox %s: %w", container.ID(), err))
			continue
		}
		inode, err := inodeOf(info)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("find the network of sandbox %s: %w", info.ID, err))
			continue
		}
		found[inode] = true
	}
	return found, errors.Join(errs...)
}

// inodeOf returns that of the sandbox's network namespace. It fails with fs.ErrNotExist where the sandbox has none.
func inodeOf(sandbox containers.Container) (uint64, error) {
	path, err := networkOf(sandbox)
	if err != nil {
		return 0, err
	}
	if path == "" {
		return 0, fs.ErrNotExist
	}
	file, inode, err := proc.Namespace(proc.NodeRoot, path)
	if err != nil {
		return 0, err
	}
	return inode, file.Close()
}

// networkOf returns the path on the node of the network namespace in a sandbox's runtime specification, empty when it uses the
// node's. A specification with a namespace and no path had the runtime make one without a name.
func networkOf(sandbox containers.Container) (string, error) {
	if sandbox.Spec == nil {
		return "", errNoSpecification
	}
	var specification struct {
		Linux struct {
			Namespaces []struct{ Type, Path string }
		}
	}
	if err := json.Unmarshal(sandbox.Spec.GetValue(), &specification); err != nil {
		return "", fmt.Errorf("%w: %w", errNoSpecification, err)
	}
	for _, namespace := range specification.Linux.Namespaces {
		switch {
		case namespace.Type != "network":
		case namespace.Path == "":
			return "", errNoSpecification
		default:
			return namespace.Path, nil
		}
	}
	return "", nil
}
