package servers

import (
	"context"
	"path/filepath"
	"strings"

	"ugallu.io/forensics/hack/internal/asset"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

const (
	namespace           = "ugallu-demo"
	systemNamespace     = "ugallu-system"
	privilegedNamespace = "ugallu-system-privileged"

	fieldOwner = "ugallu-servers"
)

// kubectl runs one command against the cluster.
func kubectl(ctx context.Context, env state.Env, stdin string, args ...string) (string, error) {
	command := step.Command{
		Env: []string{"KUBECONFIG=" + env.Kubeconfig}, Stdin: strings.NewReader(stdin), Args: append([]string{env.Kubectl}, args...),
	}
	return command.Run(ctx)
}

// applyNamespaces makes the namespaces that Secrets go into, those of the product from the product's own manifest.
func applyNamespaces(ctx context.Context, env state.Env) error {
	root, err := asset.Checkout(ctx)
	if err != nil {
		return err
	}
	_, err = kubectl(ctx, env, "", "apply", "--server-side", "--force-conflicts", "--field-manager="+fieldOwner,
		"-f", filepath.Join(root, "manifests", "base", "namespaces.yaml"),
		"-f", filepath.Join(root, "manifests", "servers", "namespace.yaml"))
	return err
}

// applyServers applies the Deployments with the images that were pushed, and waits until all are ready.
func applyServers(ctx context.Context, env state.Env, tags map[string]string) error {
	root, err := asset.Checkout(ctx)
	if err != nil {
		return err
	}
	rendered, err := kubectl(ctx, env, "", "kustomize", filepath.Join(root, "manifests", "servers"))
	if err != nil {
		return err
	}
	for server, tag := range tags {
		rendered = strings.ReplaceAll(rendered, "image: ugallu/"+server+":dev\n", "image: ugallu/"+server+":"+tag+"\n")
	}
	_, err = kubectl(ctx, env, rendered, "apply", "--server-side", "--force-conflicts", "--field-manager="+fieldOwner, "-f", "-")
	if err != nil {
		return err
	}
	for server := range tags {
		if _, err := kubectl(ctx, env, "", "-n", namespace, "rollout", "status", "deployment/"+server, "--timeout=180s"); err != nil {
			return err
		}
	}
	return nil
}
