package clusterstate

import (
	"context"
	"fmt"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
)

// maxMessage of a status in bytes.
const maxMessage = 2048

// key is content-addressed: the same state is the same object, whoever stores it and how often.
func key(incident string, stored []byte) string {
	return fmt.Sprintf("%s/cluster-state-%s.yaml", v1alpha1.ArtifactsPrefix(incident), evidence.Digest(stored))
}

func (r *Reconciler) store(ctx context.Context, incident *v1alpha1.Incident, state taken) (v1alpha1.StoredObject, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	to := incident.Spec.Snapshot.Destination
	store, err := r.Open(ctx, to)
	if err != nil {
		return v1alpha1.StoredObject{}, fmt.Errorf("open bucket %s: %w", to.Bucket, err)
	}
	stored, err := destination.Keep(ctx, store, to, key(incident.Name, state.stored), state.stored)
	stored.Plain = state.plain
	return stored, err
}

func plainOf(content []byte) *v1alpha1.PlainContent {
	return &v1alpha1.PlainContent{Size: int64(len(content)), SHA256: evidence.Digest(content)}
}

func troubled(err error) (reason, message string) {
	reason, message = destination.Trouble(err)
	return reason, message[:min(len(message), maxMessage)]
}
