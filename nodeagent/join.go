package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/time/rate"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/capture"
	"ugallu.io/forensics/nodeagent/internal/containers"
	"ugallu.io/forensics/nodeagent/internal/drop"
	"ugallu.io/forensics/nodeagent/internal/freeze"
	"ugallu.io/forensics/nodeagent/internal/hold"
	"ugallu.io/forensics/nodeagent/internal/order"
	"ugallu.io/forensics/nodeagent/internal/podfiles"
)

// stateWithin bounds the question whether a container is frozen: the runtime answers in milliseconds.
const stateWithin = 5 * time.Second

// storePatience is how long one request waits for a store that is away, before the artifact starts anew.
const storePatience = 2 * time.Minute

// lister is containers.Lister as the orders need it.
type lister struct {
	*containers.Lister
	freezer *freeze.Freezer
}

// Pod implements order.Containers.
func (l lister) Pod(ctx context.Context, uid string) (order.Pod, error) {
	found, err := l.Lister.Pod(ctx, uid)
	if err != nil {
		return order.Pod{}, err
	}
	pod := order.Pod{
		UID: found.UID, Sandboxes: len(found.Sandboxes), Cgroup: found.Cgroup, Processes: found.Processes,
		Networks: found.Networks(), Containers: make([]order.Container, len(found.Containers)),
	}
	for i, c := range found.Containers {
		pod.Containers[i] = order.Container{ID: c.ID, Name: c.Name, Process: c.Process, Cgroup: c.Cgroup, Freezer: c.Freezer}
	}
	return pod, nil
}

// Strays implements order.Containers.
func (l lister) Strays(ctx context.Context, uid string) (running []order.Stray, stopped int, err error) {
	found, err := l.Lister.Pod(ctx, uid)
	if err != nil {
		return nil, 0, err
	}
	list, stopped, err := strays(l.freezer, found)
	if errors.Is(err, containers.ErrSharedNamespace) {
		err = fmt.Errorf("%w: %w", order.ErrSharedNamespace, err)
	}
	if errors.Is(err, containers.ErrSandboxJoined) {
		err = fmt.Errorf("%w: %w", order.ErrSandboxRuns, err)
	}
	running = make([]order.Stray, len(list))
	for i, stray := range list {
		running[i] = order.Stray{Process: stray.PID, Started: stray.StartTime}
	}
	return running, stopped, err
}

// strays are the processes of a pod outside the reach of its freeze, and how many were stopped before.
func strays(freezer *freeze.Freezer, pod containers.Pod) (running []containers.Stray, stopped int, err error) {
	folder, stopped, err := freezer.Stopped(pod.Cgroup)
	if err != nil {
		return nil, 0, err
	}
	running, err = pod.Strays(containers.Reach{V1: freezer.Method() == v1alpha1.FreezeCgroupV1, Stopped: folder})
	return running, stopped, err
}

// dropper is drop.Dropper as the orders need it.
type dropper struct {
	*drop.Dropper
	kubelet *containers.Kubelet
	lister  *containers.Lister
}

// Attach implements order.Dropper.
func (d dropper) Attach(ctx context.Context, pod order.Pod, cut order.Cut) (order.Dropped, error) {
	target := drop.Target{
		PodUID: pod.UID, Cgroup: pod.Cgroup, Networks: pod.Networks, Processes: pod.Processes, Running: cut.Running, Probe: cut.Probe,
	}
	target.Others = func() (map[uint64]bool, error) {
		ctx, cancel := context.WithTimeout(ctx, stateWithin)
		defer cancel()
		return d.lister.OthersNetworks(ctx, pod.UID)
	}
	var unknown error
	if cut.Running {
		target.KubeletCgroup, unknown = d.kubelet.Cgroup()
	}
	result, err := d.Dropper.Attach(ctx, target)
	if cut.Running && target.KubeletCgroup == 0 {
		result.Shortfalls = append(result.Shortfalls, fmt.Sprintf("the kubelet is not known and its probes are cut off (%v)", unknown))
	}
	return order.Dropped(result), err
}

// Flows implements order.Dropper.
func (d dropper) Flows(podUID string) (order.Flows, error) {
	found, err := d.Dropper.Flows(podUID)
	return order.Flows{
		Counts: v1alpha1.FlowCounts{Listed: int64(len(found.List)), Evicted: found.Evicted, UncountedPackets: found.Uncounted},
		List:   found.List,
	}, err
}

// Sockets implements order.Dropper.
func (d dropper) Sockets(pod order.Pod) (*v1alpha1.SocketSample, error) {
	return d.Dropper.Sockets(pod.Networks, pod.Processes)
}

// freezer is freeze.Freezer as the orders need it.
type freezer struct{ *freeze.Freezer }

func frozenContainer(container order.Container) freeze.Container {
	return freeze.Container{ID: container.ID, Cgroup: container.Cgroup, Freezer: container.Freezer}
}

// Freeze implements order.Freezer.
func (f freezer) Freeze(ctx context.Context, container order.Container) (bool, error) {
	state, err := f.Freezer.Freeze(ctx, frozenContainer(container))
	return state == freeze.Frozen, err
}

// Still implements order.Freezer.
func (f freezer) Still(container order.Container) bool {
	state, err := f.State(frozenContainer(container))
	return err == nil && (state == freeze.Frozen || state == freeze.Gone)
}

// Thaw implements order.Freezer.
func (f freezer) Thaw(ctx context.Context, container order.Container) (bool, error) {
	state, err := f.Freezer.Thaw(ctx, frozenContainer(container))
	return state == freeze.Thawed, err
}

// Stop implements order.Freezer.
func (f freezer) Stop(ctx context.Context, pod order.Pod, strays []order.Stray) (int, error) {
	list := make([]freeze.Stray, len(strays))
	for i, stray := range strays {
		list[i] = freeze.Stray{PID: stray.Process, StartTime: stray.Started}
	}
	return f.Freezer.Stop(ctx, pod.Cgroup, list)
}

// StartStrays implements order.Freezer. Those of a pod of which nothing else runs are found by the name of its cgroup.
func (f freezer) StartStrays(ctx context.Context, pod order.Pod) error {
	if pod.Cgroup != "" {
		return f.Freezer.StartStrays(ctx, pod.Cgroup)
	}
	folders, err := containers.Folders(pod.UID)
	errs := []error{err}
	for _, folder := range folders {
		errs = append(errs, f.Freezer.StartStrays(ctx, folder))
	}
	return errors.Join(errs...)
}

// holder is hold.Holder as the orders need it.
type holder struct{ *hold.Holder }

func newHolder(client *containerd.Client) holder { return holder{hold.New(client)} }

// Hold implements order.Holder.
func (h holder) Hold(ctx context.Context, incident, containerID string) (time.Time, error) {
	held, err := h.Holder.Hold(ctx, incident, containerID)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, fmt.Errorf("%w: %w", order.ErrNothingToHold, err)
	}
	return held.HeldAt, err
}

// Release implements order.Holder.
func (h holder) Release(ctx context.Context, incident, containerID string) error {
	err := h.Holder.Release(ctx, incident, containerID)
	if errors.Is(err, hold.ErrLeaseKept) {
		return fmt.Errorf("%w: %w", order.ErrStillHeld, err)
	}
	return err
}

// captureParts are what a capturer is made of.
type captureParts struct {
	holder      holder
	lister      *containers.Lister
	freezer     *freeze.Freezer
	live        client.Reader
	credentials string
	keeper      *podfiles.Keeper
}

// capturer is capture.Capturer as the orders need it.
type capturer struct {
	inner *capture.Capturer
	// running captures.
	running *atomic.Int32
}

func newCapturer(parts captureParts) capturer {
	opener := destination.NewOpener(parts.live, parts.credentials)
	limits := limiters{made: map[int64]*rate.Limiter{}}
	return capturer{running: new(atomic.Int32), inner: &capture.Capturer{
		Containers: heldContainers{parts.holder.Holder},
		Look:       parts.look,
		Open: func(ctx context.Context, to v1alpha1.Destination, maxBandwidth int64) (worm.Putter, error) {
			return opener.Open(ctx, to.Bucket, destination.WithKey(to), func(config *worm.Config) {
				config.Patience, config.Bandwidth = storePatience, limits.of(maxBandwidth)
			})
		},
		Frozen: parts.frozen,
	}}
}

// limiters has one limiter for each bandwidth, which all captures with it share.
type limiters struct {
	mutex sync.Mutex
	made  map[int64]*rate.Limiter
}

// of returns nil for no limit. A burst of a second, and of 1 MiB at least, is what one write may take.
func (l *limiters) of(bandwidth int64) *rate.Limiter {
	if bandwidth == 0 {
		return nil
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.made[bandwidth] == nil {
		burst := int(min(max(bandwidth, 1<<20), math.MaxInt32))
		l.made[bandwidth] = rate.NewLimiter(rate.Limit(bandwidth), burst)
	}
	return l.made[bandwidth]
}

// heldContainers is hold.Holder as a capture needs it.
type heldContainers struct{ *hold.Holder }

// View implements capture.Containers.
func (h heldContainers) View(ctx context.Context, incident, containerID string) (capture.View, error) {
	return asView(h.Holder.View(ctx, incident, containerID))
}

// Lower implements capture.Containers.
func (h heldContainers) Lower(ctx context.Context, incident, containerID string) (capture.View, error) {
	return asView(h.LowerView(ctx, incident, containerID))
}

// asView does not wrap a nil.
func asView(view *hold.View, err error) (capture.View, error) {
	if err != nil {
		return nil, err
	}
	return view, nil
}

// Upper implements capture.Containers.
func (h heldContainers) Upper(ctx context.Context, incident, containerID string) (string, error) {
	upper, err := h.Holder.Upper(ctx, incident, containerID)
	if errors.Is(err, hold.ErrNoUpper) {
		return "", fmt.Errorf("%w: %w", capture.ErrNoUpper, err)
	}
	return upper, err
}

// frozen says whether nothing of the container runs. What cannot be found out is not claimed.
func (p captureParts) frozen(containerID string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), stateWithin)
	defer cancel()
	container, err := p.lister.Container(ctx, containerID)
	if err != nil {
		return false
	}
	return container.Process == 0 || frozen(p.freezer, container)
}

// frozen says whether nothing runs of a container that has a process: one without any in its folder runs elsewhere.
func frozen(freezer *freeze.Freezer, container containers.Container) bool {
	state, err := freezer.State(freeze.Container{ID: container.ID, Cgroup: container.Cgroup, Freezer: container.Freezer})
	return err == nil && state == freeze.Frozen
}

// Capture implements order.Capturer.
func (c capturer) Capture(ctx context.Context, wanted order.Capture, progress func(v1alpha1.Progress)) (order.Captured, error) {
	c.running.Add(1)
	defer func() {
		// What a capture takes, an agent without one gives back.
		if c.running.Add(-1) == 0 {
			// What a pool holds outlives one collection.
			runtime.GC()
			debug.FreeOSMemory()
		}
	}()
	list := make([]capture.Container, len(wanted.Containers))
	for i, container := range wanted.Containers {
		list[i] = capture.Container{
			ID: container.ContainerID, Name: container.Name, Ran: container.FrozenAt != nil,
			Dies: container.ProbeKillExpectedAt != nil,
		}
	}
	result, err := c.inner.Capture(ctx, capture.Order{
		Incident: wanted.Incident, Pod: wanted.Pod, Containers: list, Flows: wanted.Flows, Memory: wanted.Memory,
		Action: wanted.Action, Previous: capture.Result(wanted.Previous), Again: wanted.Again,
		Stored: func(stored capture.Result) error { return wanted.Stored(order.Captured(stored)) },
		Begun:  func(begun capture.Result) { wanted.Begun(order.Captured(begun)) },
	}, progress)
	return order.Captured(result), troubled(err)
}

// troubled says what a person has to do, where waiting does not help.
func troubled(err error) error {
	if !worm.NeedsOperator(err) {
		return err
	}
	reason, message := destination.Trouble(err)
	return order.Trouble{Reason: reason, Cause: fmt.Errorf("%s%w", strings.TrimSuffix(message, err.Error()), err)}
}

// StoreFlows implements order.Capturer.
func (c capturer) StoreFlows(ctx context.Context, to order.FlowsTarget, flows []evidence.Flow) (v1alpha1.StoredObject, error) {
	return c.inner.StoreFlows(ctx, to.Destination, to.Name, flows)
}
