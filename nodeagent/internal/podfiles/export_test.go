package podfiles

import (
	"context"
	"time"
)

// FindWithin is Find with another bound on the look for memory.
func FindWithin(ctx context.Context, pod Pod, roots Roots, within time.Duration) (Found, error) {
	return find(ctx, pod, roots, within)
}
