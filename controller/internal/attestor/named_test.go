package attestor_test

import (
	"context"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

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
	s.goneForGood(orphan)
}

// goneForGood demands that an object is not signed, for its incident is gone, and not tried again.
func (w *world) goneForGood(object client.Object) {
	w.t.Helper()
	if !w.step(object) {
		w.t.Error("it is looked at again, though its incident is gone")
	}
	condition := w.condition(object, v1alpha1.ConditionSigned)
	if condition.Status != metav1.ConditionFalse || condition.Reason != v1alpha1.ReasonSubjectGone || !strings.Contains(condition.Message, "is gone") {
		w.t.Errorf("condition %+v", condition)
	}
}

// withoutIncidents is the API server as a cache shows it that has no incident yet.
func withoutIncidents(base client.WithWatch) client.Client {
	return interceptor.NewClient(base, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if _, ok := list.(*v1alpha1.IncidentList); ok {
				return nil
			}
			return c.List(ctx, list, options...)
		},
	})
}

// waitsForCache has the incident come into the cache after two of its responses, of which the child is looked at first.
func waitsForCache(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).newScene()
	freeze := s.step(v1alpha1.StepFreeze, 1, nil)
	s.finish(freeze)
	snapshot := s.step(v1alpha1.StepSnapshot, 1, freeze)
	s.finish(snapshot)
	s.note(s.responses...)
	s.end(v1alpha1.EventCaptureFailed, nil)
	there := s.stages.Client
	s.stages.Client = withoutIncidents(s.base)
	for _, object := range []client.Object{freeze, snapshot, s.ending} {
		if s.world.step(object) {
			t.Errorf("nothing left to do for %s", object.GetName())
		}
		if condition := s.condition(object, v1alpha1.ConditionSigned); condition.Reason != v1alpha1.ReasonWaiting ||
			!strings.Contains(condition.Message, s.incident.Name) {
			t.Errorf("condition %+v", condition)
		}
	}
	s.stages.Client = there
	for _, object := range []client.Object{s.ending, snapshot} {
		if s.world.step(object) {
			t.Errorf("%s is signed before what it follows from", object.GetName())
		}
	}
	before := s.run(freeze).Status.StatementDigest
	if predicate, _ := s.responsePredicate(s.run(snapshot)); predicate.Previous != before || before == "" {
		t.Errorf("the snapshot names %q, the statement before it is %q", predicate.Previous, before)
	}
	s.run(s.trigger)
	s.run(s.ending)
	s.record(s.incident, 1)
	s.checkRecord(s.incident, 1)
}

// without is the API server as a cache shows it that lacks some objects.
func without(base client.WithWatch, lacks func(client.Object, client.ObjectKey) bool) client.Client {
	return interceptor.NewClient(base, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if lacks(object, key) {
				return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("x").GroupResource(), key.Name)
			}
			return c.Get(ctx, key, object, options...)
		},
	})
}

// signsWhatTheCacheLacks has no event and no response in the cache, which is no reason to call them gone, or missing in the
// record.
func signsWhatTheCacheLacks(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).newScene()
	freeze := s.failShort()
	s.stages.Client = without(s.base, func(object client.Object, _ client.ObjectKey) bool {
		_, event := object.(*v1alpha1.SecurityEvent)
		_, response := object.(*v1alpha1.EventResponse)
		return event || response
	})
	for _, object := range []client.Object{s.trigger, freeze, s.ending} {
		if digest := s.run(object).Status.StatementDigest; digest == "" {
			t.Errorf("%s is not signed", object.GetName())
		}
	}
	s.endsUnbroken(freeze)
}

// waitsForBundleTheCacheLacks deletes a response that is signed, whose bundle the cache lacks after a restart: what follows
// from it must not be signed as if it never had been.
func waitsForBundleTheCacheLacks(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).newScene()
	freeze := s.step(v1alpha1.StepFreeze, 1, nil)
	s.finish(freeze)
	snapshot := s.step(v1alpha1.StepSnapshot, 1, freeze)
	s.finish(snapshot)
	s.note(s.responses...)
	digest, there := s.run(freeze).Status.StatementDigest, s.stages.Client
	s.remove(freeze)
	s.stages.Client = without(s.base, func(_ client.Object, key client.ObjectKey) bool {
		return key.Name == v1alpha1.BundleName(string(freeze.UID))
	})
	if s.world.step(snapshot) {
		t.Error("nothing left to do for the snapshot")
	}
	if condition := s.condition(snapshot, v1alpha1.ConditionSigned); condition.Reason != v1alpha1.ReasonWaiting ||
		!strings.Contains(condition.Message, freeze.Name) {
		t.Errorf("condition %+v", condition)
	}
	s.stages.Client = there
	if predicate, _ := s.responsePredicate(s.run(snapshot)); predicate.Previous != digest || digest == "" {
		t.Errorf("the snapshot names %q, the statement before it is %q", predicate.Previous, digest)
	}
}

// deletedTooEarly deletes the incident after the release, before the statement about that is signed.
func deletedTooEarly(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).playShort()
	unfreeze, signed := s.free(), s.notary.signed
	s.remove(s.incident)
	s.goneForGood(unfreeze)
	if s.notary.signed != signed {
		t.Errorf("%d signatures", s.notary.signed-signed)
	}
}
