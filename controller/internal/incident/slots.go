package incident

import (
	"context"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// defaultConcurrent is the schema's default of maxConcurrentIncidents.
const defaultConcurrent = 5

// slots bounds the captures that run at once. The responses are the count; ordered bridges the moment until one that
// was just ordered shows in the cache. After a restart it is empty, and the cache is whole.
type slots struct {
	client  client.Client
	mutex   sync.Mutex
	ordered map[string]struct{}
}

// take takes a slot for the response of this name and returns 0, or returns the limit when that many captures run.
// A response that exists keeps its slot.
func (c *slots) take(ctx context.Context, name string) (int, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	limit, err := c.limit(ctx)
	if err != nil {
		return 0, err
	}
	var list v1alpha1.EventResponseList
	if err := c.client.List(ctx, &list, client.MatchingLabels{v1alpha1.LabelStep: string(v1alpha1.StepSnapshot)}); err != nil {
		return 0, fmt.Errorf("list captures: %w", err)
	}
	running := 0
	for i := range list.Items {
		delete(c.ordered, list.Items[i].Name)
		if list.Items[i].Name == name {
			return 0, nil
		}
		if list.Items[i].Status.CompletedAt == nil {
			running++
		}
	}
	if _, mine := c.ordered[name]; mine {
		return 0, nil
	}
	if running+len(c.ordered) >= limit {
		return limit, nil
	}
	if c.ordered == nil {
		c.ordered = map[string]struct{}{}
	}
	c.ordered[name] = struct{}{}
	return 0, nil
}

// giveBack returns the slot of a response that could not be ordered.
func (c *slots) giveBack(name string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.ordered, name)
}

func (c *slots) limit(ctx context.Context) (int, error) {
	var config v1alpha1.ForensicsConfig
	err := c.client.Get(ctx, client.ObjectKey{Name: v1alpha1.SingletonName}, &config)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("read ForensicsConfig: %w", err)
	}
	return int(ptr.Deref(config.Spec.MaxConcurrentIncidents, defaultConcurrent)), nil
}
