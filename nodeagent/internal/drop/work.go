package drop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/bpf"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

// work of one call of Attach.
type work struct {
	found     *findings
	pins      *pins
	target    Target
	device    v1alpha1.HookProgram
	node      *os.File // the node's network namespace
	nodeInode uint64
	nodeRoot  string
	// namespaces of the pod and of its processes, as far as they are open.
	namespaces namespaces
	// own are those of the namespaces that the runtime made for the pod.
	own map[uint64]bool
}

// either is the program for a pod whose processes run, or for one whose do not.
func (w work) either(running, frozen string) string {
	if w.target.Running {
		return running
	}
	return frozen
}

// attachCgroup puts both hooks on the pod's cgroup. For a pod that runs, exposed says why its loopback may be the node's: it
// is cut off then as well.
func (w work) attachCgroup(exposed string) {
	if w.target.Cgroup == "" {
		w.found.fallShort("the pod's cgroup is not known: its sockets are not cut off")
		return
	}
	if exposed != "" {
		// What is loopback inside another pod is the node's own here, and leads out.
		w.target.Running = false
		if err := w.pins.want(false); err != nil {
			w.found.fallShort("%w", err)
			return
		}
		w.found.fallShort("%s: its loopback and its probes are cut off as well", exposed)
	}
	for _, side := range []struct {
		program   string
		attach    ebpf.AttachType
		direction v1alpha1.HookDirection
		key       bpf.DropHook
	}{
		{w.either(bpf.DropProgIsolateCgroupEgress, bpf.DropProgDropCgroupEgress), ebpf.AttachCGroupInetEgress, v1alpha1.HookEgress, bpf.DropHookCgroupEgress},
		{w.either(bpf.DropProgIsolateCgroupIngress, bpf.DropProgDropCgroupIngress), ebpf.AttachCGroupInetIngress, v1alpha1.HookIngress, bpf.DropHookCgroupIngress},
	} {
		w.found.add(w.pins.hook(point{
			kind: v1alpha1.HookCgroupSkb, direction: side.direction, program: side.program, attach: side.attach,
			key: bpf.DropCounterKey{Hook: side.key}, device: w.target.Cgroup,
		}))
	}
}

// attachDevices puts the hooks on both sides of every device that leads out of the pod: on those of the pod's own network at
// once, beside the look at the other networks, which takes the longer the more the pod has.
func (w work) attachDevices(ctx context.Context) error {
	own, ownErr := w.ofOwn()
	var first errgroup.Group
	w.attachTo(&first, own)
	openErr := w.openAll(ctx)
	if w.target.Running {
		w.attachCgroup(w.exposed(openErr))
	}
	devices, shortfalls, err := w.leading(ctx)
	for _, shortfall := range shortfalls {
		w.found.fallShort("%s", shortfall)
	}
	err = errors.Join(ownErr, openErr, err, first.Wait())
	var rest errgroup.Group
	w.attachTo(&rest, slices.DeleteFunc(devices, func(d device) bool { return slices.ContainsFunc(own, d.same) }))
	return errors.Join(err, rest.Wait())
}

// exposed says why loopback of the pod may be the node's, and nothing when it is not. It is not known when the look at the
// pod's namespaces failed.
func (w work) exposed(openErr error) string {
	switch {
	case w.namespaces[w.nodeInode] != nil:
		return "the pod uses the node's network"
	case openErr != nil:
		return "whether the pod uses the node's network is not known"
	}
	return ""
}

// ofOwn returns what leads out of the pod's own networks to the node. What else there is in them the look at all of them tells.
func (w work) ofOwn() (devices []device, err error) {
	var errs []error
	for _, path := range w.target.Networks {
		inode, err := w.namespaces.own(w.nodeRoot, path, w.nodeInode)
		if err != nil {
			w.found.fallShort("the pod's own network is looked for by its processes alone: %w", err)
		}
		if err != nil || inode == w.nodeInode {
			continue
		}
		w.own[inode] = true
		found, _, err := w.search(inode).devices()
		devices, errs = append(devices, found...), append(errs, err)
	}
	return devices, errors.Join(errs...)
}

// openAll opens the network namespaces of every thread of the pod, as far as they are looked at. Of a pod that runs every
// thread is asked whether it is in the node's: what passes inside the pod depends on it.
func (w work) openAll(ctx context.Context) error {
	all, err := w.namespaces.open(w.target.Processes)
	if err != nil {
		return fmt.Errorf("open the pod's network namespaces: %w", err)
	}
	if !all {
		w.found.fallShort("the pod has more than %d network namespaces: what leads out of the others is not cut off", maxNamespaces)
	}
	if !all && w.target.Running && w.namespaces[w.nodeInode] == nil {
		if err := w.namespaces.seek(ctx, w.target.Processes, w.nodeInode); err != nil {
			return fmt.Errorf("look for the node's network namespace: %w", err)
		}
	}
	return nil
}

// attachTo begins to put the hooks on some devices.
func (w work) attachTo(group *errgroup.Group, devices []device) {
	for _, device := range devices {
		for _, at := range w.points(device) {
			// The kernel looks the device up in the namespace of the thread that attaches and that asks.
			namespace := w.node
			if at.inside {
				namespace = device.inside.namespace
			}
			group.Go(func() error {
				return proc.Within(int(namespace.Fd()), unix.CLONE_NEWNET, func() error {
					w.found.add(w.hook(at, device))
					return nil
				})
			})
		}
	}
}

// hook attaches and, towards the pod, sees a packet counted.
func (w work) hook(at point, device device) (v1alpha1.Hook, error) {
	record, err := w.pins.hook(at)
	if err != nil || !w.target.Probe || at.direction != v1alpha1.HookEgress || at.inside {
		return record, err
	}
	record.ProbedAt, err = w.pins.probe(at, device)
	if w.target.Running && errors.Is(err, errNotCounted) {
		// A bridge asks for the address of a running pod first, which passes, and sends the packet elsewhere.
		err = nil
	}
	record.Verified = record.Verified && err == nil
	return record, err
}

// points are the hooks of one device. What comes in on the node's side is what the pod sends. The pod's own side is for what
// the node's is not shown. A filter there could not be taken off again once the pod's processes are gone, so there is none
// where the kernel has no links for devices.
func (w work) points(device device) []point {
	base := point{kind: w.device, device: device.name, ifindex: device.ifindex, netns: device.netns, node: device.ifindex}
	in, out, own := base, base, base
	in.direction, in.attach = v1alpha1.HookIngress, ebpf.AttachTCXIngress
	in.program = w.either(bpf.DropProgIsolateDeviceIngress, bpf.DropProgDropDeviceIngress)
	in.key = bpf.DropCounterKey{Hook: bpf.DropHookDeviceIngress, Ifindex: uint32(device.ifindex)} // #nosec G115 -- the kernel's ifindex is positive and 32 bits wide
	out.direction, out.attach = v1alpha1.HookEgress, ebpf.AttachTCXEgress
	out.program = w.either(bpf.DropProgIsolateDeviceEgress, bpf.DropProgDropDeviceEgress)
	out.key = bpf.DropCounterKey{Hook: bpf.DropHookDeviceEgress, Ifindex: in.key.Ifindex}
	if w.device != v1alpha1.HookTcx {
		return []point{in, out}
	}
	own.direction, own.attach, own.inside = v1alpha1.HookEgress, ebpf.AttachTCXEgress, true
	own.device, own.ifindex = device.inside.name+" in the pod", device.inside.ifindex
	own.program = w.either(bpf.DropProgIsolateInsideEgress, bpf.DropProgDropInsideEgress)
	own.key = bpf.DropCounterKey{Hook: bpf.DropHookInsideEgress, Ifindex: uint32(own.ifindex)} // #nosec G115 -- as above
	return []point{in, out, own}
}
