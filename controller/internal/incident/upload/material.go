package upload

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/artifact"
)

// material is what a manifest is made of. All of it is final: the responses are closed.
type material struct {
	responses []v1alpha1.EventResponse
	// observed is nil until the read-back of the capture ended, one way or the other.
	observed *artifact.Observed
	// cluster is nil until the cluster state is stored, and without an object as long as it could not be.
	cluster *v1alpha1.ClusterState
}

func (m material) captureEnded() time.Time {
	var ended time.Time
	for i := range m.responses {
		if at := m.responses[i].Status.CompletedAt; at != nil && at.After(ended) {
			ended = at.Time
		}
	}
	return ended
}

func (r *Reconciler) gather(ctx context.Context, order *v1alpha1.EventResponse) (material, error) {
	var m material
	for _, ref := range order.Spec.Action.EvidenceUpload.Responses {
		var response v1alpha1.EventResponse
		if err := r.Client.Get(ctx, client.ObjectKey{Name: ref.Name}, &response); err != nil {
			return material{}, fmt.Errorf("read response %s: %w", ref.Name, err)
		}
		if string(response.UID) != ref.UID || response.Status.CompletedAt == nil {
			return material{}, fmt.Errorf("response %s is not the closed one with uid %s", ref.Name, ref.UID)
		}
		m.responses = append(m.responses, response)
		if response.Spec.Action.Type != v1alpha1.ActionFilesystemSnapshot {
			continue
		}
		var err error
		if m.observed, err = r.observe(ctx, &response); err != nil {
			return material{}, err
		}
	}
	var err error
	if m.cluster, err = r.cluster(ctx, order); err != nil {
		return material{}, err
	}
	// The order of the list is not significant; the manifest's is that of completion.
	slices.SortFunc(m.responses, func(a, b v1alpha1.EventResponse) int {
		return a.Status.CompletedAt.Compare(b.Status.CompletedAt.Time)
	})
	return m, nil
}

func (r *Reconciler) observe(ctx context.Context, capture *v1alpha1.EventResponse) (*artifact.Observed, error) {
	var bundle v1alpha1.AttestationBundle
	err := r.Client.Get(ctx, client.ObjectKey{Name: v1alpha1.BundleName(string(capture.UID))}, &bundle)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the bundle of response %s: %w", capture.Name, err)
	}
	return artifact.NewObserved(&bundle, r.ReadBack), nil
}

func (r *Reconciler) cluster(ctx context.Context, order *v1alpha1.EventResponse) (*v1alpha1.ClusterState, error) {
	var incident v1alpha1.Incident
	if err := r.Client.Get(ctx, client.ObjectKey{Name: order.Spec.IncidentName}, &incident); err != nil {
		return nil, fmt.Errorf("read incident %s: %w", order.Spec.IncidentName, err)
	}
	return incident.Status.ClusterState, nil
}
