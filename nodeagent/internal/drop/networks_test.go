package drop

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
)

// unshared starts processes of the pod, each in a network namespace of its own.
func (p *pod) unshared(t *testing.T, count int) (processes []int) {
	t.Helper()
	for range count {
		process := exec.Command("sleep", "60")
		process.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = process.Process.Kill()
			_ = process.Wait()
		})
		processes = append(processes, process.Process.Pid)
	}
	return processes
}

// TestNetworksWithoutNumberDoNotKeepThePodsOwn has processes in more networks than are looked at come before those of the
// pod's own.
func TestNetworksWithoutNumberDoNotKeepThePodsOwn(t *testing.T) {
	p := newPod(t)
	p.target.Processes = append(p.unshared(t, maxNamespaces+1), p.target.Processes...)
	d := dropper(t, p.config)
	p.target.Others = func() (map[uint64]bool, error) {
		eventually(t, "the pod's own network is cut off before the others are looked at", func() bool {
			hooks, err := d.Observe(p.target.PodUID)
			return err == nil && len(hooks) == 5
		})
		return nil, nil
	}
	result := attached(t, d, p.target)
	want := []string{"the pod has more than 64 network namespaces: what leads out of the others is not cut off"}
	if diff := cmp.Diff(want, result.Shortfalls); diff != "" || result.Level != v1alpha1.LevelPartial || len(result.Hooks) != 5 {
		t.Errorf("Attach = %+v, shortfalls (-want +got):\n%s", result, diff)
	}
	if followed := len(d.links.sockets[p.target.PodUID]); followed != maxNamespaces {
		t.Errorf("%d networks are looked at", followed)
	}
	p.quiet(t)
}

// TestALookThatIsGivenUpLeavesThePodsOwnNetworkCutOff: only what is not the pod's own asks whether there is time left.
func TestALookThatIsGivenUpLeavesThePodsOwnNetworkCutOff(t *testing.T) {
	for name, running := range map[string]bool{"frozen": false, "running": true} {
		t.Run(name, func(t *testing.T) {
			p := newPod(t)
			p.target.Running = running
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			result, err := dropper(t, p.config).Attach(ctx, p.target)
			if !errors.Is(err, context.Canceled) || len(result.Hooks) != 5 {
				t.Errorf("Attach = %+v, %v", result, err)
			}
			p.quiet(t)
		})
	}
}

// TestTheNodesNetworkIsFoundAmongNetworksWithoutNumber has a process of a running pod in the node's network come after more
// others than are looked at.
func TestTheNodesNetworkIsFoundAmongNetworksWithoutNumber(t *testing.T) {
	const (
		many    = "the pod has more than 64 network namespaces: what leads out of the others is not cut off"
		inNode  = "the pod uses the node's network: its loopback and its probes are cut off as well"
		raw     = "the pod uses the node's network: raw frames are not cut off"
		unknown = "whether the pod uses the node's network is not known: its loopback and its probes are cut off as well"
	)
	p := newPod(t)
	p.target.Running = true
	decoys := append(p.unshared(t, maxNamespaces+1), p.process.Process.Pid)
	p.target.Processes = append(decoys, p.inNode(t))
	result := attached(t, dropper(t, p.config), p.target)
	if diff := cmp.Diff([]string{many, raw, inNode}, result.Shortfalls, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("shortfalls (-want +got):\n%s", diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	result, err := dropper(t, p.config).Attach(ctx, p.target)
	if diff := cmp.Diff([]string{many, unknown}, result.Shortfalls); diff != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v, shortfalls (-want +got):\n%s", err, diff)
	}
}

// inNode starts a process of the pod in the node's network.
func (p *pod) inNode(t *testing.T) (process int) {
	t.Helper()
	return p.inNetwork(t, "node")
}

// inNetwork starts a process in one of the test's networks.
func (p *pod) inNetwork(t *testing.T, name string) (process int) {
	t.Helper()
	sleep := exec.Command("ip", "netns", "exec", p.prefix+name, "sleep", "60") // #nosec G204 -- a name of the test's own
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	})
	want, err := inodeAt(p.netns(name))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process is in its network", func() bool {
		inode, err := inodeAt(fmt.Sprintf("/proc/%d/ns/net", sleep.Process.Pid))
		return err == nil && inode == want
	})
	return sleep.Process.Pid
}
