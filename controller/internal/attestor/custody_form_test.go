package attestor_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// stageRecord has a record made while the store takes nothing, and replaces it.
func (s *scene) stageRecord(replaced []byte) {
	s.t.Helper()
	trusts := s.stages.Trust
	s.stages.Trust = func(context.Context) (map[string]string, error) { return map[string]string{}, nil }
	there := s.stages.Store
	s.stages.Store = func(context.Context, string) (worm.Store, error) { return away{s.store}, nil }
	if _, err := s.recordStep(s.incident, 1); err == nil {
		s.t.Fatal("the store took it")
	}
	s.stages.Store, s.stages.Trust = there, trusts
	bundle := s.recordBundle(s.incident, 1)
	if len(bundle.Status.Staged) == 0 {
		s.t.Fatalf("nothing is staged: %+v", bundle.Status)
	}
	bundle.Status.Staged = replaced
	if err := s.base.Status().Update(s.t.Context(), bundle); err != nil {
		s.t.Fatal(err)
	}
}

func refusesUnreadableRecord(t *testing.T, config *rest.Config) {
	for name, staged := range map[string]string{
		"no JSON":                "{",
		"of nothing":             "{}",
		"of another incident":    `{"incident":{"name":"other","uid":"other"},"number":1,"statements":[{}],"version":"v1"}`,
		"of a field that is new": `{"new":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, config)
			s := w.playShort()
			s.stageRecord(packed(t, []byte(staged)))
			w.waitsFor(s.incident, 1, v1alpha1.ReasonBundleInvalid, "set status.staged of this bundle to null")
			bundle := w.recordBundle(s.incident, 1)
			bundle.Status.Staged = nil
			if err := w.base.Status().Update(t.Context(), bundle); err != nil {
				t.Fatal(err)
			}
			w.record(s.incident, 1)
			w.checkRecord(s.incident, 1)
		})
	}
}

// eventPredicate of the statement that the store holds under a bundle's key.
func (w *world) eventPredicate(event *v1alpha1.SecurityEvent) (predicate evidence.SecurityEventPredicate) {
	w.t.Helper()
	object := w.bundle(event).Status.Object
	verified, err := w.notary.Verify(w.content(worm.Object{Key: object.Key, VersionID: object.VersionID}))
	if err != nil {
		w.t.Fatal(err)
	}
	statement := struct {
		Predicate *evidence.SecurityEventPredicate `json:"predicate"`
	}{&predicate}
	if err := json.Unmarshal(verified.Payload, &statement); err != nil {
		w.t.Fatal(err)
	}
	return predicate
}

func endNamesBefore(t *testing.T, config *rest.Config) {
	t.Run("the last response", func(t *testing.T) {
		w := newWorld(t, config)
		s := w.play(v1alpha1.EventCaptureCompleted)
		last := s.bundle(s.responses[len(s.responses)-1]).Status.StatementDigest
		if got := w.eventPredicate(s.ending).Previous; got == "" || got != last {
			t.Errorf("previous %q, want %q", got, last)
		}
		if got := w.eventPredicate(s.trigger).Previous; got != "" {
			t.Errorf("the trigger names %q as the statement before it", got)
		}
	})
	t.Run("not a release that began", func(t *testing.T) {
		w := newWorld(t, config)
		s := w.newScene()
		freeze := s.failShort()
		s.seal(s.trigger)
		s.seal(freeze)
		s.release()
		s.seal(s.ending)
		if got := w.eventPredicate(s.ending).Previous; got != s.bundle(freeze).Status.StatementDigest {
			t.Errorf("previous %q", got)
		}
	})
	t.Run("the trigger where nothing was ordered", func(t *testing.T) {
		w := newWorld(t, config)
		s := w.newScene()
		s.end(v1alpha1.EventCaptureFailed, nil)
		if s.world.step(s.ending) {
			t.Fatal("signed before the trigger")
		}
		s.seal(s.trigger)
		s.seal(s.ending)
		if got := w.eventPredicate(s.ending).Previous; got == "" || got != s.bundle(s.trigger).Status.StatementDigest {
			t.Errorf("previous %q", got)
		}
	})
	t.Run("once it is signed", func(t *testing.T) {
		w := newWorld(t, config)
		s := w.newScene()
		freeze := s.failShort()
		if s.world.step(s.ending) {
			t.Fatal("signed before what it follows from")
		}
		signed := meta.FindStatusCondition(w.bundle(s.ending).Status.Conditions, v1alpha1.ConditionSigned)
		if signed.Reason != v1alpha1.ReasonWaiting || !strings.Contains(signed.Message, freeze.Name) {
			t.Errorf("condition %+v", signed)
		}
		for _, object := range []client.Object{freeze, s.ending} {
			s.seal(object)
		}
	})
}
