package containers

import (
	"context"
	"fmt"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
)

// fake is a containerd with containers and what it says of their tasks. Beyond what lists pods it has nothing.
type fake struct {
	engine
	list []fakeContainer
}

// fakeContainer has no task when nothing is said of it.
type fakeContainer struct {
	containerd.Container
	info containers.Container
	said *fakeTask
}

type fakeTask struct {
	containerd.Task
	process uint32
	status  containerd.ProcessStatus
}

// unanswered is what containerd says of a task whose shim does not answer.
func unanswered() *fakeTask { return &fakeTask{status: containerd.Unknown} }

func running(process int) *fakeTask {
	return &fakeTask{process: uint32(process), status: containerd.Running} // #nosec G115 -- a pid
}

// add adds a container, a sandbox if it has no name, and what is said of its task.
func (f *fake) add(id, podUID, name string, said *fakeTask) {
	labels := map[string]string{labelPodUID: podUID, labelKind: "container", labelContainer: name}
	if name == "" {
		labels = map[string]string{labelPodUID: podUID, labelKind: kindSandbox}
	}
	f.list = append(f.list, fakeContainer{info: containers.Container{ID: id, Labels: labels}, said: said})
}

// specification is JSON that containerd keeps of a container.
type specification string

func (s specification) GetTypeUrl() string {
	return "types.containerd.io/opencontainers/runtime-spec/1/Spec"
}
func (s specification) GetValue() []byte { return []byte(s) }

// specify says how the last one that was added was made.
func (f *fake) specify(spec string) { f.list[len(f.list)-1].info.Spec = specification(spec) }

// network says in which network namespace the last one that was added was made.
func (f *fake) network(path string) {
	f.specify(fmt.Sprintf(`{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":%q}]}}`, path))
}

// Containers implements engine, by the filters of containerd.
func (f *fake) Containers(_ context.Context, wanted ...string) (found []containerd.Container, err error) {
	filter, err := filters.ParseAll(wanted...)
	if err != nil {
		return nil, err
	}
	for _, one := range f.list {
		if filter.Match(labelled(one.info.Labels)) {
			found = append(found, one)
		}
	}
	return found, nil
}

// LoadContainer implements engine.
func (f *fake) LoadContainer(_ context.Context, id string) (containerd.Container, error) {
	for _, one := range f.list {
		if one.info.ID == id {
			return one, nil
		}
	}
	return nil, errdefs.ErrNotFound
}

func (c fakeContainer) ID() string { return c.info.ID }

func (c fakeContainer) Info(context.Context, ...containerd.InfoOpts) (containers.Container, error) {
	return c.info, nil
}

func (c fakeContainer) Labels(context.Context) (map[string]string, error) { return c.info.Labels, nil }

func (c fakeContainer) Task(context.Context, cio.Attach) (containerd.Task, error) {
	if c.said == nil {
		return nil, errdefs.ErrNotFound
	}
	return c.said, nil
}

func (t *fakeTask) Pid() uint32 { return t.process }

func (t *fakeTask) Status(context.Context) (containerd.Status, error) {
	return containerd.Status{Status: t.status}, nil
}

// labelled lets a filter look at labels as containerd does.
func labelled(labels map[string]string) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) != 2 || path[0] != "labels" {
			return "", false
		}
		value, found := labels[path[1]]
		return value, found
	})
}
