//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"ugallu.io/forensics/api/v1alpha1"
)

// stillness is how long a contained pod is watched after its response says contained. TCP repeats what was not
// acknowledged within 0.2 s, 0.4 s, 0.8 s, 1.6 s, so a leak of an established stream shows in this time.
const stillness = 5 * time.Second

// containment waits for the podfreeze response and returns what it says was reached.
func (c *cluster) containment(tb testing.TB, s *scene) v1alpha1.Containment {
	tb.Helper()
	freeze := c.awaitResponse(tb, s, v1alpha1.StepFreeze, func(response v1alpha1.EventResponse) bool {
		return response.Status.CompletedAt != nil
	})
	if freeze.Status.Containment == nil || freeze.Status.Containment.ContainedAt == nil {
		tb.Fatalf("podfreeze does not say contained\n%s", c.account(tb.Context(), s))
	}
	return *freeze.Status.Containment
}

// watchStill waits until a while has passed since a time at which nothing should move any more.
func watchStill(since time.Time) {
	time.Sleep(max(time.Until(since.Add(stillness)), 0))
}

// demandSilence demands that each sender got through when the event came, and that nothing of it arrived after a time.
func demandSilence(t *testing.T, s *scene, at receiver, since time.Time, tags ...string) {
	t.Helper()
	watchStill(since)
	found := at.must(t)
	for _, tag := range tags {
		t.Run(tag, func(t *testing.T) {
			f := found[tag]
			if f.total() < enough || !f.first().Before(s.emitted) || f.last().Before(s.emitted) {
				t.Fatalf("%d bytes arrived, from %s to %s after the event: its end proves nothing", f.total(),
					f.first().Sub(s.emitted), f.last().Sub(s.emitted))
			}
			if late := f.after(since); late != 0 {
				t.Errorf("%d bytes arrived after %s, the last one %s after it", late, since.Format(time.RFC3339Nano), f.last().Sub(since))
			}
			t.Logf("%d bytes; the last %s after the event, %s before it was to be silent", f.total(),
				f.last().Sub(s.emitted).Round(time.Millisecond), since.Sub(f.last()).Round(100*time.Microsecond))
		})
	}
}

// states maps the ids of a node's containers to what their freezers say.
func states(ctx context.Context, node string) (map[string]string, error) {
	tasks, err := tasks(ctx, node)
	found := make(map[string]string, len(tasks))
	for id, task := range tasks {
		found[id] = task.state
	}
	return found, err
}

// task is a container of the runtime: its first process, and whether it is running, freezing, paused or stopped.
type task struct{ process, state string }

// lookForTasks asks the freezers themselves, which containerd does not, and `runc list` only with a wait for every container
// that is on its way into one. What goes meanwhile has stopped.
const lookForTasks = `for record in /run/containerd/runc/k8s.io/*/state.json; do
  set -- $(jq -r '.id, .init_process_pid, (.cgroup_paths.freezer // .cgroup_paths[""])' "$record" 2>/dev/null)
  [ $# = 3 ] || continue
  state=stopped
  case "$(sed 's/.*) //; s/ .*//' /proc/$2/stat 2>/dev/null)" in ""|Z|X) ;; *)
    case "$(cat "$3/freezer.state" 2>/dev/null || sed -n 's/^frozen //p' "$3/cgroup.events" 2>/dev/null)" in
      FROZEN|1) state=paused ;; FREEZING) state=freezing ;; THAWED|0) state=running ;;
    esac ;;
  esac
  echo $1 $2 $state
done`

func tasks(ctx context.Context, node string) (map[string]task, error) {
	listed, err := onNode(ctx, node, "sh", "-uc", lookForTasks)
	if err != nil {
		return nil, err
	}
	found := map[string]task{}
	for line := range strings.Lines(listed) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("containers of node %s: %q is not an id, a process and a state", node, line)
		}
		found[fields[0]] = task{process: fields[1], state: fields[2]}
	}
	return found, nil
}

// demandFrozen demands that every container of the victim is frozen, by the record and by the node's own view.
func demandFrozen(t *testing.T, s *scene, containment v1alpha1.Containment) {
	t.Helper()
	for _, container := range containment.Containers {
		if container.FrozenAt == nil {
			t.Errorf("container %s has no frozenAt", container.Name)
		}
	}
	demandPaused(t, s)
}

// demandPaused waits until every container of the victim that runs now is frozen on its node.
func demandPaused(t *testing.T, s *scene) {
	t.Helper()
	err := eventually(t.Context(), 30*time.Second, func(ctx context.Context) (bool, string, error) {
		found, err := states(ctx, s.victim.Spec.NodeName)
		if err != nil {
			return false, err.Error(), nil //nolint:nilerr // the runtime may be restarting
		}
		ids := suite.containerIDs(t, s.suspect())
		told, paused := "", len(ids) > 0
		for name, id := range ids {
			paused = paused && found[id] == "paused"
			told += fmt.Sprintf("%s (%.12s) is %s\n", name, id, found[id])
		}
		return paused, told, nil
	})
	if err != nil {
		t.Errorf("not frozen on the node: %v", err)
	}
}

// pins lists what keeps a pod cut off, by the names of the hooks.
func pins(ctx context.Context, s *scene) (string, error) {
	return onNode(ctx, s.victim.Spec.NodeName, "sh", "-c", "ls /sys/fs/bpf/ugallu/"+string(s.victim.UID)+" 2>/dev/null || true")
}

// demandRestored demands that a released pod talks again and that nothing of the incident is left on it.
func demandRestored(t *testing.T, s *scene, at receiver, tags ...string) {
	t.Helper()
	unfreeze := suite.responses(t, s)[v1alpha1.StepUnfreeze]
	if unfreeze.Status.Phase != v1alpha1.ResponseSucceeded || unfreeze.Status.CompletedAt == nil {
		t.Errorf("podunfreeze is %q\n%s", unfreeze.Status.Phase, describe(unfreeze.Status.Conditions))
	}
	// A stream doubles its pause with each attempt: after a cut it may need as long again to go on.
	if err := at.awaitFlows(t, unfreeze.Status.CompletedAt.Time, time.Minute, tags...); err != nil {
		t.Errorf("not everything gets through again: %v", err)
	}
	ctx, node := t.Context(), s.victim.Spec.NodeName
	if left, err := pins(ctx, s); err != nil || left != "" {
		t.Errorf("pins are left: %s (%v)", left, err)
	}
	if left, err := onNode(ctx, node, "ctr", "-n", "k8s.io", "leases", "ls", "-q"); err != nil || strings.Contains(left, s.incident) {
		t.Errorf("leases are left: %s (%v)", left, err)
	}
	if policies := suite.must(t, "-n", s.namespace, "get", "networkpolicies", "-o", "name"); strings.Contains(policies, string(s.victim.UID)) {
		t.Errorf("our policy is left: %s", policies)
	}
	if label, still := suite.pod(t, s.suspect()).Labels[v1alpha1.LabelFrozen]; still {
		t.Errorf("the label ugallu.io/frozen is left: %q", label)
	}
}
