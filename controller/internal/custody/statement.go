package custody

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// Parse reads a record as it was stored, and refuses one that is not the incident's record of this number.
func Parse(data []byte, incident v1alpha1.Ref, number int32) (*evidence.Custody, error) {
	var record evidence.Custody
	if err := json.Unmarshal(data, &record); err != nil {
		return nil, fmt.Errorf("parse custody record: %w", err)
	}
	again, err := evidence.Canonical(record)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, fmt.Errorf("custody record of incident %s is not in the form of version %s", incident.Name, evidence.CustodyVersion)
	}
	if record.Incident != reference(incident) || record.Number != int(number) || len(record.Statements) == 0 {
		return nil, fmt.Errorf("record %d of incident %s (%s) is not record %d of incident %s (%s)",
			record.Number, record.Incident.Name, record.Incident.UID, number, incident.Name, incident.UID)
	}
	return &record, nil
}

// Statement is what is signed over a record that is stored under this key with this digest.
func Statement(record *evidence.Custody, at *v1alpha1.StoredObject, attestor evidence.Attestor) evidence.Statement {
	predicate := evidence.IncidentPredicate{
		Incident: record.Incident,
		Number:   record.Number,
		Previous: record.Statements[len(record.Statements)-1].PayloadSHA256,
		Attestor: attestor,
	}
	if record.Previous != nil {
		predicate.PreviousCustody = record.Previous.SHA256
	}
	return evidence.Statement{
		Type:          evidence.StatementType,
		Subject:       []evidence.Subject{evidence.SHA256Subject(path.Base(at.Key), at.SHA256)},
		PredicateType: evidence.PredicateTypeIncident,
		Predicate:     predicate,
	}
}
