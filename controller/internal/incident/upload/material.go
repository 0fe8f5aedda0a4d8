package upload

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// material is what a manifest is made of. All of it is final: the responses are closed.
type material struct {
	responses []v1alpha1.EventResponse
	// observed is nil until the read-back of the capture ended, one way or the other.
	observed *observation
}

// observation is what the read-back workload found in the store.
type observation struct {
	// objects by key and version.
	objects map[[2]string]v1alpha1.ObservedObject
	agrees  bool
	message string
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
	// The order of the list is not significant; the manifest's is that of completion.
	slices.SortFunc(m.responses, func(a, b v1alpha1.EventResponse) int {
		return a.Status.CompletedAt.Compare(b.Status.CompletedAt.Time)
	})
	return m, nil
}

func (r *Reconciler) observe(ctx context.Context, capture *v1alpha1.EventResponse) (*observation, error) {
	var bundle v1alpha1.AttestationBundle
	err := r.Client.Get(ctx, client.ObjectKey{Name: v1alpha1.BundleName(string(capture.UID))}, &bundle)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the bundle of response %s: %w", capture.Name, err)
	}
	condition := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionReadBack)
	if condition == nil || (condition.Status != metav1.ConditionTrue && condition.Reason != v1alpha1.ReasonDigestMismatch) {
		return nil, nil
	}
	observed := &observation{
		objects: map[[2]string]v1alpha1.ObservedObject{}, agrees: condition.Status == metav1.ConditionTrue, message: condition.Message,
	}
	for _, object := range bundle.Status.Observed {
		observed.objects[[2]string{object.Key, object.VersionID}] = object
	}
	return observed, nil
}

// segments copies an artifact's segments with the digests that were observed, and says whether all were.
func (o *observation) segments(artifact *v1alpha1.Artifact) (segments []evidence.Segment, complete bool) {
	complete = o != nil
	for _, stored := range artifact.Segments {
		segment := evidence.Segment{
			Index: stored.Index, Key: stored.Key, VersionID: stored.VersionID, Size: stored.Size, SHA256: stored.SHA256,
			RetainUntil: stored.RetainUntil.UTC(),
		}
		if o != nil {
			found, ok := o.objects[[2]string{stored.Key, stored.VersionID}]
			complete = complete && ok
			segment.ObservedSHA256 = found.SHA256
		}
		segments = append(segments, segment)
	}
	return segments, complete
}
