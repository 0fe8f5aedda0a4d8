package freeze

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
)

// ErrNoCgroup is returned by Freeze when the container's folder in the tree that the method acts on is not known, and by
// Stop when the pod's is not.
var ErrNoCgroup = errors.New("cgroup is not known")

// Bound of one freeze or thaw. 50 processes freeze within 6 ms; a process in an uninterruptible wait takes as long as that
// wait, and is frozen by the request that stands even after the bound.
const bound = 5 * time.Second

// Container is what is frozen.
type Container struct {
	// ID in the runtime.
	ID string
	// Cgroup is the container's own cgroup2 folder, which CgroupV2 acts on.
	Cgroup string
	// Freezer is the container's own folder in the v1 freezer's tree, which CgroupV1 acts on.
	Freezer string
}

// State of a container as confirmed after Freeze or Thaw.
type State string

// States.
const (
	Frozen State = "Frozen"
	Thawed State = "Thawed"
	// Freezing is a container of which some processes are frozen, or may be.
	Freezing State = "Freezing"
	// Gone is a container without processes: there is nothing to stop.
	Gone State = "Gone"
	// FrozenBelow is a container that was set going, and in which processes stay frozen in a folder below its own, or may:
	// somebody inside it froze that by itself. The freezer writes to the container's own folder alone.
	FrozenBelow State = "FrozenBelow"
	// Unknown is a container whose folder is not known: whether it goes on cannot be said.
	Unknown State = "Unknown"
)

// Freezer freezes and thaws with one method, the one that the node's runtime understands: a container is never frozen
// one way and thawed another.
type Freezer struct {
	method v1alpha1.FreezeMethod
	mu     sync.Mutex
	// through counts by container how often a freeze was undone for an exec.
	through map[string]int
}

// New returns a Freezer.
func New(method v1alpha1.FreezeMethod) *Freezer {
	return &Freezer{method: method, through: map[string]int{}}
}

// Method that this node's containers are frozen with.
func (f *Freezer) Method() v1alpha1.FreezeMethod { return f.method }

// Freeze stops every process of the container and returns once that is confirmed. A frozen container stays frozen.
func (f *Freezer) Freeze(ctx context.Context, container Container) (State, error) {
	state, err := f.reach(ctx, container, Frozen)
	if err != nil {
		return "", fmt.Errorf("freeze container %s: %w", container.ID, err)
	}
	return state, nil
}

// Thaw undoes Freeze and returns once that is confirmed: Thawed says that no process of the container is frozen. Folders
// that the container froze by itself stay so, and the state is FrozenBelow. A container whose folder is not known, which
// Freeze may have known, is Unknown and left as it is.
func (f *Freezer) Thaw(ctx context.Context, container Container) (State, error) {
	state, err := f.reach(ctx, container, Thawed)
	switch {
	case errors.Is(err, ErrNoCgroup):
		return Unknown, nil
	case err != nil:
		return "", fmt.Errorf("thaw container %s: %w", container.ID, err)
	case state == Thawed && f.frozenBelow(container):
		return FrozenBelow, nil
	}
	return state, nil
}

// frozenBelow says whether processes are in a folder below the container's own that is frozen by itself.
func (f *Freezer) frozenBelow(container Container) bool {
	if f.method == v1alpha1.FreezeCgroupV1 {
		return anyBelow(container.Freezer, func(folder string) (bool, error) {
			asked, err := says(folder, "freezer.self_freezing", "1")
			return asked && populated(folder), err
		})
	}
	return anyBelow(container.Cgroup, func(folder string) (bool, error) {
		asked, err := says(folder, "cgroup.freeze", "1")
		if !asked || err != nil {
			return false, err
		}
		state, err := readState(folder)
		return state != Gone, err
	})
}

func (f *Freezer) reach(ctx context.Context, container Container, want State) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if f.method == v1alpha1.FreezeCgroupV1 {
		state, err := setFreezer(ctx, container.Freezer, want, func() bool { return f.mayThrough(container.ID) })
		if state == Thawed || state == Gone {
			f.forget(container.ID)
		}
		return state, err
	}
	return setFrozen(ctx, container.Cgroup, want)
}

// mayThrough says whether a freeze of the container may be undone for an exec once more, and counts it.
func (f *Freezer) mayThrough(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.through[id] >= maxThrough {
		return false
	}
	f.through[id]++
	return true
}

func (f *Freezer) forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.through, id)
}

// State returns whether the container is frozen now, for whatever reason.
func (f *Freezer) State(container Container) (state State, err error) {
	if f.method == v1alpha1.FreezeCgroupV1 {
		state, err = readFreezer(container.Freezer)
	} else {
		state, err = readState(container.Cgroup)
	}
	if err != nil {
		return "", fmt.Errorf("read the state of container %s: %w", container.ID, err)
	}
	return state, nil
}

// Detect returns the method for a node from the file system mounted at its cgroup root, /sys/fs/cgroup.
//
// It asks what runc asks, which reports a container as paused, and refuses to exec into it, by the freezer that it looks at
// itself: a leaf's cgroup.freeze on a pure cgroup v2 node, the v1 freezer elsewhere. Frozen in the other tree a container
// looks alive to it, and every exec hangs.
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
	return v1alpha1.FreezeCgroupV1
}
