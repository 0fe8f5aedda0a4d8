package incident

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// uploadWithin bounds the wait for a store that does not answer.
const uploadWithin = 15 * time.Minute

// uploadStep orders evidence-upload, which the controller itself executes, and announces the manifest. It owns the
// condition Uploaded.
type uploadStep struct {
	orders    *orders
	announcer *announcer
}

func (u *uploadStep) run(ctx context.Context, s *scene) (progress, error) {
	if s.is(v1alpha1.ConditionFailed) || s.is(v1alpha1.ConditionUploaded) {
		return finished(), nil
	}
	var covered []v1alpha1.Ref
	for _, step := range []v1alpha1.Step{v1alpha1.StepFreeze, v1alpha1.StepSnapshot} {
		ref := s.response(step)
		if ref == nil {
			return progress{}, fmt.Errorf("the %s response is not on record", step)
		}
		covered = append(covered, *ref)
	}
	response, err := u.orders.place(ctx, s, order{
		step: v1alpha1.StepUpload, attempt: 1, parent: &covered[len(covered)-1], within: uploadWithin,
		action: v1alpha1.Action{Type: v1alpha1.ActionEvidenceUpload, EvidenceUpload: &v1alpha1.EvidenceUploadAction{
			Destination: s.incident.Spec.Snapshot.Destination, Responses: covered,
		}},
	})
	if err != nil {
		return progress{}, err
	}
	next, err := u.orders.await(ctx, response)
	if err != nil || !next.done {
		s.reflect(v1alpha1.ConditionUploaded, response)
		return next, err
	}
	manifest := manifestOf(response)
	if manifest == nil {
		reason, message := ending(response)
		s.set(v1alpha1.ConditionUploaded, metav1.ConditionFalse, v1alpha1.ReasonFailed, message)
		s.fail(v1alpha1.StepUpload, reason, message)
		return finished(), nil
	}
	reference := evidenceRef(s.incident.Spec.Snapshot.Destination.Bucket, manifest)
	if err := u.announcer.announce(ctx, s, v1alpha1.EventCaptureCompleted, reference); err != nil {
		return progress{}, err
	}
	s.incident.Status.Manifest = manifest
	reason, message := v1alpha1.ReasonSucceeded,
		fmt.Sprintf("manifest %s is locked and was read back; event %s announces it", reference.URL, s.incident.Status.CompletionEvent.Name)
	if response.Status.Phase == v1alpha1.ResponsePartial {
		var detail string
		reason, detail = ending(response)
		message += "; " + detail
	}
	s.set(v1alpha1.ConditionUploaded, metav1.ConditionTrue, reason, message)
	return finished(), nil
}

// manifestOf is the stored manifest of a finished upload, or nil when there is none.
func manifestOf(response *v1alpha1.EventResponse) *v1alpha1.StoredObject {
	if response.Status.Phase != v1alpha1.ResponseSucceeded && response.Status.Phase != v1alpha1.ResponsePartial {
		return nil
	}
	for i := range response.Status.Artifacts {
		artifact := &response.Status.Artifacts[i]
		if artifact.Kind == v1alpha1.ArtifactManifest && len(artifact.Segments) == 1 {
			return artifact.Segments[0].DeepCopy()
		}
	}
	return nil
}

func evidenceRef(bucket string, manifest *v1alpha1.StoredObject) *v1alpha1.EvidenceRef {
	return &v1alpha1.EvidenceRef{
		URL: "s3://" + bucket + "/" + manifest.Key, SHA256: manifest.SHA256, VersionID: manifest.VersionID,
		Size: manifest.Size, MediaType: evidence.MediaTypeManifest,
	}
}
