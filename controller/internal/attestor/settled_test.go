package attestor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

// anotherMoment is the statement that the attestor would have made at another time.
func anotherMoment(payload []byte) []byte {
	return bytes.Replace(payload, []byte(`"at":"2`), []byte(`"at":"1`), 1)
}

// bundleKey of a response of the incident.
func (s *scene) bundleKey(response *v1alpha1.EventResponse) string {
	return s.incident.Spec.Snapshot.Destination.Prefix + "/bundles/" + v1alpha1.BundleName(string(response.UID)) + ".sigstore.json"
}

// hideNewest does what a delete marker over the object that was stored last does to whoever looks for its key.
func (w *world) hideNewest() {
	w.t.Helper()
	objects, without := w.store.Objects(), worm.NewMemory()
	for _, object := range objects[:len(objects)-1] {
		if _, err := without.Put(w.t.Context(), object.Key, bytes.NewReader(w.content(object)), object.Lock); err != nil {
			w.t.Fatal(err)
		}
	}
	w.store = without
}

func (w *world) remove(object client.Object) {
	w.t.Helper()
	if err := w.base.Delete(w.t.Context(), object); err != nil {
		w.t.Fatal(err)
	}
}

// condition of an object's bundle.
func (w *world) condition(object client.Object, name string) metav1.Condition {
	w.t.Helper()
	found := meta.FindStatusCondition(w.bundle(object).Status.Conditions, name)
	if found == nil {
		w.t.Fatalf("the bundle of %s has no condition %s: %+v", object.GetName(), name, w.bundle(object).Status)
	}
	return *found
}

// endsUnbroken has everything sealed and the record made, in which the end names the freeze.
func (s *scene) endsUnbroken(freeze *v1alpha1.EventResponse) {
	s.t.Helper()
	digest := s.run(freeze).Status.StatementDigest
	s.run(s.ending)
	if got := s.eventPredicate(s.ending).Previous; got != digest || got == "" {
		s.t.Errorf("the end names %q, the statement before it is %q", got, digest)
	}
	s.record(s.incident, 1)
	s.checkRecord(s.incident, 1)
}

// keepsItsDigest has a thief of the mode put the same statement of another moment under a parent's key, after the parent and
// its child were signed.
func keepsItsDigest(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).newScene()
	freeze := s.failShort()
	s.run(s.trigger)
	before := s.signedOnly(freeze)
	s.signedOnly(s.ending)
	s.plant(s.bundleKey(freeze), transit, anotherMoment(unpacked(t, before.Status.Staged).Payload))
	s.expectFailure(freeze, v1alpha1.ConditionSealed, v1alpha1.ReasonBundleInvalid)
	if message := s.condition(freeze, v1alpha1.ConditionSealed).Message; !strings.Contains(message, "gave to the statement after it") ||
		!strings.Contains(message, "delete marker") {
		t.Errorf("message %q", message)
	}
	if after := s.bundle(freeze).Status; after.StatementDigest != before.Status.StatementDigest || after.Object != nil {
		t.Errorf("before %s, after %+v", before.Status.StatementDigest, after)
	}
	s.hideNewest()
	s.endsUnbroken(freeze)
}

// takesWhatIsStored has the statement of another moment lie under the parent's key before the parent is signed: its digest
// is that one from the start.
func takesWhatIsStored(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).newScene()
	freeze := s.failShort()
	s.run(s.trigger)
	before := s.signedOnly(freeze)
	planted := anotherMoment(unpacked(t, before.Status.Staged).Payload)
	s.remove(before)
	s.plant(s.bundleKey(freeze), transit, planted)
	if digest := s.signedOnly(freeze).Status.StatementDigest; digest != evidence.Digest(planted) {
		t.Errorf("signed is %s, stored %s", digest, evidence.Digest(planted))
	}
	s.signedOnly(s.ending)
	s.endsUnbroken(freeze)
}

// madeAgainUnderChild deletes a parent's sealed bundle object while its child is signed.
func madeAgainUnderChild(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).newScene()
	freeze := s.failShort()
	s.run(s.trigger)
	before := s.run(freeze)
	s.remove(before)
	s.clock.SetTime(s.clock.Now().Add(time.Minute))
	if again := s.signedOnly(freeze); again.UID == before.UID || again.Status.StatementDigest != before.Status.StatementDigest {
		t.Errorf("statement %s became %s", before.Status.StatementDigest, again.Status.StatementDigest)
	}
	s.signedOnly(s.ending)
	s.endsUnbroken(freeze)
	if s.bundle(freeze).Status.Object.VersionID != before.Status.Object.VersionID {
		t.Errorf("stored %+v", s.bundle(freeze).Status.Object)
	}
}

// looksAgainAfter demands how soon a statement that waits is looked at again.
func (w *world) looksAgainAfter(object client.Object, want time.Duration) {
	w.t.Helper()
	name := client.ObjectKey{Name: v1alpha1.BundleName(string(object.GetUID()))}
	result, err := w.stages.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: name})
	if err != nil || result.RequeueAfter != want {
		w.t.Errorf("%s is looked at again after %s (%v), want %s", object.GetName(), result.RequeueAfter, err, want)
	}
}

// unreachable is a store that nothing can be asked of.
type unreachable struct{ away }

func (unreachable) Stat(context.Context, string, string) (worm.Object, error) {
	return worm.Object{}, fmt.Errorf("the store is away: %w", worm.ErrUnavailable)
}

// waitsForOpenDigest has the parent signed while its store is away, with a former bundle in it or without.
func waitsForOpenDigest(t *testing.T, config *rest.Config) {
	for name, stored := range map[string]bool{"the key is free": false, "a former bundle lies there": true} {
		t.Run(name, func(t *testing.T) {
			s := newWorld(t, config).newScene()
			freeze := s.failShort()
			s.run(s.trigger)
			if stored {
				s.remove(s.run(freeze))
				s.clock.SetTime(s.clock.Now().Add(time.Minute))
			}
			there := s.stages.Store
			s.stages.Store = func(context.Context, string) (worm.Store, error) { return unreachable{away{s.store}}, nil }
			s.expectFailure(freeze, v1alpha1.ConditionSealed, v1alpha1.ReasonStoreUnreachable)
			signed := s.condition(freeze, v1alpha1.ConditionSigned)
			if signed.Status != metav1.ConditionTrue || signed.Reason != v1alpha1.ReasonDigestOpen || !strings.Contains(signed.Message, "the store is away") {
				t.Errorf("condition %+v", signed)
			}
			if s.world.step(s.ending) {
				t.Error("nothing left to do for the end, before the freeze is stored")
			}
			if waits := s.condition(s.ending, v1alpha1.ConditionSigned); waits.Reason != v1alpha1.ReasonWaiting ||
				!strings.Contains(waits.Message, s.bundle(freeze).Name) {
				t.Errorf("condition %+v", waits)
			}
			s.looksAgainAfter(s.ending, 500*time.Millisecond)
			s.clock.SetTime(s.clock.Now().Add(time.Minute))
			s.looksAgainAfter(s.ending, 30*time.Second)
			s.stages.Store = there
			s.endsUnbroken(freeze)
			if signed := s.condition(freeze, v1alpha1.ConditionSigned); signed.Reason != v1alpha1.ReasonSucceeded {
				t.Errorf("condition %+v", signed)
			}
		})
	}
}

// waitsForForeignToGo has something else lie under the parent's key.
func waitsForForeignToGo(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).newScene()
	freeze := s.failShort()
	s.run(s.trigger)
	s.plant(s.bundleKey(freeze), transit, []byte(`{"foreign":true}`))
	s.expectFailure(freeze, v1alpha1.ConditionSealed, v1alpha1.ReasonBundleInvalid)
	if signed := s.condition(freeze, v1alpha1.ConditionSigned); signed.Reason != v1alpha1.ReasonDigestOpen {
		t.Errorf("condition %+v", signed)
	}
	if s.world.step(s.ending) {
		t.Error("nothing left to do for the end, before the freeze is stored")
	}
	s.hideNewest()
	s.endsUnbroken(freeze)
}

// refusesBrokenChain loses the parent's bundle object, not stored yet, after its child was signed.
func refusesBrokenChain(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).newScene()
	freeze := s.failShort()
	s.run(s.trigger)
	before := s.signedOnly(freeze)
	s.signedOnly(s.ending)
	s.remove(before)
	s.clock.SetTime(s.clock.Now().Add(time.Minute))
	s.run(freeze)
	s.run(s.ending)
	s.waitsFor(s.incident, 1, v1alpha1.ReasonBundleInvalid, s.ending.Name)
	s.waitsFor(s.incident, 1, v1alpha1.ReasonBundleInvalid, "delete marker over the bundles of this statement and of those after it")
	s.remove(s.bundle(s.ending))
	s.hideNewest()
	s.endsUnbroken(freeze)
}

// goesOnWithoutFormerKey takes the key that signed so far out of the trust before each record is made.
func goesOnWithoutFormerKey(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).playShort()
	s.notary.distrusted = s.notary.signed
	s.record(s.incident, 1)
	s.checkRecord(s.incident, 1)
	s.release()
	s.notary.distrusted = s.notary.signed
	s.record(s.incident, 2)
	s.checkRecord(s.incident, 2)
}

// exchanged is a store that gives something else than what was stored under one key.
type exchanged struct {
	*worm.Memory
	key     string
	content []byte
}

func (e exchanged) Open(ctx context.Context, key, versionID string) (io.ReadCloser, error) {
	if key == e.key {
		return io.NopCloser(bytes.NewReader(e.content)), nil
	}
	return e.Memory.Open(ctx, key, versionID)
}

// refusesExchanged has the end be, in the store, a statement that names the right one before it, of another moment.
func refusesExchanged(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).playShort()
	key := s.bundle(s.ending).Status.Object.Key
	sealed := s.content(worm.Object{Key: key, VersionID: s.bundle(s.ending).Status.Object.VersionID})
	payload, err := attest.Payload(sealed)
	if err != nil {
		t.Fatal(err)
	}
	another, err := json.Marshal(forged{Envelope: attest.Envelope{Payload: anotherMoment(payload)}})
	if err != nil {
		t.Fatal(err)
	}
	for content, reason := range map[string]string{string(another): v1alpha1.ReasonDigestMismatch, "no bundle": v1alpha1.ReasonBundleInvalid} {
		s.stages.Store = func(context.Context, string) (worm.Store, error) {
			return exchanged{s.store, key, []byte(content)}, nil
		}
		s.waitsFor(s.incident, 1, reason, key)
	}
}
