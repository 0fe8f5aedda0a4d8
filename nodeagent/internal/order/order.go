package order

import (
	"context"
	"errors"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// ErrNothingToHold is returned by Holder.Hold when neither the container nor a held snapshot of it exists any more.
var ErrNothingToHold = errors.New("neither the container nor a held snapshot exists")

// Trouble is the error of a capture that a person has to do something about. The order is repeated all the same.
type Trouble struct {
	Reason string
	Cause  error
}

func (t Trouble) Error() string { return t.Cause.Error() }

// Unwrap returns the cause.
func (t Trouble) Unwrap() error { return t.Cause }

// ErrStillHeld is returned by Holder.Release when the snapshot can be let go only once its container is gone. Nothing is
// lost by that, and the pod is not kept by it.
var ErrStillHeld = errors.New("snapshot stays held until its container is gone")

// ErrSharedNamespace is returned by Containers.Strays for a pod in the node's own pid namespace.
var ErrSharedNamespace = errors.New("escaped processes cannot be told from the node's: the pod shares its pid namespace")

// ErrSandboxRuns is returned by Containers.Strays for a pod of which processes are in the pid namespace of its sandbox, whose own
// process is not frozen.
var ErrSandboxRuns = errors.New("the sandbox's process runs on, and the pod's processes may reach it")

// Container of a pod, running or not.
type Container struct {
	// ID in the runtime.
	ID string
	// Name in the pod. A restarted container's predecessor has the same one.
	Name string
	// Process is the container's first process, 0 when it does not run.
	Process int
	// Cgroup is the container's cgroup2 folder, empty when it is not known.
	Cgroup string
	// Freezer is the container's folder in the v1 freezer's tree, empty when it is not known.
	Freezer string
}

// Pod is what of a pod is on this node.
type Pod struct {
	UID string
	// Sandboxes counts the pod's sandboxes.
	Sandboxes  int
	Containers []Container
	// Networks are where on the node the pod's network namespaces are mounted, as the runtime made them.
	Networks []string
	// Cgroup is the pod's cgroup2 folder, empty when it is not known.
	Cgroup string
	// Processes of the pod.
	Processes []int
}

// Dropped is what cutting a pod off reached.
type Dropped struct {
	Level v1alpha1.ContainmentLevel
	Hooks []v1alpha1.Hook
	// ContainedAt is when the last hook had been verified; zero when none was.
	ContainedAt time.Time
	// Shortfalls say why the level is not Full.
	Shortfalls []string
}

// Cut says how a pod is cut off.
type Cut struct {
	// Running is whether its processes go on: then loopback inside the pod passes, and the kubelet's probes.
	Running bool
	// Probe is whether to send a packet to the pod and to see it counted.
	Probe bool
}

// Flows are the flows of which packets were dropped.
type Flows struct {
	Counts v1alpha1.FlowCounts
	List   []evidence.Flow
}

// Stray is a process of a pod that the freeze of its containers does not reach.
type Stray struct {
	Process int
	// Started is in ticks since the boot: with the process it names this one and no later one.
	Started uint64
}

// Containers finds what of a pod is on this node.
type Containers interface {
	Pod(ctx context.Context, uid string) (Pod, error)
	// Strays are the pod's processes outside the reach of its freeze, and how many stand still already because they were
	// stopped before. What was found is returned beside an error, which is ErrSharedNamespace when there may be more, and
	// ErrSandboxRuns when the sandbox's own may be one.
	Strays(ctx context.Context, uid string) (running []Stray, stopped int, err error)
}

// Dropper cuts pods off.
type Dropper interface {
	Attach(ctx context.Context, pod Pod, cut Cut) (Dropped, error)
	Observe(podUID string) ([]v1alpha1.Hook, error)
	// CountedSince is when the hooks of a pod that is cut off began to count.
	CountedSince(podUID string) (time.Time, error)
	// Flows of a pod that is cut off.
	Flows(podUID string) (Flows, error)
	// Sockets in the pod's network, nil for a pod in the node's.
	Sockets(pod Pod) (*v1alpha1.SocketSample, error)
	Detach(podUID string) error
	Pods() ([]string, error)
}

// Freezer stops containers.
type Freezer interface {
	Method() v1alpha1.FreezeMethod
	// Freeze says whether the container stands still; one without processes has nothing to stop.
	Freeze(ctx context.Context, container Container) (frozen bool, err error)
	// Still says whether nothing of the container runs, by its freezer alone.
	Still(container Container) bool
	// Thaw says whether the whole container goes on; one without processes, or with a part that it froze itself, does not.
	Thaw(ctx context.Context, container Container) (thawed bool, err error)
	// Stop stops processes that left their containers' reach, and says how many stand still. The error names the others.
	Stop(ctx context.Context, pod Pod, strays []Stray) (stopped int, err error)
	// StartStrays sets all of them going again.
	StartStrays(ctx context.Context, pod Pod) error
}

// Holder keeps containers' files from being deleted. Its methods are idempotent.
type Holder interface {
	// Held are the ids of the containers that an incident holds.
	Held(ctx context.Context, incident string) ([]string, error)
	// Hold returns when the snapshot was held, which may be long ago.
	Hold(ctx context.Context, incident, containerID string) (time.Time, error)
	Release(ctx context.Context, incident, containerID string) error
}

// MemoryKeeper keeps a pod's file systems in memory beyond the pod's end. Its methods are idempotent.
type MemoryKeeper interface {
	// Keep returns how many are kept. The error names those that could not be.
	Keep(ctx context.Context, ref v1alpha1.PodRef, processes []int) (kept int, err error)
	// Release lets go of what is kept of a pod.
	Release(ctx context.Context, podUID string) error
	// Collect lets go of what is kept of every pod that is not wanted.
	Collect(ctx context.Context, wanted func(podUID string) bool) error
}

// Capturer stores what a pod consists of.
type Capturer interface {
	// Capture returns an error when another call may do better; what is stored is in the result all the same.
	Capture(ctx context.Context, capture Capture, progress func(v1alpha1.Progress)) (Captured, error)
	// StoreFlows stores a list of flows as one object, under a name within the incident.
	StoreFlows(ctx context.Context, to FlowsTarget, flows []evidence.Flow) (v1alpha1.StoredObject, error)
}

// FlowsTarget is where a list of flows is stored.
type FlowsTarget struct {
	Destination v1alpha1.Destination
	Name        string
}

// Capture is what to store.
type Capture struct {
	// Incident by name.
	Incident string
	Pod      v1alpha1.PodRef
	// Containers are the same at every start of one order.
	Containers []v1alpha1.ContainerFreeze
	// Memory says of which processes the memory is wanted.
	Memory v1alpha1.MemoryCapture
	// Flows dropped so far, which go first.
	Flows  func() ([]evidence.Flow, error)
	Action *v1alpha1.FilesystemSnapshotAction
	// Previous is what an earlier start stored.
	Previous Captured
	// Again says that there was an earlier start, which may have stored what is not in Previous.
	Again bool
	// Stored persists everything so far, after each artifact and each segment. It may be called while progress is.
	Stored func(Captured) error
	// Begun writes down what is begun, if that takes but a moment. After one that did not succeed it waits for none until another
	// write did.
	Begun func(Captured)
}

// Captured is what was stored.
type Captured struct {
	Artifacts  []v1alpha1.Artifact
	Gaps       []v1alpha1.GapCount
	GapsObject *v1alpha1.StoredObject
	Storing    *v1alpha1.Storing
	// Begun are artifacts that were begun, or come next, and are not stored.
	Begun []string
}

// Node is what the orders are carried out with.
type Node struct {
	// Name of the node: orders for another are none of ours.
	Name       string
	Containers Containers
	Drop       Dropper
	Freeze     Freezer
	Hold       Holder
	Memory     MemoryKeeper
	Capture    Capturer
	Reporter   Reporter
	Clock      clock.PassiveClock
	// APIServerNow returns what the API server's clock shows by now, as far as its last answer tells, or zero before the first
	// one.
	APIServerNow func() time.Time
	// Client reads from a cache of this node's orders and of open incidents, and writes status.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// Known are the orders and incidents that this process knows of.
	Known *Known
}

// now is the time by which orders and incidents are judged: the API server's, in which their deadlines are. A privileged
// suspect can set the node's clock, which tells it as long as the API server was not reached since this process began.
func (n Node) now() time.Time {
	if n.APIServerNow != nil {
		if now := n.APIServerNow(); !now.IsZero() {
			return now
		}
	}
	return n.Clock.Now()
}

// result is how a step ended.
type result struct {
	reason  string
	message string
}

func succeeded(message string) result { return result{v1alpha1.ReasonSucceeded, message} }

func partial(message string) result { return result{v1alpha1.ReasonPartial, message} }

func failed(message string) result { return result{v1alpha1.ReasonFailed, message} }
