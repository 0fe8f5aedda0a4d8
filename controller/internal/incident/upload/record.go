package upload

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
)

// abandoned says whether the read-back is no longer waited for.
func abandoned(order *v1alpha1.EventResponse) bool {
	return meta.IsStatusConditionFalse(order.Status.Conditions, v1alpha1.ConditionReadBack)
}

// unreachable records why the store was not usable once for each reason, and leaves the order open.
func (r *Reconciler) unreachable(ctx context.Context, order *v1alpha1.EventResponse, cause error) error {
	reason, message := destination.Trouble(cause)
	changed, err := r.delayed(ctx, order, reason, message)
	if changed && err == nil {
		log.FromContext(ctx).Error(cause, "manifest is not stored yet", "response", order.Name)
	}
	return err
}

// waitsForStore shows what keeps the cluster state, and with it the manifest, from being stored.
func (r *Reconciler) waitsForStore(ctx context.Context, order *v1alpha1.EventResponse, cluster *v1alpha1.ClusterState) error {
	if clusterStored(cluster) || cluster == nil || cluster.Reason == "" {
		return nil
	}
	_, err := r.delayed(ctx, order, cluster.Reason, cluster.Message)
	return err
}

// delayed records a reason unless it stands already.
func (r *Reconciler) delayed(ctx context.Context, order *v1alpha1.EventResponse, reason, message string) (bool, error) {
	if complete := meta.FindStatusCondition(order.Status.Conditions, v1alpha1.ConditionComplete); complete != nil && complete.Reason == reason {
		return false, nil
	}
	before := order.DeepCopy()
	r.start(order)
	r.set(order, v1alpha1.ConditionComplete, metav1.ConditionFalse, reason, message)
	return true, r.patch(ctx, order, before)
}

// expire closes an order that ran out of time, with what kept it.
func (r *Reconciler) expire(ctx context.Context, order *v1alpha1.EventResponse) error {
	before := order.DeepCopy()
	message := "the manifest was not stored by the deadline"
	if complete := meta.FindStatusCondition(order.Status.Conditions, v1alpha1.ConditionComplete); complete != nil {
		message += ": " + complete.Reason + ": " + complete.Message
	}
	if err := r.finish(order, v1alpha1.ResponseFailed); err != nil {
		return err
	}
	r.set(order, v1alpha1.ConditionComplete, metav1.ConditionFalse, v1alpha1.ReasonDeadlineExceeded, message)
	return r.patch(ctx, order, before)
}

// ending is what a stored manifest's order is closed with.
type ending struct {
	begun    time.Time
	material material
}

// verdict of the order whose manifest is stored. A capture that was read back as something else than the node asserted is
// Partial, and so is a manifest without the cluster state: whoever looks at the incident sees it.
func (e ending) verdict() (phase v1alpha1.ResponsePhase, reason, message string) {
	phase, reason = v1alpha1.ResponseSucceeded, v1alpha1.ReasonSucceeded
	if !clusterStored(e.material.cluster) {
		phase, reason = v1alpha1.ResponsePartial, v1alpha1.ReasonPartial
		message = "; " + clusterGaps(e.material.cluster)[0].Message
	}
	if observed := e.material.observed; observed != nil && !observed.Agrees {
		phase, reason = v1alpha1.ResponsePartial, v1alpha1.ReasonDigestMismatch
		message += "; the captured objects are not what the node asserted: " + observed.Message
	}
	return phase, reason, message
}

// succeed closes the order.
func (r *Reconciler) succeed(ctx context.Context, order *v1alpha1.EventResponse, stored v1alpha1.StoredObject, end ending) error {
	before := order.DeepCopy()
	if order.Status.StartedAt == nil {
		at := metav1.NewMicroTime(end.begun)
		order.Status.StartedAt, order.Status.Attempts = &at, order.Status.Attempts+1
	}
	phase, reason, detail := end.verdict()
	message := fmt.Sprintf("stored and read back s3://%s/%s", order.Spec.Action.EvidenceUpload.Destination.Bucket, stored.Key) + detail
	if err := r.finish(order, phase); err != nil {
		return err
	}
	order.Status.Artifacts = []v1alpha1.Artifact{{
		Name: "manifest.json", Kind: v1alpha1.ArtifactManifest, MediaType: evidence.MediaTypeManifest,
		Segments: []v1alpha1.StoredObject{stored}, Size: stored.Size, SHA256: stored.SHA256,
	}}
	if state := clusterArtifact(end.material.cluster); state != nil {
		order.Status.Artifacts = append(order.Status.Artifacts, *state)
	}
	order.Status.Gaps = clusterGaps(end.material.cluster)
	r.set(order, v1alpha1.ConditionComplete, metav1.ConditionTrue, reason, message)
	if err := r.patch(ctx, order, before); err != nil {
		return err
	}
	log.FromContext(ctx).Info("manifest stored", "response", order.Name, "key", stored.Key, "size", stored.Size)
	return nil
}

// start notes that the order was taken.
func (r *Reconciler) start(order *v1alpha1.EventResponse) {
	now := metav1.NewMicroTime(r.Clock.Now())
	if order.Status.StartedAt == nil {
		order.Status.StartedAt = &now
		order.Status.Attempts++
	}
	order.Status.Phase = v1alpha1.ResponseRunning
}

func (r *Reconciler) finish(order *v1alpha1.EventResponse, phase v1alpha1.ResponsePhase) error {
	reporter, err := r.Reporter()
	if err != nil {
		return fmt.Errorf("read own clocks: %w", err)
	}
	r.start(order)
	now := metav1.NewMicroTime(r.Clock.Now())
	order.Status.Reporter, order.Status.CompletedAt, order.Status.Phase = &reporter, &now, phase
	return nil
}

func (r *Reconciler) set(order *v1alpha1.EventResponse, kind string, status metav1.ConditionStatus, reason, message string) {
	const longest = 32768
	meta.SetStatusCondition(&order.Status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message[:min(len(message), longest)],
		ObservedGeneration: order.Generation, LastTransitionTime: metav1.NewTime(r.Clock.Now()),
	})
}

// patch writes the status with an optimistic lock: the incident's controller closes an order that nobody closes.
func (r *Reconciler) patch(ctx context.Context, order, before *v1alpha1.EventResponse) error {
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, order, patch, client.FieldOwner(fieldOwner)); err != nil {
		return fmt.Errorf("record status: %w", err)
	}
	return nil
}
