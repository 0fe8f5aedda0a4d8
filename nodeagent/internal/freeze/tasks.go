package freeze

import (
	"context"
	"fmt"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
)

// Runtime pauses and resumes containers through containerd.
type Runtime struct{ client *containerd.Client }

// NewRuntime returns a Runtime on a client whose default namespace is the kubelet's. The caller closes the client.
func NewRuntime(client *containerd.Client) *Runtime { return &Runtime{client: client} }

var _ Tasks = (*Runtime)(nil)

// Pause stops the container's processes.
func (r *Runtime) Pause(ctx context.Context, containerID string) (State, error) {
	return r.reach(ctx, containerID, containerd.Paused, containerd.Task.Pause)
}

// Resume sets the container's processes going again.
func (r *Runtime) Resume(ctx context.Context, containerID string) (State, error) {
	return r.reach(ctx, containerID, containerd.Running, containerd.Task.Resume)
}

// State asks the runtime.
func (r *Runtime) State(ctx context.Context, containerID string) (State, error) {
	task, status, err := r.task(ctx, containerID)
	if err != nil {
		return "", fmt.Errorf("read the state of container %s: %w", containerID, err)
	}
	if task == nil {
		return Gone, nil
	}
	return stateOf(status), nil
}

// reach asks for the status before it acts, since the runtime refuses to pause what is paused, and after it, since the
// answer to the request is not an observation. A task that ends meanwhile is Gone, whatever the request answered.
func (r *Runtime) reach(
	ctx context.Context, containerID string, want containerd.ProcessStatus, act func(containerd.Task, context.Context) error,
) (State, error) {
	task, status, err := r.task(ctx, containerID)
	if err != nil || task == nil {
		return Gone, err
	}
	if status == want {
		return stateOf(want), nil
	}
	actErr := act(task, ctx)
	task, status, err = r.task(ctx, containerID)
	switch {
	case err != nil:
		return "", err
	case task == nil:
		return Gone, nil
	case status == want:
		return stateOf(want), nil
	case actErr != nil:
		return "", actErr
	}
	return "", fmt.Errorf("status is %s, want %s: %w", status, want, errdefs.ErrFailedPrecondition)
}

// task returns nil when no process of the container is left.
func (r *Runtime) task(ctx context.Context, containerID string) (containerd.Task, containerd.ProcessStatus, error) {
	container, err := r.client.LoadContainer(ctx, containerID)
	if errdefs.IsNotFound(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	task, err := container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	status, err := task.Status(ctx)
	if errdefs.IsNotFound(err) || (err == nil && status.Status == containerd.Stopped) {
		return nil, "", nil
	}
	return task, status.Status, err
}

func stateOf(status containerd.ProcessStatus) State {
	if status == containerd.Paused {
		return Frozen
	}
	return Thawed
}
