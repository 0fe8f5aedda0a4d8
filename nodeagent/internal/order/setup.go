package order

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// containments run side by side: a storm on one node is bounded by its pods, and none waits for another.
	containments = 32
	// captures run side by side: as many as the cluster captures by default, since an order's deadline runs from its
	// placement and none may wait for another. One takes about 40 MiB, and up to 50 MiB more in a tree made to take
	// memory; the agent's limit is 512 MiB.
	captures = 5
	// Bounds of the wait between two starts of an order that did not get through.
	firstRetry, lastRetry = 100 * time.Millisecond, 5 * time.Second
)

// CacheOptions restricts what this process sees: the orders of one node, and open incidents.
func CacheOptions(node string) cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.EventResponse{}: {Field: fields.OneTermEqualSelector("spec.nodeName", node), Transform: keepOrder},
			&v1alpha1.Incident{}:      {Label: labels.SelectorFromSet(labels.Set{v1alpha1.LabelOpen: "true"}), Transform: keepIncident},
		},
	}
}

// keepOrder drops what nobody on the node reads of an order that is closed.
func keepOrder(object any) (any, error) {
	response, ok := object.(*v1alpha1.EventResponse)
	if !ok {
		return object, nil
	}
	response.ManagedFields = nil
	if was := response.Status; was.CompletedAt != nil {
		response.Status = v1alpha1.EventResponseStatus{Phase: was.Phase, CompletedAt: was.CompletedAt, Containment: was.Containment}
	}
	return response, nil
}

// keepIncident keeps what the node is told by an open incident.
func keepIncident(object any) (any, error) {
	incident, ok := object.(*v1alpha1.Incident)
	if !ok {
		return object, nil
	}
	incident.ManagedFields = nil
	incident.Spec = v1alpha1.IncidentSpec{Freeze: incident.Spec.Freeze, Disposition: incident.Spec.Disposition}
	incident.Status = v1alpha1.IncidentStatus{UnfreezeAt: incident.Status.UnfreezeAt}
	return incident, nil
}

// Guard keeps contained pods contained. It needs the API server for nothing but to learn of new orders.
type Guard struct {
	keeper   *keeper
	watcher  *watcher
	restores *restores
}

// Start runs until the context ends and no pod is being brought to what is wanted of it any more.
func (g *Guard) Start(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error { return g.keeper.Start(ctx) })
	group.Go(func() error { return g.watcher.Start(ctx) })
	err := group.Wait()
	g.restores.end()
	return err
}

// DeviceChanged has a pod brought to what is wanted of it after one of its network devices came or changed. It does not
// wait for that.
func (g *Guard) DeviceChanged(ctx context.Context, podUID string) { g.restores.tell(ctx, podUID) }

// Setup adds the controllers to the manager and returns the guard, which the caller starts beside it: the manager waits for
// the API server, the guard does not. Containment and release have workers of their own: neither waits for a capture.
func Setup(manager ctrl.Manager, node Node, tasks Tasks) (*Guard, error) {
	counted, err := newMetrics(metricsserver.Registry)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	pods := newPods()
	r := &Reconciler{node: node, pods: pods, running: newRunning(), metrics: counted}
	for _, queue := range []struct {
		name    string
		workers int
		actions []v1alpha1.ActionType
	}{
		{"containment", containments, []v1alpha1.ActionType{v1alpha1.ActionPodFreeze, v1alpha1.ActionPodUnfreeze, v1alpha1.ActionEvidenceUpload}},
		{"capture", captures, []v1alpha1.ActionType{v1alpha1.ActionFilesystemSnapshot}},
	} {
		err := ctrl.NewControllerManagedBy(manager).Named(queue.name).
			For(&v1alpha1.EventResponse{}).
			WithEventFilter(newOrders(queue.actions)).
			WithOptions(controller.Options{
				MaxConcurrentReconciles: queue.workers,
				RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
			}).Complete(r)
		if err != nil {
			return nil, fmt.Errorf("set controller %s up: %w", queue.name, err)
		}
	}
	if err := manager.Add(&learner{cache: manager.GetCache(), known: node.Known}); err != nil {
		return nil, fmt.Errorf("add the wait for the API server: %w", err)
	}
	return newGuard(node, pods, tasks), nil
}

func newGuard(node Node, pods *pods, tasks Tasks) *Guard {
	restores := newRestores(node, pods)
	return &Guard{
		keeper: &keeper{node: node, pods: pods}, watcher: &watcher{node: node, restores: restores, tasks: tasks, settled: reconnect}, restores: restores,
	}
}

// learner waits until the cache knows every order and every open incident.
type learner struct {
	cache cache.Cache
	known *Known
}

// learnEvery spaces the attempts to reach the API server.
const learnEvery = time.Second

// Start returns once both are known.
func (l *learner) Start(ctx context.Context) error {
	for _, object := range []client.Object{&v1alpha1.EventResponse{}, &v1alpha1.Incident{}} {
		for {
			_, err := l.cache.GetInformer(ctx, object)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the process ends
			}
			log.FromContext(ctx).Error(err, "API server not reached; pods are kept as last known")
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(learnEvery):
			}
		}
	}
	l.known.Synced()
	return nil
}

// newOrders lets an order in when it first appears, which a restart repeats. Its spec never changes, and its status is
// ours: nothing that happens to it later is a reason to act.
func newOrders(actions []v1alpha1.ActionType) predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(created event.CreateEvent) bool {
			response, ok := created.Object.(*v1alpha1.EventResponse)
			if !ok || response.Status.CompletedAt != nil {
				return false
			}
			for _, action := range actions {
				if response.Spec.Action.Type == action {
					return true
				}
			}
			return false
		},
		UpdateFunc:  func(event.UpdateEvent) bool { return false },
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}
