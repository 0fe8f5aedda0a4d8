package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// flowsPart is the list of flows that were dropped until the capture began.
func flowsPart(flows func() ([]evidence.Flow, error)) Part {
	return Part{
		Name: "flows.ndjson.zst", Kind: v1alpha1.ArtifactDroppedFlows, MediaType: evidence.MediaTypeFlows,
		Write: func(_ context.Context, _ time.Duration, out, _ io.Writer) (Summary, error) {
			list, err := flows()
			if err != nil {
				return Summary{}, Lost{evidence.GapFlowsNotRead, err}
			}
			return Summary{Records: int64(len(list))}, writeFlows(out, list)
		},
	}
}

// StoreFlows stores a list of flows as one object of the incident.
func (c *Capturer) StoreFlows(ctx context.Context, destination v1alpha1.Destination, name string, list []evidence.Flow) (v1alpha1.StoredObject, error) {
	stored, err := c.storeFlows(ctx, destination, name, list)
	if err == nil || ctx.Err() != nil {
		c.claims.Forget(destination.Bucket, artifacts(destination)+name)
	}
	return stored, err
}

func (c *Capturer) storeFlows(ctx context.Context, destination v1alpha1.Destination, name string, list []evidence.Flow) (v1alpha1.StoredObject, error) {
	seal, err := newSealer(destination)
	if err != nil {
		return v1alpha1.StoredObject{}, err
	}
	store, err := c.Open(ctx, destination, 0)
	if err != nil {
		return v1alpha1.StoredObject{}, fmt.Errorf("open bucket %s: %w", destination.Bucket, err)
	}
	out, err := c.depot(store, destination, seal).single(ctx, name, true)
	if err != nil {
		return v1alpha1.StoredObject{}, err
	}
	if err := writeFlows(out, list); err != nil {
		out.abort(err)
		return v1alpha1.StoredObject{}, fmt.Errorf("store %s: %w", name, err)
	}
	result, err := out.finish()
	if err != nil {
		return v1alpha1.StoredObject{}, fmt.Errorf("store %s: %w", name, err)
	}
	return *object(result), nil
}

// writeFlows writes one line a flow.
func writeFlows(to io.Writer, list []evidence.Flow) error {
	lines := json.NewEncoder(to)
	for i := range list {
		if err := lines.Encode(&list[i]); err != nil {
			return fmt.Errorf("write a flow: %w", err)
		}
	}
	return nil
}
