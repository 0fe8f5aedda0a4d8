package freeze

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
)

// ErrNoCgroup is returned by Freeze when the method is CgroupV2 and the container's cgroup is not known, and by Stop when
// the pod's is not.
var ErrNoCgroup = errors.New("cgroup is not known")

// Bound of one freeze or thaw. 50 processes freeze within 6 ms and a runtime pauses within 53 ms; a process in an
// uninterruptible wait takes as long as that wait.
const bound = 5 * time.Second

// Container is what is frozen.
type Container struct {
	// ID in the runtime.
	ID string
	// Cgroup is the container's own cgroup2 folder. Only CgroupV2 needs it.
	Cgroup string
	// Freezer is the container's own folder in the v1 freezer's tree, empty when it is not known. With RuntimePause it
	// confirms what the runtime says.
	Freezer string
}

// State of a container as confirmed after Freeze or Thaw.
type State string

// States.
const (
	Frozen State = "Frozen"
	Thawed State = "Thawed"
	// Gone is a container without processes: there is nothing to stop.
	Gone State = "Gone"
)

// Tasks pauses and resumes containers through the runtime.
type Tasks interface {
	// Pause returns the state reached. A paused container stays paused.
	Pause(ctx context.Context, containerID string) (State, error)
	// Resume returns the state reached. A running container stays running.
	Resume(ctx context.Context, containerID string) (State, error)
	// State of the container now.
	State(ctx context.Context, containerID string) (State, error)
}

// Freezer freezes and thaws with one method, the one that the node's runtime understands: a container is never frozen
// one way and thawed another.
type Freezer struct {
	method v1alpha1.FreezeMethod
	tasks  Tasks
}

// New returns a Freezer. Tasks is used with the method RuntimePause only.
func New(method v1alpha1.FreezeMethod, tasks Tasks) *Freezer {
	return &Freezer{method: method, tasks: tasks}
}

// Method that this node's containers are frozen with.
func (f *Freezer) Method() v1alpha1.FreezeMethod { return f.method }

// Freeze stops every process of the container and returns once that is confirmed. A frozen container stays frozen.
func (f *Freezer) Freeze(ctx context.Context, container Container) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	state, err := f.freeze(ctx, container)
	if err != nil {
		return "", fmt.Errorf("freeze container %s: %w", container.ID, err)
	}
	return state, nil
}

func (f *Freezer) freeze(ctx context.Context, container Container) (State, error) {
	if f.method == v1alpha1.FreezeRuntimePause {
		state, err := f.pause(ctx, container)
		if !errors.Is(err, errThawed) {
			return state, err
		}
		// The runtime does not pause what it takes for paused.
		if _, err := f.tasks.Resume(ctx, container.ID); err != nil {
			return "", err
		}
		return f.pause(ctx, container)
	}
	return setFrozen(ctx, container.Cgroup, true)
}

func (f *Freezer) pause(ctx context.Context, container Container) (State, error) {
	state, err := f.tasks.Pause(ctx, container.ID)
	if err != nil || state != Frozen || container.Freezer == "" {
		return state, err
	}
	return confirmPaused(ctx, container.Freezer)
}

// Thaw sets every process of the container going again and returns once that is confirmed. With the method CgroupV2 a
// container whose cgroup is not known cannot have been frozen: there is nothing to thaw, and the state is Gone.
func (f *Freezer) Thaw(ctx context.Context, container Container) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	state, err := f.thaw(ctx, container)
	if err != nil {
		return "", fmt.Errorf("thaw container %s: %w", container.ID, err)
	}
	return state, nil
}

func (f *Freezer) thaw(ctx context.Context, container Container) (State, error) {
	if f.method == v1alpha1.FreezeRuntimePause {
		return f.tasks.Resume(ctx, container.ID)
	}
	if container.Cgroup == "" {
		return Gone, nil
	}
	return setFrozen(ctx, container.Cgroup, false)
}

// State returns whether the container is frozen now, for whatever reason.
func (f *Freezer) State(ctx context.Context, container Container) (State, error) {
	if f.method == v1alpha1.FreezeRuntimePause {
		return f.tasks.State(ctx, container.ID)
	}
	state, err := readState(container.Cgroup)
	if err != nil {
		return "", fmt.Errorf("read the state of container %s: %w", container.ID, err)
	}
	return state, nil
}

// Detect returns the method for a node from the file system mounted at its cgroup root, /sys/fs/cgroup.
//
// It asks what runc asks. On a pure cgroup v2 node runc sees a leaf's cgroup.freeze, reports the container as paused and
// refuses to exec into it. Elsewhere runc looks at the v1 freezer: a container frozen in the v2 tree looks alive to it and
// every exec hangs, so there the runtime's own pause is used.
func Detect(cgroupRoot string) (v1alpha1.FreezeMethod, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &stat); err != nil {
		return "", fmt.Errorf("look at the file system of %s: %w", cgroupRoot, err)
	}
	return methodFor(stat.Type), nil
}

// methodFor chooses by the magic number of the file system at the cgroup root.
func methodFor(magic int64) v1alpha1.FreezeMethod {
	if magic == unix.CGROUP2_SUPER_MAGIC {
		return v1alpha1.FreezeCgroupV2
	}
	return v1alpha1.FreezeRuntimePause
}
