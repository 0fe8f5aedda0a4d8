package order

import (
	"context"
	"errors"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// ErrNothingToHold is returned by Holder.Hold when neither the container nor a held snapshot of it exists any more.
var ErrNothingToHold = errors.New("neither the container nor a held snapshot exists")

// ErrStillHeld is returned by Holder.Release when the snapshot can be let go only once its container is gone. Nothing is
// lost by that, and the pod is not kept by it.
var ErrStillHeld = errors.New("snapshot stays held until its container is gone")

// ErrSharedNamespace is returned by Containers.Escaped for a pod in the node's own pid namespace.
var ErrSharedNamespace = errors.New("escaped processes cannot be told from the node's: the pod shares its pid namespace")

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
}

// Pod is what of a pod is on this node.
type Pod struct {
	UID string
	// Sandboxes counts the pod's sandboxes.
	Sandboxes  int
	Containers []Container
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

// Containers finds what of a pod is on this node.
type Containers interface {
	Pod(ctx context.Context, uid string) (Pod, error)
	// Escaped counts the pod's processes that left its cgroup. The error is ErrSharedNamespace when it cannot tell.
	Escaped(ctx context.Context, uid string) (int, error)
}

// Dropper cuts pods off.
type Dropper interface {
	Attach(ctx context.Context, pod Pod) (Dropped, error)
	Observe(podUID string) ([]v1alpha1.Hook, error)
	Detach(podUID string) error
	Pods() ([]string, error)
}

// Freezer stops containers.
type Freezer interface {
	Method() v1alpha1.FreezeMethod
	// Freeze says whether the container stands still; one without processes has nothing to stop.
	Freeze(ctx context.Context, container Container) (frozen bool, err error)
	// Thaw says whether the container goes on; one without processes does not.
	Thaw(ctx context.Context, container Container) (thawed bool, err error)
}

// Holder keeps containers' files from being deleted. Both methods are idempotent.
type Holder interface {
	// Hold returns when the snapshot was held, which may be long ago.
	Hold(ctx context.Context, incident, containerID string) (time.Time, error)
	Release(ctx context.Context, incident, containerID string) error
}

// Capturer stores containers' files.
type Capturer interface {
	// Capture returns an error when another call may do better; what is stored is in the result all the same.
	Capture(ctx context.Context, capture Capture, progress func(v1alpha1.Progress)) (Captured, error)
}

// Capture is what to store.
type Capture struct {
	// Incident by name.
	Incident string
	// Containers are the same at every start of one order.
	Containers []v1alpha1.ContainerFreeze
	Action     *v1alpha1.FilesystemSnapshotAction
	// Previous is what an earlier start stored.
	Previous Captured
	// Stored persists everything so far, after each artifact.
	Stored func(Captured) error
}

// Captured is what was stored.
type Captured struct {
	Artifacts  []v1alpha1.Artifact
	Gaps       []v1alpha1.GapCount
	GapsObject *v1alpha1.StoredObject
}

// Node is what the orders are carried out with.
type Node struct {
	// Name of the node: orders for another are none of ours.
	Name       string
	Containers Containers
	Drop       Dropper
	Freeze     Freezer
	Hold       Holder
	Capture    Capturer
	Reporter   Reporter
	Clock      clock.PassiveClock
	// Client reads from a cache of this node's orders and of open incidents, and writes status.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
}

// result is how a step ended.
type result struct {
	reason  string
	message string
}

func succeeded(message string) result { return result{v1alpha1.ReasonSucceeded, message} }

func partial(message string) result { return result{v1alpha1.ReasonPartial, message} }

func failed(message string) result { return result{v1alpha1.ReasonFailed, message} }
