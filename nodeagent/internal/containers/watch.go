package containers

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/typeurl/v2"
)

// Started calls started with the id of every container whose first process starts, one call after the other, until the
// context ends (nil) or the stream of containerd's events breaks.
func (l *Lister) Started(ctx context.Context, started func(ctx context.Context, containerID string)) error {
	envelopes, failures := l.client.Subscribe(ctx, `topic=="/tasks/start"`)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failures:
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the end of the context ends the stream as well
			}
			return fmt.Errorf("watch containerd's task events: %w", err)
		case envelope := <-envelopes:
			event, err := typeurl.UnmarshalAny(envelope.Event)
			if err != nil {
				return fmt.Errorf("decode a task event: %w", err)
			}
			if start, ok := event.(*events.TaskStart); ok {
				started(ctx, start.ContainerID)
			}
		}
	}
}
