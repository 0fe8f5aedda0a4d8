package upload

import (
	"context"
	"fmt"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
)

func (r *Reconciler) store(ctx context.Context, order *v1alpha1.EventResponse, manifest []byte) (v1alpha1.StoredObject, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	to := order.Spec.Action.EvidenceUpload.Destination
	store, err := r.Open(ctx, to)
	if err != nil {
		return v1alpha1.StoredObject{}, fmt.Errorf("open bucket %s: %w", to.Bucket, err)
	}
	stored, err := destination.Keep(ctx, store, to, evidence.ManifestKey(to.Prefix, evidence.Digest(manifest)), manifest)
	if err != nil {
		return v1alpha1.StoredObject{}, fmt.Errorf("store manifest: %w", err)
	}
	return stored, nil
}
