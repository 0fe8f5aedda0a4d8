package servers

import (
	"context"

	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// Install builds the servers, runs them in the cluster and sets them up: bucket, users and policies of the store, the
// attestor's key, the trusted root, and the Secrets that the product's workloads mount. Keys and passwords are made
// once in a cluster's life. Everything can be repeated; what is there already costs seconds.
func Install(ctx context.Context, env state.Env) error {
	binaries, err := Binaries(ctx)
	if err != nil {
		return err
	}
	tags, err := pushAll(ctx, env.RegistryHost, binaries)
	if err != nil {
		return err
	}
	cluster, err := connect(env)
	if err != nil {
		return err
	}
	var made keys
	if err := step.Do("keys of the servers", func() error {
		if err := applyNamespaces(ctx, env); err != nil {
			return err
		}
		made, err = ensureKeys(ctx, cluster)
		return err
	}); err != nil {
		return err
	}
	if err := step.Do("servers are ready", func() error { return applyServers(ctx, env, tags) }); err != nil {
		return err
	}
	if err := step.Do("bucket, users and policies", func() error {
		return store{env: env, cluster: cluster, root: made.minio}.setUp(ctx)
	}); err != nil {
		return err
	}
	return step.Do("signing key and trusted root", func() error {
		return through(ctx, env, Transit, "8200", func(ctx context.Context, address string) error {
			versions, err := ensureTransitKey(ctx, address, string(made.transit[transitToken]))
			if err != nil {
				return err
			}
			return publishTrust(ctx, cluster, made, versions)
		})
	})
}
