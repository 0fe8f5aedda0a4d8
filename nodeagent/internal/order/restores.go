package order

import (
	"context"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/log"
)

// restores brings pods to what is wanted of them, each in a goroutine of its own: whoever tells of one goes on to the next.
type restores struct {
	node  Node
	pods  *pods
	mutex sync.Mutex
	// again says, by the uid of each pod that is being restored, whether it is to be restored once more after that.
	again map[string]bool
	ended bool
	group sync.WaitGroup
}

func newRestores(node Node, pods *pods) *restores {
	return &restores{node: node, pods: pods, again: map[string]bool{}}
}

// tell returns at once. However often it is told of a pod that is being restored, one more time covers all of it.
func (r *restores) tell(ctx context.Context, podUID string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.ended {
		return
	}
	if _, under := r.again[podUID]; under {
		r.again[podUID] = true
		return
	}
	r.again[podUID] = false
	r.group.Go(func() {
		for {
			r.restore(ctx, podUID)
			if !r.more(ctx, podUID) {
				return
			}
		}
	})
}

func (r *restores) restore(ctx context.Context, podUID string) {
	defer r.pods.lock(podUID)()
	if err := restore(ctx, r.node, podUID); err != nil {
		log.FromContext(ctx).Error(err, "pod with a new container or device not contained", "podUID", podUID)
	}
}

// more says whether the pod was told of since the last restore began.
func (r *restores) more(ctx context.Context, podUID string) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.again[podUID] && ctx.Err() == nil {
		r.again[podUID] = false
		return true
	}
	delete(r.again, podUID)
	return false
}

// end waits for every pod that is being restored. Who tells of one from then on is not heard.
func (r *restores) end() {
	r.mutex.Lock()
	r.ended = true
	r.mutex.Unlock()
	r.group.Wait()
}
