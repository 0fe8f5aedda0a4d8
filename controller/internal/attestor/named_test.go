package attestor_test

import (
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// neverAttestsUnordered has somebody who got past admission make a response of a real incident, complete.
func neverAttestsUnordered(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).playShort()
	signed := s.notary.signed
	forged := s.step(v1alpha1.StepSnapshot, 1, s.responses[0])
	s.finish(forged)
	if err := s.announce(forged); err != nil {
		t.Fatal(err)
	}
	name := client.ObjectKey{Name: v1alpha1.BundleName(string(forged.UID))}
	for _, tt := range []struct{ age, again time.Duration }{{time.Second, 500 * time.Millisecond}, {time.Minute, 30 * time.Second}} {
		s.clock.SetTime(forged.Status.CompletedAt.Add(tt.age))
		result, err := s.stages.Reconcile(t.Context(), ctrl.Request{NamespacedName: name})
		if err != nil || result.RequeueAfter != tt.again {
			t.Errorf("%s after its end it is looked at again after %s (%v), want %s", tt.age, result.RequeueAfter, err, tt.again)
		}
	}
	condition := s.condition(forged, v1alpha1.ConditionSigned)
	if s.notary.signed != signed || condition.Reason != v1alpha1.ReasonWaiting || !strings.Contains(condition.Message, "did not order") ||
		!strings.Contains(condition.Message, s.incident.Name) {
		t.Errorf("%d signatures, condition %+v", s.notary.signed-signed, condition)
	}
	s.record(s.incident, 1)
	for _, statement := range s.checkRecord(s.incident, 1).Statements {
		if statement.Subject.UID == string(forged.UID) {
			t.Errorf("the record lists %+v", statement)
		}
	}
}

// neverAttestsReplaced has somebody delete a response and make another one of its name.
func neverAttestsReplaced(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).newScene()
	freeze := s.failShort()
	s.remove(freeze)
	forged := s.step(v1alpha1.StepFreeze, 1, nil)
	s.finish(forged)
	if !s.world.step(forged) {
		t.Error("it is looked at again, though its incident names another response")
	}
	condition := s.condition(forged, v1alpha1.ConditionSigned)
	if s.notary.signed != 0 || condition.Reason != v1alpha1.ReasonSubjectGone || !strings.Contains(condition.Message, string(freeze.UID)) {
		t.Errorf("%d signatures, condition %+v", s.notary.signed, condition)
	}
	orphan := forged.DeepCopy()
	orphan.Name, orphan.ResourceVersion, orphan.UID = "er-0123456789abcdef-podfreeze", "", ""
	orphan.Spec.IncidentUID, orphan.Spec.IncidentName = "of-no-incident", "0123456789abcdef"
	s.create(orphan)
	s.finish(orphan)
	s.expectFailure(orphan, v1alpha1.ConditionSigned, v1alpha1.ReasonSubjectGone)
}
