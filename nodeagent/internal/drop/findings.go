package drop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/bpf"
)

// maxHooks is what status.containment.hooks can name.
const maxHooks = 64

// findings of one containment, gathered from several goroutines.
type findings struct {
	mutex      sync.Mutex
	hooks      []v1alpha1.Hook
	shortfalls []string
}

func (f *findings) add(hook v1alpha1.Hook, err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if err != nil {
		f.shortfalls = append(f.shortfalls, err.Error())
	}
	if hook.ID != "" {
		f.hooks = append(f.hooks, hook)
	}
}

func (f *findings) fallShort(format string, args ...any) {
	f.add(v1alpha1.Hook{}, fmt.Errorf(format, args...))
}

// result is Full only when every hook that was wanted is in place and verified.
func (f *findings) result(now time.Time) Result {
	sort.Slice(f.hooks, func(i, j int) bool { return f.hooks[i].ID < f.hooks[j].ID })
	if more := len(f.hooks) - maxHooks; more > 0 {
		f.hooks = f.hooks[:maxHooks]
		f.shortfalls = append(f.shortfalls, fmt.Sprintf("%d more hooks are in place than the record can name", more))
	}
	sort.Strings(f.shortfalls)
	result := Result{Level: v1alpha1.LevelPolicyOnly, Hooks: f.hooks, Shortfalls: f.shortfalls}
	verified := 0
	for _, hook := range f.hooks {
		if hook.Verified {
			verified++
		}
	}
	switch {
	case verified == 0:
		return result
	case verified == len(f.hooks) && len(f.shortfalls) == 0:
		result.Level = v1alpha1.LevelFull
	default:
		result.Level = v1alpha1.LevelPartial
	}
	result.ContainedAt = now
	return result
}

// attachCgroup puts both hooks on the pod's cgroup.
func (f *findings) attachCgroup(pins *pins, cgroup string) {
	if cgroup == "" {
		f.fallShort("the pod's cgroup is not known: its sockets are not cut off")
		return
	}
	for _, side := range []struct {
		program   *ebpf.Program
		attach    ebpf.AttachType
		direction v1alpha1.HookDirection
		key       bpf.DropHook
	}{
		{pins.objects.DropCgroupEgress, ebpf.AttachCGroupInetEgress, v1alpha1.HookEgress, bpf.DropHookCgroupEgress},
		{pins.objects.DropCgroupIngress, ebpf.AttachCGroupInetIngress, v1alpha1.HookIngress, bpf.DropHookCgroupIngress},
	} {
		f.add(pins.hook(point{
			kind: v1alpha1.HookCgroupSkb, direction: side.direction, program: side.program, attach: side.attach,
			key: bpf.DropCounterKey{Hook: side.key}, device: cgroup,
		}))
	}
}

// attachDevices puts both hooks on the node's side of every device that leads out of the pod.
func (f *findings) attachDevices(ctx context.Context, pins *pins, processes []int, nodeNetns string) error {
	node, err := os.Open(nodeNetns) // #nosec G304 -- the configured namespace file of process 1
	if err != nil {
		return fmt.Errorf("open the node's network namespace: %w", err)
	}
	err = f.attachLeading(ctx, pins, processes, node)
	return errors.Join(err, node.Close())
}

func (f *findings) attachLeading(ctx context.Context, pins *pins, processes []int, node *os.File) error {
	devices, shortfalls, err := leading(processes, node)
	if err != nil {
		return err
	}
	for _, shortfall := range shortfalls {
		f.fallShort("%s", shortfall)
	}
	group, _ := errgroup.WithContext(ctx)
	for _, device := range devices {
		for _, p := range pins.devicePoints(device) {
			group.Go(func() error {
				// The kernel looks the device up in the namespace of the thread that attaches and that asks.
				return inside(int(node.Fd()), unix.CLONE_NEWNET, func() error {
					f.add(pins.hook(p))
					return nil
				})
			})
		}
	}
	return group.Wait()
}

// devicePoints are the two hooks of one device. What comes in on the node's side is what the pod sends.
func (p *pins) devicePoints(device device) []point {
	base := point{kind: v1alpha1.HookTcx, device: device.name, ifindex: device.ifindex, netns: device.netns}
	in, out := base, base
	in.direction, in.program, in.attach = v1alpha1.HookIngress, p.objects.DropTcxIngress, ebpf.AttachTCXIngress
	in.key = bpf.DropCounterKey{Hook: bpf.DropHookTcxIngress, Ifindex: uint32(device.ifindex)} // #nosec G115 -- the kernel's ifindex is positive and 32 bits wide
	out.direction, out.program, out.attach = v1alpha1.HookEgress, p.objects.DropTcxEgress, ebpf.AttachTCXEgress
	out.key = bpf.DropCounterKey{Hook: bpf.DropHookTcxEgress, Ifindex: in.key.Ifindex}
	return []point{in, out}
}
