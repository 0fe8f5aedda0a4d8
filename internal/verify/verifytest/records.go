package verifytest

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

func (i *Incident) manifest(covered []*v1alpha1.EventResponse) evidence.Manifest {
	manifest := evidence.Manifest{
		Version: evidence.ManifestVersion, Incident: evidence.Reference{Name: i.Name, UID: IncidentUID}, Trigger: i.listed[0].Subject,
		Pod: i.pod(), RetainUntil: i.lock.RetainUntil, Gaps: []evidence.Gap{},
	}
	for _, response := range covered {
		manifest.Responses = append(manifest.Responses, evidence.ResponseSummary{
			Reference: evidence.Reference{Name: response.Name, UID: string(response.UID)}, Step: response.Labels[v1alpha1.LabelStep],
			Phase: string(response.Status.Phase), CompletedAt: response.Status.CompletedAt.UTC(),
		})
		manifest.Artifacts = append(manifest.Artifacts, artifacts(response)...)
	}
	manifest.Containment = i.canonical(covered[0].Status.Containment)
	return manifest
}

// store puts an object below the prefix and remembers it for the record.
func (i *Incident) store(name string, data []byte, role evidence.ObjectRole, artifact string) *v1alpha1.StoredObject {
	put := i.put(i.Prefix+"/"+name, data, i.lock)
	stored := listing(put)
	i.objects = append(i.objects, evidence.CustodyObject{StoredVersion: stored, Role: role, Artifact: artifact})
	return &v1alpha1.StoredObject{
		Key: put.Key, VersionID: put.VersionID, Size: put.Size, SHA256: put.SHA256, RetainUntil: metav1.NewTime(put.Lock.RetainUntil),
	}
}

func listing(put worm.Object) evidence.StoredVersion {
	return evidence.StoredVersion{
		Key: put.Key, VersionID: put.VersionID, Size: put.Size, SHA256: put.SHA256, RetainUntil: put.Lock.RetainUntil,
	}
}

// record makes a custody record and the statement over it.
func (i *Incident) record(number int, previous *evidence.StoredVersion) evidence.StoredVersion {
	i.t.Helper()
	custody := evidence.Custody{
		Version: evidence.CustodyVersion, Number: number, Incident: evidence.Reference{Name: i.Name, UID: IncidentUID},
		Trigger: i.listed[0].Subject, Pod: i.pod(), RetainUntil: i.lock.RetainUntil, LockMode: i.lock.Mode, Previous: previous,
		Statements: slices.Clone(i.listed), Objects: slices.Clone(i.objects),
	}
	slices.SortFunc(custody.Objects, func(a, b evidence.CustodyObject) int { return strings.Compare(a.Key, b.Key) })
	if by, signs := i.countersigner(fmt.Sprintf("custody-%d", number)); signs {
		custody.CountersignedIn = []string{by.Mode()}
	}
	if i.change.Record != nil {
		i.change.Record(&custody)
	}
	data := i.canonical(custody)
	put := i.put(evidence.CustodyKey(i.Prefix, number, evidence.Digest(data)), data, i.lock)
	predicate := evidence.IncidentPredicate{
		Incident: custody.Incident, Number: number, Previous: custody.Statements[len(custody.Statements)-1].PayloadSHA256,
		Attestor: evidence.Attestor{Account: Identity, At: i.begun},
	}
	if previous != nil {
		predicate.PreviousCustody = previous.SHA256
	}
	if i.change.Incident != nil {
		i.change.Incident(&predicate)
	}
	file := put.Key[len(i.Prefix)+1:]
	payload := i.statement(evidence.PredicateTypeIncident, predicate, evidence.SHA256Subject(file, put.SHA256))
	name, key := file[:len("custody-1")], evidence.CustodyBundleKey(put.Key)
	i.listed = append(i.listed, evidence.CustodyStatement{
		Kind: evidence.StatementIncident, Subject: custody.Incident, PayloadSHA256: evidence.Digest(payload),
		Bundle: i.seal(name, payload, key), Countersignatures: i.countersign(name, payload, key),
	})
	return listing(put)
}
