package custody

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

var (
	// ErrUnsealed is returned while a record is not due: the incident did not come that far, or something that the record
	// would list is not sealed.
	ErrUnsealed = errors.New("not sealed")
	// ErrMissing is returned where something that the record would list is not in the cluster, or went before it was signed.
	ErrMissing = errors.New("missing")
)

// Material is what a record is made of. All of it is final once the record can be made, so that the same record comes of it
// each time.
type Material struct {
	Incident *v1alpha1.Incident
	// Responses that the incident names.
	Responses []v1alpha1.EventResponse
	// Bundles of the incident's events and responses, and for the second record of the first.
	Bundles []v1alpha1.AttestationBundle
}

// Captured makes the record of everything up to the Completed or Failed event. A release that was already ordered belongs
// into the second record.
func Captured(m *Material) (*evidence.Custody, error) {
	ending := m.Incident.Status.CompletionEvent
	if ending == nil {
		return nil, fmt.Errorf("the end of the capture is %w: no event says so yet", ErrUnsealed)
	}
	responses, err := m.responses(false)
	if err != nil {
		return nil, err
	}
	record := m.begin(evidence.CustodyCaptured)
	if err := m.addEvent(record, m.Incident.Spec.Trigger.Ref); err != nil {
		return nil, err
	}
	if err := m.addResponses(record, responses); err != nil {
		return nil, err
	}
	if err := m.addEvent(record, *ending); err != nil {
		return nil, err
	}
	m.addClusterState(record)
	return record, nil
}

// Released makes the record that goes on where the first one, as it was stored, ends: the statement over that one, and the
// responses that let the pod go.
func Released(m *Material, first *evidence.Custody) (*evidence.Custody, error) {
	if !meta.IsStatusConditionTrue(m.Incident.Status.Conditions, v1alpha1.ConditionReleased) {
		return nil, fmt.Errorf("the release is %w: the pod is still held", ErrUnsealed)
	}
	over, err := m.sealed(v1alpha1.CustodyBundleName(string(m.Incident.UID), evidence.CustodyCaptured), "custody-1")
	if err != nil {
		return nil, err
	}
	record := m.begin(evidence.CustodyReleased)
	if first.Number != evidence.CustodyCaptured || first.Incident != record.Incident || first.Trigger != record.Trigger || first.Pod != record.Pod {
		return nil, fmt.Errorf("%s is not the first record of incident %s", over.Status.Record.Key, m.Incident.Name)
	}
	previous := version(over.Status.Record)
	record.Previous = &previous
	record.Statements = append(record.Statements, first.Statements...)
	record.Objects = append(record.Objects, first.Objects...)
	for _, gap := range first.Gaps {
		if gap.Reason == evidence.GapModeWithdrawn {
			record.Gaps = append(record.Gaps, gap)
		}
	}
	err = m.addStatement(record, over, evidence.CustodyStatement{Kind: evidence.StatementIncident, Subject: record.Incident})
	if err != nil {
		return nil, err
	}
	responses, err := m.responses(true)
	if err != nil {
		return nil, err
	}
	if len(responses) == 0 {
		return nil, fmt.Errorf("the response that released the pod is %w: the incident names none", ErrMissing)
	}
	if err := m.addResponses(record, responses); err != nil {
		return nil, err
	}
	m.addClusterState(record)
	return record, nil
}

// Last is the response that the capture ended with: of those that the incident names, except those that released the pod,
// the last one. It is nil where there is none.
func Last(m *Material) (*v1alpha1.EventResponse, error) {
	responses, err := m.responses(false)
	if err != nil || len(responses) == 0 {
		return nil, err
	}
	return responses[len(responses)-1], nil
}

// Add lists further objects, in their place. What the record lists already, it lists once.
func Add(record *evidence.Custody, objects ...evidence.CustodyObject) {
	record.Objects = append(record.Objects, objects...)
	slices.SortFunc(record.Objects, func(a, b evidence.CustodyObject) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.VersionID, b.VersionID), cmp.Compare(a.SHA256, b.SHA256),
			cmp.Compare(a.Role, b.Role), cmp.Compare(a.Artifact, b.Artifact), cmp.Compare(a.Size, b.Size), a.RetainUntil.Compare(b.RetainUntil))
	})
	// Two accounts of one version that differ are both kept: whoever verifies is to see them.
	record.Objects = slices.CompactFunc(record.Objects, func(a, b evidence.CustodyObject) bool {
		same := a.RetainUntil.Equal(b.RetainUntil)
		b.RetainUntil = a.RetainUntil
		return same && a == b
	})
}

func (m *Material) begin(number int) *evidence.Custody {
	incident := m.Incident
	to, pod := incident.Spec.Snapshot.Destination, incident.Spec.Pod
	return &evidence.Custody{
		Version:     evidence.CustodyVersion,
		Number:      number,
		Incident:    evidence.Reference{Name: incident.Name, UID: string(incident.UID)},
		Trigger:     reference(incident.Spec.Trigger.Ref),
		Pod:         evidence.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Node: pod.NodeName},
		RetainUntil: second(to.RetainUntil.Time),
		LockMode:    string(to.LockMode),
		Statements:  []evidence.CustodyStatement{},
		Objects:     []evidence.CustodyObject{},
	}
}

func (m *Material) addEvent(record *evidence.Custody, event v1alpha1.Ref) error {
	bundle, err := m.sealed(v1alpha1.BundleName(event.UID), event.Name)
	if err != nil {
		return err
	}
	return m.addStatement(record, bundle, evidence.CustodyStatement{Kind: evidence.StatementSecurityEvent, Subject: reference(event)})
}

func (m *Material) addResponses(record *evidence.Custody, responses []*v1alpha1.EventResponse) error {
	for _, response := range responses {
		bundle, err := m.sealed(v1alpha1.BundleName(string(response.UID)), response.Name)
		if err != nil {
			return err
		}
		err = m.addStatement(record, bundle, evidence.CustodyStatement{
			Kind: evidence.StatementEventResponse, Step: string(response.Spec.Action.Type.Step()),
			Subject: evidence.Reference{Name: response.Name, UID: string(response.UID)},
		})
		if err != nil {
			return err
		}
		Add(record, stored(response)...)
	}
	return nil
}

// sealed finds the bundle of this name, of the object that is named for people.
func (m *Material) sealed(name, about string) (*v1alpha1.AttestationBundle, error) {
	for i := range m.Bundles {
		bundle := &m.Bundles[i]
		if bundle.Name != name {
			continue
		}
		status := &bundle.Status
		complete := status.Object != nil && status.StatementDigest != "" && (status.Record != nil ||
			bundle.Spec.AttestedFor.Kind != v1alpha1.AttestedIncident || bundle.Spec.Countersigns != nil)
		if complete && meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionSealed) {
			return bundle, nil
		}
		if Unsignable(bundle) {
			return nil, fmt.Errorf("the statement about %s is %w: what bundle %s attests was gone before it was signed", about, ErrMissing, name)
		}
		return nil, fmt.Errorf("the statement about %s is %w: bundle %s is %s", about, ErrUnsealed, name, cmp.Or(status.Phase, v1alpha1.BundlePending))
	}
	return nil, fmt.Errorf("the statement about %s is %w: it has no bundle %s", about, ErrUnsealed, name)
}

// Unsignable is whether a bundle will never be signed: what it attests was gone before.
func Unsignable(bundle *v1alpha1.AttestationBundle) bool {
	signed := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionSigned)
	return signed != nil && signed.Status == metav1.ConditionFalse && signed.Reason == v1alpha1.ReasonSubjectGone
}

// addStatement lists a statement with all its bundles.
func (m *Material) addStatement(
	record *evidence.Custody, bundle *v1alpha1.AttestationBundle, statement evidence.CustodyStatement,
) error {
	statement.PayloadSHA256 = bundle.Status.StatementDigest
	statement.Bundle = version(bundle.Status.Object)
	for _, mode := range bundle.Status.SigningModes[min(1, len(bundle.Status.SigningModes)):] {
		name := v1alpha1.CountersignatureName(bundle.Name, mode)
		beside, err := m.sealed(name, statement.Subject.Name+" in mode "+string(mode))
		if err != nil {
			return err
		}
		if of := beside.Spec.Countersigns; of == nil || of.Name != bundle.Name || of.Mode != mode {
			return fmt.Errorf("bundle %s is not the one that countersigns %s in mode %s", name, bundle.Name, mode)
		}
		if beside.Status.StatementDigest != statement.PayloadSHA256 {
			return fmt.Errorf("bundle %s attests another statement than %s, which it countersigns", name, bundle.Name)
		}
		statement.Countersignatures = append(statement.Countersignatures,
			evidence.Countersignature{Mode: string(mode), StoredVersion: version(beside.Status.Object)})
	}
	record.Statements = append(record.Statements, statement)
	for _, mode := range bundle.Status.WithdrawnModes {
		record.Gaps = append(record.Gaps, evidence.Gap{
			Reason: evidence.GapModeWithdrawn, Count: 1,
			Message: "the statement about " + statement.Subject.Name + " was begun in mode " + string(mode) +
				", which AttestorConfig lost before it signed",
		})
	}
	return nil
}

func version(object *v1alpha1.StoredObject) evidence.StoredVersion {
	return evidence.StoredVersion{
		Key: object.Key, VersionID: object.VersionID, Size: object.Size, SHA256: object.SHA256, RetainUntil: second(object.RetainUntil.Time),
	}
}

func reference(ref v1alpha1.Ref) evidence.Reference {
	return evidence.Reference{Name: ref.Name, UID: ref.UID}
}

// second is a time as the API server keeps it.
func second(at time.Time) time.Time { return at.UTC().Truncate(time.Second) }
