package kindcluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"ugallu.io/forensics/hack/internal/engine"
	"ugallu.io/forensics/hack/internal/kubernetes"
	"ugallu.io/forensics/hack/internal/registry"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// Up makes the cluster, resumes a stopped one, or finds it as it should be, and writes env.json.
func Up(ctx context.Context) (env state.Env, err error) {
	unlock, err := lock()
	if err != nil {
		return state.Env{}, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := engine.Ensure(ctx); err != nil {
		return state.Env{}, err
	}
	env, kind, err := tools(ctx)
	if err != nil {
		return state.Env{}, err
	}
	wanted, err := want(ctx)
	if err != nil {
		return state.Env{}, err
	}
	if err := ensureNodes(ctx, env, kind, wanted); err != nil {
		return state.Env{}, err
	}
	if env.Nodes, err = join(ctx, env, wanted); err != nil {
		return state.Env{}, err
	}
	if env.RegistryHost, err = registry.Ensure(ctx); err != nil {
		return state.Env{}, err
	}
	env.RegistryInCluster = registry.InCluster
	if err := pushVictims(ctx, env.RegistryHost); err != nil {
		return state.Env{}, err
	}
	return env, state.WriteEnv(env)
}

// Down removes the cluster and the registry, and stops the engine if Up started it. Everything built stays.
func Down(ctx context.Context) (err error) {
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	recorded, err := recall()
	if err != nil {
		return err
	}
	// Nothing is installed or started on a machine that never had a cluster.
	if recorded == (settings{}) && !engine.Answers(ctx) {
		return nil
	}
	if err := engine.Ensure(ctx); err != nil {
		return err
	}
	if err := removeAll(ctx); err != nil {
		return err
	}
	return engine.Stop(ctx)
}

func removeAll(ctx context.Context) error {
	_, kind, err := tools(ctx)
	if err != nil {
		return err
	}
	if err := remove(ctx, kind); err != nil {
		return err
	}
	if err := registry.Remove(ctx); err != nil {
		return err
	}
	return errors.Join(state.Forget("env.json"), state.Forget(recordName))
}

// tools builds what talks to the cluster from outside.
func tools(ctx context.Context) (env state.Env, kind string, err error) {
	assets, err := kubernetes.Envtest(ctx)
	if err != nil {
		return state.Env{}, "", err
	}
	dir, err := kubernetes.Kind().Build(ctx)
	if err != nil {
		return state.Env{}, "", err
	}
	kubeconfig, err := state.Path("kubeconfig")
	if err != nil {
		return state.Env{}, "", err
	}
	env = state.Env{Kubeconfig: kubeconfig, Kubectl: filepath.Join(assets, "kubectl"), EnvtestAssets: assets}
	return env, filepath.Join(dir, "kind"), nil
}

// ensureNodes leaves two node containers running that were made from the wanted settings.
func ensureNodes(ctx context.Context, env state.Env, kind string, wanted settings) error {
	running, err := containers(ctx)
	if err != nil {
		return err
	}
	recorded, err := recall()
	if err != nil {
		return err
	}
	switch judge(recorded, wanted, running) {
	case use:
		return nil
	case resume:
		err := step.Do("resume the nodes", func() error { return restart(ctx, env, running) })
		if err == nil {
			return nil
		}
		// A machine that went down at a bad moment leaves what cannot come back; a new cluster takes a minute.
		if err := remove(ctx, kind); err != nil {
			return err
		}
	case recreate:
		if err := remove(ctx, kind); err != nil {
			return err
		}
	case create:
	}
	return step.Do("create the cluster", func() error { return makeCluster(ctx, kind, wanted) })
}

// join puts the network between the nodes and waits until both are Ready.
func join(ctx context.Context, env state.Env, wanted settings) (list []state.Node, err error) {
	err = step.Do("nodes Ready", func() error {
		found, ready, err := nodes(ctx, env, time.Time{})
		settled := err == nil && ready == 2
		if !settled {
			if found, err = waitNodes(ctx, env, 2*time.Minute); err != nil {
				return err
			}
		}
		list = found
		for _, node := range list {
			if err := setUp(ctx, node, list, wanted.OwnNetwork); err != nil {
				return fmt.Errorf("set up %s: %w", node.Name, err)
			}
		}
		if settled {
			return step.ErrCached
		}
		return waitReady(ctx, env, time.Time{}, 3*time.Minute)
	})
	return list, err
}
