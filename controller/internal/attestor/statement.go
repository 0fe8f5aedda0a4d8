package attestor

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/artifact"
)

// readBackAccount is who may write status.observed: the read-back workload's ServiceAccount.
const readBackAccount = "system:serviceaccount:" + v1alpha1.NamespacePrivileged + ":ugallu-forensics-snapshot"

func eventStatement(event *v1alpha1.SecurityEvent, previous string, attestor evidence.Attestor) (evidence.Statement, error) {
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
			Previous:  previous,
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
		subjects = append(subjects, evidence.SHA256Subject(response.Status.Artifacts[i].Name, response.Status.Artifacts[i].SHA256))
	}
	seen, verdict := readBack(bundle)
	return evidence.Statement{
		Type:          evidence.StatementType,
		Subject:       subjects,
		PredicateType: evidence.PredicateTypeEventResponse,
		Predicate: evidence.EventResponsePredicate{
			Response:    evidence.Reference{Name: response.Name, UID: string(response.UID)},
			IncidentUID: response.Spec.IncidentUID,
			Step:        string(response.Spec.Action.Type.Step()),
			Spec:        closed.Spec,
			Outcome:     closed.Outcome,
			Artifacts:   artifacts(response, seen),
			Attachments: seen.Segments(response.Status.Attachments()),
			ReadBack:    verdict,
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

// readBack is what the read-back workload found of a response's objects, and its verdict; both are nil when the response
// stored nothing.
func readBack(bundle *v1alpha1.AttestationBundle) (*artifact.Observed, *evidence.ReadBack) {
	condition := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionReadBack)
	seen := artifact.NewObserved(bundle, readBackAccount)
	if seen == nil || condition.Reason == v1alpha1.ReasonNothingStored {
		return nil, nil
	}
	return seen, &evidence.ReadBack{By: seen.By, Agrees: seen.Agrees, Message: seen.Message}
}

func artifacts(response *v1alpha1.EventResponse, seen *artifact.Observed) []evidence.Artifact {
	asserted := evidence.Asserted{}
	if reporter := response.Status.Reporter; reporter != nil {
		asserted.By, asserted.Node = reporter.Account, reporter.NodeName
	}
	described := make([]evidence.Artifact, 0, len(response.Status.Artifacts))
	for i := range response.Status.Artifacts {
		described = append(described, artifact.Evidence(&response.Status.Artifacts[i], asserted, seen))
	}
	return described
}
