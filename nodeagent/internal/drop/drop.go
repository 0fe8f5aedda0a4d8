package drop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/bpf"
)

// Config of a Dropper.
type Config struct {
	// BPFFS is where the node's bpf file system is mounted. It is mounted there when it is not.
	BPFFS string
	// NodeNetns is the network namespace that the host sides of the pods' veth devices are in: /proc/1/ns/net.
	NodeNetns string
	// NodeMountns is the mount namespace that the bpf file system must live in to outlive this process: /proc/1/ns/mnt.
	NodeMountns string
}

// Target is the pod to cut off.
type Target struct {
	PodUID string
	// Cgroup is the pod's cgroup2 folder, empty when it is not known.
	Cgroup string
	// Processes of the pod: the network namespaces that they are in are the pod's.
	Processes []int
}

// Result is what a containment reached.
type Result struct {
	Level v1alpha1.ContainmentLevel
	// Hooks in place, ordered by id.
	Hooks []v1alpha1.Hook
	// ContainedAt is when the last hook had been verified; zero when none was.
	ContainedAt time.Time
	// Shortfalls say, for people, why the level is not Full.
	Shortfalls []string
}

// Dropper attaches and detaches. What it attaches lives in the kernel, pinned in a folder for each pod, and stays in place
// when this process ends. Calls for different pods may overlap; calls for one pod must not.
type Dropper struct {
	root      string
	nodeNetns string
	spec      *ebpf.CollectionSpec
}

// New returns a Dropper, after it has made sure that a bpf file system is mounted and that the kernel takes the programs.
func New(config Config) (*Dropper, error) {
	if err := ensureMounted(config.BPFFS, config.NodeMountns); err != nil {
		return nil, err
	}
	spec, err := bpf.LoadDrop()
	if err != nil {
		return nil, fmt.Errorf("read the drop programs: %w", err)
	}
	root := filepath.Join(config.BPFFS, "ugallu")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of pins: %w", err)
	}
	d := &Dropper{root: root, nodeNetns: config.NodeNetns, spec: spec}
	trial := new(bpf.DropObjects)
	if err := spec.Copy().LoadAndAssign(trial, nil); err != nil {
		return nil, fmt.Errorf("load the drop programs: %w", err)
	}
	return d, trial.Close()
}

// Attach cuts the pod off. Hooks that are in place already are adopted, missing ones are added, so it may be called again
// at any time. It returns an error only when it could not act at all; what it could not cover is in Shortfalls.
//
// The cgroup hooks and the devices' hooks are attached side by side: a device takes 15 to 30 ms, most of it waiting for
// the kernel's grace period, a cgroup under 1 ms.
func (d *Dropper) Attach(ctx context.Context, target Target) (Result, error) {
	pins, err := openPins(d.folder(target.PodUID), d.spec)
	if err != nil {
		return Result{}, err
	}
	found := new(findings)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		found.attachCgroup(pins, target.Cgroup)
		return nil
	})
	group.Go(func() error { return found.attachDevices(ctx, pins, target.Processes, d.nodeNetns) })
	err = group.Wait()
	result := found.result(time.Now())
	return result, errors.Join(err, pins.close())
}

// Observe returns the pod's hooks with what they dropped so far. A pod that is not cut off has none.
func (d *Dropper) Observe(podUID string) ([]v1alpha1.Hook, error) {
	return observe(d.folder(podUID))
}

// Detach lets the pod's packets pass again. What is detached already is no error.
func (d *Dropper) Detach(podUID string) error {
	if err := unpin(d.folder(podUID)); err != nil {
		return fmt.Errorf("detach the drop of pod %s: %w", podUID, err)
	}
	return nil
}

// Pods returns the uids of the pods that are cut off.
func (d *Dropper) Pods() ([]string, error) {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return nil, fmt.Errorf("list the folder of pins: %w", err)
	}
	uids := make([]string, 0, len(entries))
	for _, entry := range entries {
		uids = append(uids, entry.Name())
	}
	return uids, nil
}

func (d *Dropper) folder(podUID string) string { return filepath.Join(d.root, podUID) }
