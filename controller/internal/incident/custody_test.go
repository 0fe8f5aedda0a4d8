package incident_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// record has the attestor seal a custody record, or only store it.
func (w *world) record(found *v1alpha1.Incident, number int32, sealed bool) v1alpha1.StoredObject {
	w.t.Helper()
	uid := string(found.UID)
	bundle := &v1alpha1.AttestationBundle{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.CustodyBundleName(uid, number)},
		Spec: v1alpha1.AttestationBundleSpec{
			AttestedFor: v1alpha1.AttestedFor{Kind: v1alpha1.AttestedIncident, Ref: v1alpha1.Ref{Name: found.Name, UID: uid}},
			IncidentUID: uid, Number: number,
		},
	}
	w.create(bundle)
	record := v1alpha1.StoredObject{
		Index: number, Key: v1alpha1.EvidencePrefix(found.Name) + "/custody", VersionID: "version", SHA256: evidence.Digest(nil),
		RetainUntil: found.Spec.Snapshot.Destination.RetainUntil,
	}
	bundle.Status.Record = &record
	if sealed {
		bundle.Status.Conditions = []metav1.Condition{{
			Type: v1alpha1.ConditionSealed, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, LastTransitionTime: metav1.Now(),
		}}
	}
	if err := w.base.Status().Update(w.t.Context(), bundle); err != nil {
		w.t.Fatal(err)
	}
	return record
}

// notesRecords: a release waits for no record, and each is noted when it is sealed, also after the release.
func notesRecords(t *testing.T, w *world) {
	_, event := w.victim("recorded")
	held := w.drive(event, v1alpha1.IncidentHeld)
	completed := w.outcome(held, v1alpha1.EventCaptureCompleted)
	w.annotate(completed, "true", w.stamp(completed, "system:serviceaccount:ugallu-system:ugallu-responder"))
	released := w.drive(event, v1alpha1.IncidentReleased)
	if len(released.Status.Custody) > 0 {
		t.Fatalf("noted %+v", released.Status.Custody)
	}
	first := w.record(released, 1, true)
	if err := w.round(event); err != nil {
		t.Fatal(err)
	}
	w.record(released, 2, false)
	if err := w.round(event); err != nil {
		t.Fatal(err)
	}
	w.get(released.Name, released)
	if diff := cmp.Diff([]v1alpha1.StoredObject{first}, released.Status.Custody); diff != "" {
		t.Errorf("custody (-sealed +noted):\n%s", diff)
	}
}
