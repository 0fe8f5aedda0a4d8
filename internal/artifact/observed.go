package artifact

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// Observed is what a workload found that read a response's objects back. The methods of nil know nothing.
type Observed struct {
	// By is the account of the workload.
	By string
	// Agrees is whether every object and every stream was as the executor asserts, and Message what was not.
	Agrees  bool
	Message string

	digests map[version]string
}

// version of an object.
type version struct{ key, id string }

// NewObserved returns what a bundle records of the read-back, or nil when that has not ended yet.
func NewObserved(bundle *v1alpha1.AttestationBundle, by string) *Observed {
	verdict := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionReadBack)
	if verdict == nil || (verdict.Status != metav1.ConditionTrue && verdict.Reason != v1alpha1.ReasonDigestMismatch) {
		return nil
	}
	seen := &Observed{
		By: by, Agrees: verdict.Status == metav1.ConditionTrue, Message: verdict.Message, digests: map[version]string{},
	}
	for i := range bundle.Status.Observed {
		object := &bundle.Status.Observed[i]
		seen.digests[version{object.Key, object.VersionID}] = object.SHA256
	}
	return seen
}

// digest of an object as it was read back, empty when it was not.
func (o *Observed) digest(object *v1alpha1.StoredObject) string {
	if o == nil {
		return ""
	}
	return o.digests[version{object.Key, object.VersionID}]
}

// Segments describes stored objects, each with the digest that was observed.
func (o *Observed) Segments(objects []v1alpha1.StoredObject) []evidence.Segment {
	segments := make([]evidence.Segment, 0, len(objects))
	for i := range objects {
		segments = append(segments, o.segment(&objects[i]))
	}
	return segments
}

func (o *Observed) segment(object *v1alpha1.StoredObject) evidence.Segment {
	segment := evidence.Segment{
		Index:          object.Index,
		Key:            object.Key,
		VersionID:      object.VersionID,
		Size:           object.Size,
		SHA256:         object.SHA256,
		ObservedSHA256: o.digest(object),
		RetainUntil:    object.RetainUntil.UTC(),
	}
	if object.Plain != nil {
		segment.Plain = &evidence.PlainContent{Size: object.Plain.Size, SHA256: object.Plain.SHA256}
	}
	return segment
}

func (o *Observed) companion(object *v1alpha1.StoredObject) *evidence.Segment {
	if object == nil {
		return nil
	}
	segment := o.segment(object)
	return &segment
}

// whole is the read-back's word on an artifact of which every object was read. Of the stream it knows the digest when all
// was as asserted, as that was compared, or when one object is the whole stream; of an encrypted one it never does.
func (o *Observed) whole(artifact *v1alpha1.Artifact) *evidence.Observed {
	if o == nil {
		return nil
	}
	encrypted := false
	for i := range artifact.Segments {
		if o.digest(&artifact.Segments[i]) == "" {
			return nil
		}
		encrypted = encrypted || artifact.Segments[i].Plain != nil
	}
	for _, companion := range artifact.Companions() {
		if o.digest(&companion) == "" {
			return nil
		}
	}
	seen := &evidence.Observed{By: o.By}
	switch {
	case encrypted:
	case o.Agrees:
		seen.SHA256 = artifact.SHA256
	case len(artifact.Segments) == 1:
		seen.SHA256 = o.digest(&artifact.Segments[0])
	}
	return seen
}
