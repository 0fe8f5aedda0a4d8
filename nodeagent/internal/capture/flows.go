package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

// flowsArtifact holds the flows that were dropped until the capture began.
const flowsArtifact = "flows.ndjson.zst"

// GapFlowsNotRead says that the kernel did not give the list of dropped flows.
const GapFlowsNotRead = "FlowsNotRead"

// flows stores the list of dropped flows, first of all: it is the most volatile. What cannot be read is a gap.
func (r *run) flows(ctx context.Context) error {
	if r.order.Flows == nil || r.has(flowsArtifact) || r.lacks(GapFlowsNotRead) {
		return nil
	}
	list, err := r.order.Flows()
	if err != nil {
		r.merge([]evidence.Gap{{Reason: GapFlowsNotRead, Message: err.Error(), Count: 1}})
		return nil //nolint:nilerr // the gap says it
	}
	uploaded, err := storeFlows(ctx, r.store, r.target(flowsArtifact), list)
	if err != nil {
		return err
	}
	r.result.Artifacts = append(r.result.Artifacts, v1alpha1.Artifact{
		Name: flowsArtifact, Kind: v1alpha1.ArtifactDroppedFlows, MediaType: evidence.MediaTypeFlows,
		Segments: uploaded.Objects(), Size: uploaded.Size, SHA256: uploaded.SHA256, Entries: int64(len(list)),
	})
	if r.order.Stored != nil {
		if err := r.order.Stored(r.result); err != nil {
			return fmt.Errorf("persist %s: %w", flowsArtifact, err)
		}
	}
	return nil
}

// lacks says whether a gap of that reason is on record.
func (r *run) lacks(reason string) bool {
	for _, gap := range r.result.Gaps {
		if gap.Reason == reason {
			return true
		}
	}
	return false
}

// StoreFlows stores a list of flows as one object of the incident.
func (c *Capturer) StoreFlows(ctx context.Context, destination v1alpha1.Destination, name string, list []evidence.Flow) (v1alpha1.StoredObject, error) {
	store, err := c.Open(ctx, destination.Bucket)
	if err != nil {
		return v1alpha1.StoredObject{}, fmt.Errorf("open bucket %s: %w", destination.Bucket, err)
	}
	uploaded, err := storeFlows(ctx, store, targetIn(destination, name), list)
	if err != nil {
		return v1alpha1.StoredObject{}, err
	}
	return uploaded.Segments[0].StoredObject, nil
}

// storeFlows writes one line a flow. At most 2,048 flows are 1 MiB before compression, which is far from a second segment.
func storeFlows(ctx context.Context, store worm.Putter, target upload.Target, list []evidence.Flow) (upload.Result, error) {
	attempt, err := upload.Claim(ctx, store, target)
	if err != nil {
		return upload.Result{}, fmt.Errorf("store %s: %w", target.Name, err)
	}
	writer := upload.NewWriter(ctx, store, upload.Options{Folder: attempt.Folder, Lock: target.Lock})
	if err := writeFlows(writer, list); err != nil {
		writer.Abort(err)
		return upload.Result{}, fmt.Errorf("store %s: %w", target.Name, err)
	}
	uploaded, err := writer.Finish()
	if err != nil {
		return upload.Result{}, fmt.Errorf("store %s: %w", target.Name, err)
	}
	return uploaded, nil
}

func writeFlows(to io.Writer, list []evidence.Flow) error {
	compressed, err := zstd.NewWriter(to, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("make zstd encoder: %w", err)
	}
	lines := json.NewEncoder(compressed)
	for i := range list {
		if err := lines.Encode(&list[i]); err != nil {
			return errors.Join(fmt.Errorf("write a flow: %w", err), compressed.Close())
		}
	}
	return compressed.Close()
}
