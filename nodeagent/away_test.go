package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/options"
	"ugallu.io/forensics/nodeagent/internal/order"
)

// lastKnown is what the node of a contained pod remembers.
const lastKnown = `{"responses":[{"metadata":{"name":"er-0123456789abcdef-podfreeze","uid":"e1"},"spec":{"incidentName":"0123456789abcdef",
"incidentUID":"i1","nodeName":"worker","podRef":{"namespace":"sandbox","name":"victim","uid":"11111111-2222-3333-4444-555555555555","nodeName":"worker"},
"action":{"type":"PodFreeze","podFreeze":{"processes":"UntilReleased"}}},"status":{"phase":"Succeeded","completedAt":"2026-01-01T00:00:00.000000Z"}}],
"incidents":[{"metadata":{"name":"0123456789abcdef","uid":"i1"},"spec":{"disposition":"Resume"}}]}`

// node is one with a contained pod, and tells when the pod is frozen.
type node struct {
	order.Dropper
	order.Freezer
	order.Holder
	frozen chan string
}

func (n node) Pod(_ context.Context, uid string) (order.Pod, error) {
	return order.Pod{
		UID: uid, Sandboxes: 1, Processes: []int{10}, Containers: []order.Container{{ID: "c1", Name: "web", Process: 10, Cgroup: "/cgroup/web"}},
	}, nil
}

func (n node) Strays(context.Context, string) ([]order.Stray, int, error) { return nil, 0, nil }

func (n node) Pods() ([]string, error) { return nil, nil }

func (n node) Attach(context.Context, order.Pod, order.Cut) (order.Dropped, error) {
	return order.Dropped{Level: v1alpha1.LevelFull}, nil
}

func (n node) Freeze(_ context.Context, container order.Container) (bool, error) {
	select {
	case n.frozen <- container.ID:
	default:
	}
	return true, nil
}

func (n node) Still(order.Container) bool { return true }

func (n node) Held(context.Context, string) ([]string, error) { return []string{"c1"}, nil }

func (n node) Started(ctx context.Context, _ func(context.Context, string)) error {
	<-ctx.Done()
	return nil
}

func (n node) PodOf(context.Context, string) (string, error) { return "", nil }

// noMemory keeps none of it.
type noMemory struct{}

func (noMemory) Keep(context.Context, v1alpha1.PodRef, []int) (int, error) { return 0, nil }

func (noMemory) Release(context.Context, string) error { return nil }

func (noMemory) Collect(context.Context, func(podUID string) bool) error { return nil }

// deadHost is an address of this machine where nobody listens.
func deadHost(t *testing.T) string {
	t.Helper()
	return "https://" + testneeds.FreeAddress(t)
}

// TestAgentGuardsItsPodsWithTheAPIServerAway starts the manager with its guard where the API server refuses connections. A
// process has one such manager: the test runs in one of its own.
func TestAgentGuardsItsPodsWithTheAPIServerAway(t *testing.T) {
	const inside = "NODEAGENT_TEST_INSIDE"
	if os.Getenv(inside) != "1" {
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v") // #nosec G204 -- this test
		again.Env = append(os.Environ(), inside+"=1")
		if output, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, output)
		}
		return
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "known.json"), []byte(lastKnown), 0o600); err != nil {
		t.Fatal(err)
	}
	manager, err := managerFor(&rest.Config{Host: deadHost(t)}, options.Options{
		MetricsAddress: "0", ProbeAddress: "0", Pod: options.Pod{NodeName: "worker"},
	})
	if err != nil {
		t.Fatal(err)
	}
	guarded := node{frozen: make(chan string, 1)}
	guard, err := order.Setup(manager, order.Node{
		Name: "worker", Containers: guarded, Drop: guarded, Freeze: guarded, Hold: guarded, Memory: noMemory{},
		Clock: clock.RealClock{}, Client: manager.GetClient(), Live: manager.GetAPIReader(), Known: order.NewKnown(manager.GetClient(), folder),
	}, guarded)
	if err != nil {
		t.Fatal(err)
	}
	demandGuarded(t, manager, guard, guarded.frozen)
}

// demandGuarded runs both until the pod is frozen, and a while longer.
func demandGuarded(t *testing.T, manager ctrl.Manager, guard *order.Guard, frozen <-chan string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return manager.Start(ctx) })
	group.Go(func() error { return guard.Start(ctx) })
	context.AfterFunc(ctx, func() { close(ended) })
	select {
	case id := <-frozen:
		if id != "c1" {
			t.Errorf("container %s is frozen", id)
		}
	case <-ended:
		t.Error("the agent ended")
	case <-time.After(time.Minute):
		t.Error("the pod is not frozen")
	}
	select {
	case <-ended:
		t.Error("the agent ended for want of the API server")
	case <-time.After(2 * time.Second):
	}
	cancel()
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
