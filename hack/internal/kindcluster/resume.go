package kindcluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ugallu.io/forensics/hack/internal/engine"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// resumeTime bounds a resume: a control plane is back in about 20 s on two idle cores; recreating takes a minute.
const resumeTime = 2 * time.Minute

func parseContainers(lines string) map[string]bool {
	running := map[string]bool{}
	for line := range strings.Lines(lines) {
		name, status, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "" {
			running[name] = status == "running"
		}
	}
	return running
}

// verdict is what has to be done about the cluster that is there.
type verdict int

const (
	create verdict = iota
	recreate
	resume
	use
)

// judge compares what is there with what is wanted. A cluster whose making was interrupted has no record.
func judge(recorded, wanted settings, running map[string]bool) verdict {
	switch {
	case len(running) == 0:
		return create
	case len(running) != 2 || recorded != wanted:
		return recreate
	case !running[controlPlane] || !running[worker]:
		return resume
	default:
		return use
	}
}

// restart starts the stopped node containers, the control plane first so that it has its old address again when it can.
func restart(ctx context.Context, env state.Env, running map[string]bool) error {
	begun := time.Now().Truncate(time.Second)
	for _, name := range []string{controlPlane, worker} {
		if running[name] {
			continue
		}
		if _, err := engine.Docker(ctx, "start", name); err != nil {
			return err
		}
	}
	if err := waitReady(ctx, env, begun, resumeTime); err != nil {
		return fmt.Errorf("wait for the nodes to be Ready again: %w", err)
	}
	return nil
}

// cgroupRoot is where this machine shows what is frozen.
const cgroupRoot = "/sys/fs/cgroup"

// remove ends the node containers with all that runs in them. What an agent froze between the thaw and the end is thawed
// by the second try, when no agent lives any more.
func remove(ctx context.Context, kind string) error {
	return step.Do("remove the cluster", func() error {
		path, err := state.Path("kubeconfig")
		if err != nil {
			return err
		}
		for range 2 {
			if err = thaw(ctx, cgroupRoot); err != nil {
				return err
			}
			if _, err = step.Run(ctx, kind, "delete", "cluster", "--name", Name, "--kubeconfig", path); err == nil {
				return nil
			}
		}
		return err
	})
}
