package drop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

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
	// NodeRoot is the folder that paths of network namespaces begin in: proc.NodeRoot.
	NodeRoot string
}

// Target is the pod to cut off.
type Target struct {
	PodUID string
	// Cgroup is the pod's cgroup2 folder, empty when it is not known.
	Cgroup string
	// Networks are where on the node the network namespaces are mounted that the runtime made for the pod. They are cut off
	// first, and also where no process of the pod is in them any more.
	Networks []string
	// Processes of the pod: the network namespaces that they are in are the pod's as well, but for those of Others.
	Processes []int
	// Running is whether the pod's processes go on: then loopback inside the pod passes, and the kubelet's probes.
	Running bool
	// KubeletCgroup is the id of the cgroup that the kubelet runs in; with 0 no probe passes.
	KubeletCgroup uint64
	// Others tells the network namespaces of the other pods on the node. It is asked only when a process of the pod is in
	// another than Networks and the node's. May be nil.
	Others func() (map[uint64]bool, error)
	// Probe is whether to send a packet to the pod over each device and to see it counted.
	Probe bool
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
	nodeRoot  string
	spec      *ebpf.CollectionSpec
	// device is the kind of hook that this kernel has for devices.
	device v1alpha1.HookProgram
	links  *links
	spare  *spare
	mutex  sync.Mutex
	// open are the pins of pods that this process cut off, by uid.
	open map[string]*pins
}

// New returns a Dropper, after it has made sure that a bpf file system is mounted and that the kernel takes the programs.
// The caller closes it, which detaches nothing.
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
	// Kernels before 5.11 charge maps to a limit that takes CAP_SYS_RESOURCE to raise. Whether it matters the load says.
	limitErr := rlimit.RemoveMemlock()
	trial := new(bpf.DropObjects)
	if err := spec.Copy().LoadAndAssign(trial, nil); err != nil {
		return nil, fmt.Errorf("load the drop programs: %w", errors.Join(err, limitErr))
	}
	d := &Dropper{
		root: root, nodeNetns: config.NodeNetns, nodeRoot: config.NodeRoot, spec: spec, device: v1alpha1.HookTcx, links: newLinks(), spare: newSpare(spec),
		open: map[string]*pins{},
	}
	tcx, err := hasTCX()
	if !tcx {
		d.device = v1alpha1.HookClsact
	}
	d.spare.fill()
	return d, errors.Join(err, trial.Close())
}

// Close ends the watch on links and closes what is open of the pins. Every pod that is cut off stays so.
func (d *Dropper) Close() error {
	d.spare.close()
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for uid, pins := range d.open {
		pins.close()
		delete(d.open, uid)
	}
	return d.links.close()
}

// DeviceHook is the kind of hook that this kernel has for devices.
func (d *Dropper) DeviceHook() v1alpha1.HookProgram { return d.device }

// Attach cuts the pod off. Hooks that are in place already are adopted, missing ones are added, so it may be called again
// at any time. It returns an error only when it could not act at all; what it could not cover is in Shortfalls. From then
// on, until Detach, Watch tells when a device of the pod comes or changes.
//
// The cgroup hooks and the devices' hooks are attached side by side: a device takes 15 to 30 ms, most of it waiting for
// the kernel's grace period, a cgroup under 1 ms. Neither the cgroup's nor those of the pod's own network wait for a look at
// what else the pod has, of which there may be much.
func (d *Dropper) Attach(ctx context.Context, target Target) (Result, error) {
	defer d.spare.fill()
	pins, err := d.pinsOf(target)
	if err != nil {
		return Result{}, err
	}
	found := new(findings)
	if pins.mapsLost {
		found.fallShort("what an earlier version counted is lost: its maps differ")
	}
	if err := pins.pinned(bpf.DropMapProbeSource).Put(uint32(0), target.KubeletCgroup); err != nil {
		found.fallShort("name the kubelet's cgroup: %w", err)
	}
	w := work{found: found, pins: pins, target: target, device: d.device, nodeRoot: d.nodeRoot, namespaces: namespaces{}, own: map[uint64]bool{}}
	err = d.attach(ctx, w)
	return found.result(time.Now()), errors.Join(err, w.namespaces.close())
}

func (d *Dropper) attach(ctx context.Context, w work) (err error) {
	var beside sync.WaitGroup
	defer beside.Wait()
	if !w.target.Running {
		early := w // what follows is written to w meanwhile
		beside.Go(func() { early.attachCgroup("") })
	}
	if w.node, err = os.Open(d.nodeNetns); err != nil {
		return fmt.Errorf("open the node's network namespace: %w", err)
	}
	defer func() { err = errors.Join(err, w.node.Close()) }()
	if w.nodeInode, err = inodeOf(w.node); err != nil {
		return err
	}
	err = w.attachDevices(ctx)
	if followed := d.links.follow(w.target.PodUID, w.namespaces, w.nodeInode); followed != nil {
		w.found.fallShort("devices that come later are found late: %w", followed)
	}
	return err
}

func (d *Dropper) pinsOf(target Target) (*pins, error) {
	podUID := target.PodUID
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if known := d.open[podUID]; known != nil {
		if _, err := os.Stat(known.path(bpf.DropMapCounters)); err == nil {
			return known, known.want(target.Running)
		}
		// Somebody removed the pins: start over with maps that outlive this process.
		delete(d.open, podUID)
		known.close()
	}
	opened, err := openPins(d.folder(podUID), d.spec, target.Running, d.spare)
	if err != nil {
		return nil, err
	}
	d.open[podUID] = opened
	return opened, nil
}

// Watch calls changed with a pod's uid when a device of it came or changed, until the context ends.
func (d *Dropper) Watch(ctx context.Context, changed func(ctx context.Context, podUID string)) {
	d.links.watch(ctx, changed)
}

// Observe returns the pod's hooks with what they dropped so far. A pod that is not cut off has none.
func (d *Dropper) Observe(podUID string) ([]v1alpha1.Hook, error) {
	return observe(d.folder(podUID))
}

// CountedSince is when the counters began that the pod's hooks count into: an upgrade with other maps, a reboot and a removal
// of the pins have them begin anew. It is zero for a pod that is not cut off.
func (d *Dropper) CountedSince(podUID string) (time.Time, error) {
	info, err := os.Stat(filepath.Join(d.folder(podUID), bpf.DropMapCounters))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("look at the pinned counters: %w", err)
	}
	return info.ModTime(), nil
}

// Detach lets the pod's packets pass again. What is detached already is no error.
func (d *Dropper) Detach(podUID string) error {
	d.mutex.Lock()
	known := d.open[podUID]
	delete(d.open, podUID)
	d.mutex.Unlock()
	if known != nil {
		known.close()
	}
	if err := errors.Join(d.links.unfollow(podUID), unpin(d.folder(podUID), d.nodeNetns)); err != nil {
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
