package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"ugallu.io/forensics/hack/internal/asset"
	"ugallu.io/forensics/hack/internal/step"
)

const (
	// Version is the release the cluster runs. Later kubelets refuse a cgroup v1 host unless told otherwise.
	Version = "v1.34.4"
	// EtcdVersion is the etcd release that kubeadm of Version asks for.
	EtcdVersion = "v3.6.5"

	module = "k8s.io/kubernetes"
)

// APIServer is what envtest needs of Kubernetes; it is built before the rest since everything else waits for it.
func APIServer() asset.Program { return program("kube-apiserver", "kube-apiserver", "kubectl") }

// Node is what the node image needs beyond APIServer.
func Node() asset.Program {
	return program("kubernetes", "kube-controller-manager", "kube-scheduler", "kubelet", "kubeadm", "kube-proxy")
}

// Etcd is the store's server.
func Etcd() asset.Program {
	return asset.Program{
		Name: "etcd", Module: "go.etcd.io/etcd/server/v3", Version: EtcdVersion,
		Packages: []string{"go.etcd.io/etcd/server/v3"}, Binary: "etcd",
	}
}

// Envtest builds and returns the folder that KUBEBUILDER_ASSETS names.
func Envtest(ctx context.Context) (string, error) {
	var folders []string
	for _, p := range []asset.Program{Etcd(), APIServer()} {
		dir, err := p.Build(ctx)
		if err != nil {
			return "", err
		}
		folders = append(folders, dir)
	}
	return asset.Join("envtest", folders)
}

func program(name string, commands ...string) asset.Program {
	var packages []string
	for _, command := range commands {
		packages = append(packages, module+"/cmd/"+command)
	}
	return asset.Program{
		Name: name, Module: module, Version: Version, Packages: packages, LDFlags: versionFlags(Version),
		GoMod: func(ctx context.Context, dir string) error { return writeModule(ctx, dir, packages) },
	}
}

// versionFlags are the variables that `kubectl version`, kubeadm's skew check and the API's /version read.
func versionFlags(version string) string {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	values := []string{
		"gitVersion=" + version, "gitMajor=" + parts[0], "gitMinor=" + parts[1],
		// The module proxy carries no commit; a fixed date keeps the build repeatable.
		"gitCommit=module", "gitTreeState=clean", "buildDate=2026-01-01T00:00:00Z",
	}
	var flags []string
	for _, value := range values {
		flags = append(flags, "-X k8s.io/component-base/version."+value)
	}
	return strings.Join(flags, " ")
}

// writeModule makes a module that can build the commands: the staging modules have no version in Kubernetes' own go.mod.
func writeModule(ctx context.Context, dir string, packages []string) error {
	download := step.Command{Dir: dir, Args: []string{"go", "mod", "download", "-json", module + "@" + Version}}
	out, err := download.Run(ctx)
	if err != nil {
		return err
	}
	var downloaded struct{ GoMod string }
	if err := json.Unmarshal([]byte(out), &downloaded); err != nil {
		return fmt.Errorf("parse what go says of %s: %w", module, err)
	}
	upstream, err := os.ReadFile(downloaded.GoMod) // #nosec G304 -- a file of the module cache
	if err != nil {
		return fmt.Errorf("read go.mod of %s: %w", module, err)
	}
	text := moduleFile(string(upstream), Version)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write go.mod: %w", err)
	}
	for _, pkg := range packages {
		get := step.Command{Dir: dir, Env: asset.Env(), Args: []string{"go", "get", pkg + "@" + Version}}
		if _, err := get.Run(ctx); err != nil {
			return err
		}
	}
	return nil
}

var staging = regexp.MustCompile(`(?m)^\s+(k8s\.io/[a-z-]+) v0\.0\.0$`)

// moduleFile replaces every staging module by its published version, v0.X.Y for Kubernetes v1.X.Y.
func moduleFile(upstream, version string) string {
	published := "v0" + strings.TrimPrefix(version, "v1")
	var names []string
	for _, found := range staging.FindAllStringSubmatch(upstream, -1) {
		names = append(names, found[1])
	}
	slices.Sort(names)
	var text strings.Builder
	fmt.Fprintf(&text, "module kubernetesbinaries\n\ngo 1.24.0\n\ngodebug default=go1.24\n\nrequire %s %s\n\nreplace (\n", module, version)
	for _, name := range slices.Compact(names) {
		fmt.Fprintf(&text, "\t%s => %s %s\n", name, name, published)
	}
	text.WriteString(")\n")
	return text.String()
}
