package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"ugallu.io/forensics/hack/internal/asset"
	"ugallu.io/forensics/hack/internal/servers"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// Install puts servers and programs into the cluster that is up. Run again, it changes only what changed.
func Install(ctx context.Context) error {
	env, err := state.ReadEnv()
	if err != nil {
		return err
	}
	tags, err := Images(ctx, env)
	if err != nil {
		return err
	}
	rendered, err := render(ctx, env, tags)
	if err != nil {
		return err
	}
	// The servers' Secrets and ConfigMaps live in the programs' namespaces.
	if err := applyKinds(ctx, env, rendered, "namespaces", first); err != nil {
		return err
	}
	if err := established(ctx, env); err != nil {
		return err
	}
	if err := servers.Install(ctx, env); err != nil {
		return err
	}
	if err := applyKinds(ctx, env, rendered, "manifests", func(object) bool { return true }); err != nil {
		return err
	}
	return step.Do("programs roll out", func() error { return rollOut(ctx, env, rendered) })
}

// object is the part of a manifest that decides what is done with it.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	raw json.RawMessage
}

// first tells what other objects need to be there: namespaces, and the definitions of our own kinds.
func first(o object) bool { return o.Kind == "Namespace" || o.Kind == "CustomResourceDefinition" }

func kubectl(env state.Env, args ...string) step.Command {
	return step.Command{Args: append([]string{env.Kubectl, "--kubeconfig", env.Kubeconfig}, args...)}
}

// render is the demo overlay with the tags of the images that were pushed.
func render(ctx context.Context, env state.Env, tags map[string]string) (objects []object, err error) {
	root, err := asset.Checkout(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "ugallu-overlay-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the overlay: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// kustomize takes no absolute paths, and compares real ones.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("resolve the overlay's folder: %w", err)
	}
	overlay, err := filepath.Rel(dir, filepath.Join(root, "manifests", "overlays", "demo"))
	if err != nil {
		return nil, fmt.Errorf("find the demo overlay: %w", err)
	}
	file := filepath.Join(dir, "kustomization.yaml")
	if err := os.WriteFile(file, []byte(kustomization(overlay, tags)), 0o600); err != nil {
		return nil, fmt.Errorf("write the overlay: %w", err)
	}
	build := kubectl(env, "kustomize", dir)
	out, err := build.Run(ctx)
	if err != nil {
		return nil, err
	}
	return parse(out)
}

func kustomization(overlay string, tags map[string]string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- %s\nimages:\n", overlay)
	var names []string
	for name := range tags {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(&text, "- name: %s\n  newTag: %q\n", name, tags[name])
	}
	return text.String()
}

func applyKinds(ctx context.Context, env state.Env, objects []object, what string, chosen func(object) bool) error {
	var documents strings.Builder
	for _, o := range objects {
		if chosen(o) {
			documents.Write(o.raw)
			documents.WriteString("\n")
		}
	}
	return step.Do("apply "+what, func() error {
		apply := kubectl(env, "apply", "--server-side", "--force-conflicts", "--field-manager", "ugallu-install", "--filename", "-")
		apply.Stdin = strings.NewReader(documents.String())
		_, err := apply.Run(ctx)
		return err
	})
}

// established waits until the API serves our kinds, so that objects of them can follow.
func established(ctx context.Context, env state.Env) error {
	wait := kubectl(env, "wait", "--for", "condition=Established", "customresourcedefinition", "--all", "--timeout", "60s")
	_, err := wait.Run(ctx)
	return err
}

// rollOut waits for every workload of the overlay. Pulling four images and a webhook's certificate take most of it.
func rollOut(ctx context.Context, env state.Env, objects []object) error {
	for _, o := range objects {
		if o.Kind != "Deployment" && o.Kind != "DaemonSet" {
			continue
		}
		wait := kubectl(env, "rollout", "status", strings.ToLower(o.Kind)+"/"+o.Metadata.Name,
			"--namespace", o.Metadata.Namespace, "--timeout", "3m")
		wait.Timeout = 4 * time.Minute
		if _, err := wait.Run(ctx); err != nil {
			return err
		}
	}
	return nil
}
