package attestor

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// readBackAccount is who may write status.observed: the read-back workload's ServiceAccount.
const readBackAccount = "system:serviceaccount:" + v1alpha1.NamespacePrivileged + ":ugallu-forensics-snapshot"

func eventStatement(event *v1alpha1.SecurityEvent, attestor evidence.Attestor) (evidence.Statement, error) {
	spec, err := evidence.Canonical(event.Spec)
	if err != nil {
		return evidence.Statement{}, err
	}
	return evidence.Statement{
		Type:          evidence.StatementType,
		Subject:       []evidence.Subject{evidence.SHA256Subject(event.Name, evidence.Digest(spec))},
		PredicateType: evidence.PredicateTypeSecurityEvent,
		Predicate: evidence.SecurityEventPredicate{
			Event:     evidence.Reference{Name: event.Name, UID: string(event.UID)},
			CreatedAt: event.CreationTimestamp.UTC(),
			Spec:      spec,
			Attestor:  attestor,
		},
	}, nil
}

// record is a response as its executor closed it.
type record struct {
	Spec    json.RawMessage `json:"spec"`
	Outcome json.RawMessage `json:"outcome"`
}

func responseStatement(
	response *v1alpha1.EventResponse, bundle *v1alpha1.AttestationBundle, previous string, attestor evidence.Attestor,
) (evidence.Statement, error) {
	closed, err := closedRecord(response)
	if err != nil {
		return evidence.Statement{}, err
	}
	data, err := evidence.Canonical(closed)
	if err != nil {
		return evidence.Statement{}, err
	}
	subjects := []evidence.Subject{evidence.SHA256Subject(response.Name, evidence.Digest(data))}
	for i := range response.Status.Artifacts {
		artifact := &response.Status.Artifacts[i]
		subjects = append(subjects, evidence.SHA256Subject(artifact.Name, artifact.SHA256))
	}
	seen := newObservations(bundle)
	return evidence.Statement{
		Type:          evidence.StatementType,
		Subject:       subjects,
		PredicateType: evidence.PredicateTypeEventResponse,
		Predicate: evidence.EventResponsePredicate{
			Response:    evidence.Reference{Name: response.Name, UID: string(response.UID)},
			IncidentUID: response.Spec.IncidentUID,
			Step:        response.Labels[v1alpha1.LabelStep],
			Spec:        closed.Spec,
			Outcome:     closed.Outcome,
			Artifacts:   seen.artifacts(response),
			Attachments: seen.segments(response.Status.Attachments()),
			ReadBack:    seen.verdict,
			Previous:    previous,
			Attestor:    attestor,
		},
	}, nil
}

func closedRecord(response *v1alpha1.EventResponse) (record, error) {
	if response.Status.CompletedAt == nil {
		return record{}, fmt.Errorf("response %s is not complete", response.Name)
	}
	spec, err := evidence.Canonical(response.Spec)
	if err != nil {
		return record{}, err
	}
	outcome, err := evidence.Canonical(response.Status)
	if err != nil {
		return record{}, err
	}
	return record{Spec: spec, Outcome: outcome}, nil
}

// observations are what the read-back workload found, by key and version.
type observations struct {
	digests map[version]string
	verdict *evidence.ReadBack
}

type version struct{ key, id string }

func newObservations(bundle *v1alpha1.AttestationBundle) observations {
	seen := observations{digests: map[version]string{}}
	for i := range bundle.Status.Observed {
		object := &bundle.Status.Observed[i]
		seen.digests[version{object.Key, object.VersionID}] = object.SHA256
	}
	condition := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionReadBack)
	if condition != nil && condition.Reason != v1alpha1.ReasonNothingStored {
		seen.verdict = &evidence.ReadBack{
			By:      readBackAccount,
			Agrees:  condition.Status == metav1.ConditionTrue,
			Message: condition.Message,
		}
	}
	return seen
}

func (o observations) artifacts(response *v1alpha1.EventResponse) []evidence.Artifact {
	artifacts := make([]evidence.Artifact, 0, len(response.Status.Artifacts))
	asserted := evidence.Asserted{}
	if reporter := response.Status.Reporter; reporter != nil {
		asserted.By, asserted.Node = reporter.Account, reporter.NodeName
	}
	for i := range response.Status.Artifacts {
		artifact := &response.Status.Artifacts[i]
		asserted.SHA256 = artifact.SHA256
		artifacts = append(artifacts, evidence.Artifact{
			Name:             artifact.Name,
			Kind:             string(artifact.Kind),
			Container:        artifact.Container,
			MediaType:        artifact.MediaType,
			Size:             artifact.Size,
			Entries:          artifact.Entries,
			MerkleRoot:       artifact.MerkleRoot,
			Asserted:         asserted,
			Observed:         o.whole(artifact),
			Segments:         o.segments(artifact.Segments),
			FrozenThroughout: artifact.FrozenThroughout,
			Truncated:        artifact.Truncated,
		})
	}
	return artifacts
}

// whole is the digest of an artifact's stream as it was read back. The read-back compares it with the asserted one,
// so that the verdict says what it was; where they disagree it is known for an artifact of one segment only.
func (o observations) whole(artifact *v1alpha1.Artifact) *evidence.Observed {
	if o.verdict == nil {
		return nil
	}
	observed := &evidence.Observed{By: o.verdict.By}
	switch {
	case o.verdict.Agrees:
		observed.SHA256 = artifact.SHA256
	case len(artifact.Segments) == 1:
		observed.SHA256 = o.digests[version{artifact.Segments[0].Key, artifact.Segments[0].VersionID}]
	}
	return observed
}

func (o observations) segments(objects []v1alpha1.StoredObject) []evidence.Segment {
	segments := make([]evidence.Segment, 0, len(objects))
	for _, object := range objects {
		segments = append(segments, evidence.Segment{
			Index:          object.Index,
			Key:            object.Key,
			VersionID:      object.VersionID,
			Size:           object.Size,
			SHA256:         object.SHA256,
			ObservedSHA256: o.digests[version{object.Key, object.VersionID}],
			RetainUntil:    object.RetainUntil.UTC(),
		})
	}
	return segments
}
