package attestor_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/attestor"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

const (
	keyless = v1alpha1.SigningFulcioKeyless
	transit = v1alpha1.SigningOpenBaoTransit
)

func (w *world) inBothModes() *world {
	w.modes = []v1alpha1.SigningMode{transit, keyless}
	return w
}

// second is the bundle that countersigns that of an object.
func (w *world) second(object client.Object) *v1alpha1.AttestationBundle {
	w.t.Helper()
	var bundle v1alpha1.AttestationBundle
	w.get(client.ObjectKey{Name: w.beside(v1alpha1.BundleName(string(object.GetUID())))}, &bundle)
	return &bundle
}

func sealedOnceInBothModes(t *testing.T, fresh func(*testing.T) *world) {
	smooth := fresh(t).inBothModes()
	smooth.run(smooth.newEvent())
	// For each bundle its object, the log and the store's put; the stages, of which the first has five and the second three;
	// the first's note of what it waits for, and the event's status.
	if smooth.effects.count != 16 {
		t.Errorf("%d effects without a crash", smooth.effects.count)
	}
	for at := range smooth.effects.count {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("effect %d, answer lost %t", at, after), func(t *testing.T) {
				w := fresh(t).inBothModes()
				w.effects.at, w.effects.after = at, after
				event := w.newEvent()
				for range 20 {
					if w.step(event) {
						break
					}
					w.demandNotAttestedEarly(event)
				}
				w.checkSealedInBoth(event)
			})
		}
	}
}

// demandNotAttestedEarly wants nothing to be called sealed before both bundles are stored.
func (w *world) demandNotAttestedEarly(event *v1alpha1.SecurityEvent) {
	w.t.Helper()
	var now v1alpha1.SecurityEvent
	w.get(client.ObjectKeyFromObject(event), &now)
	var bundle v1alpha1.AttestationBundle
	err := w.base.Get(w.t.Context(), client.ObjectKey{Name: v1alpha1.BundleName(string(event.UID))}, &bundle)
	if client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	claimed := now.Status.Phase == v1alpha1.EventAttested || bundle.Status.Phase == v1alpha1.BundleSealed
	if stored := len(w.store.Objects()); claimed && stored != 2 {
		w.t.Errorf("event is %q, bundle %q, with %d bundles stored", now.Status.Phase, bundle.Status.Phase, stored)
	}
}

// checkSealedInBoth compares both bundles with each other and with the store.
func (w *world) checkSealedInBoth(event *v1alpha1.SecurityEvent) {
	w.t.Helper()
	first, second := w.bundle(event), w.second(event)
	objects := w.store.Objects()
	if len(objects) != 2 || first.Status.Phase != v1alpha1.BundleSealed || second.Status.Phase != v1alpha1.BundleSealed {
		w.t.Fatalf("%d objects stored, phases %s and %s", len(objects), first.Status.Phase, second.Status.Phase)
	}
	base := "attestations/" + string(event.UID)
	if first.Status.Object.Key != base+".sigstore.json" || second.Status.Object.Key != base+".fulcio-keyless.sigstore.json" {
		w.t.Errorf("stored as %s and %s", first.Status.Object.Key, second.Status.Object.Key)
	}
	signer := map[string]bool{}
	var payload []byte
	for _, bundle := range []*v1alpha1.AttestationBundle{first, second} {
		object := bundle.Status.Object
		verified, err := w.notary.Verify(w.content(worm.Object{Key: object.Key, VersionID: object.VersionID}))
		if err != nil {
			w.t.Fatal(err)
		}
		if payload != nil && !bytes.Equal(payload, verified.Payload) {
			w.t.Error("the bundles are over different bytes")
		}
		payload, signer[verified.Signer] = verified.Payload, true
		if bundle.Status.StatementDigest != evidence.Digest(payload) || *bundle.Status.LogIndex != verified.LogIndex {
			w.t.Errorf("status of %s: %+v", bundle.Name, bundle.Status)
		}
	}
	if !signer["key"] || !signer["identity"] || *first.Status.LogIndex == *second.Status.LogIndex {
		w.t.Errorf("signed by %v, entries %d and %d", signer, *first.Status.LogIndex, *second.Status.LogIndex)
	}
	var after v1alpha1.SecurityEvent
	w.get(client.ObjectKeyFromObject(event), &after)
	if after.Status.Phase != v1alpha1.EventAttested || after.Status.BundleRef.Name != first.Name || second.Spec.Countersigns.Name != first.Name {
		w.t.Errorf("event %+v", after.Status)
	}
}

// tries reconciles everything once and ignores failures, which the conditions tell.
func (w *world) tries(object client.Object) {
	w.t.Helper()
	if err := w.announce(object); err != nil {
		w.t.Fatal(err)
	}
	name := v1alpha1.BundleName(string(object.GetUID()))
	for _, bundle := range []string{name, w.beside(name), name} {
		request := ctrl.Request{NamespacedName: client.ObjectKey{Name: bundle}}
		if _, err := w.stages.Reconcile(w.t.Context(), request); err != nil {
			w.t.Logf("%s: %v", bundle, err)
		}
	}
}

func waitsForSecondMode(t *testing.T, w *world) {
	w.inBothModes()
	for mode, stage := range map[v1alpha1.SigningMode]string{keyless: v1alpha1.ConditionSealed, transit: v1alpha1.ConditionSigned} {
		event := w.newEvent()
		w.notary.unable = map[v1alpha1.SigningMode]error{mode: errors.New("connection refused")}
		w.tries(event)
		w.tries(event)
		var now v1alpha1.SecurityEvent
		w.get(client.ObjectKeyFromObject(event), &now)
		bundle := w.bundle(event)
		held := meta.FindStatusCondition(bundle.Status.Conditions, stage)
		if now.Status.Phase == v1alpha1.EventAttested || held == nil || held.Status != metav1.ConditionFalse {
			t.Fatalf("%s away: event is %q, condition %+v", mode, now.Status.Phase, held)
		}
		if mode == keyless {
			for _, part := range []string{"mode fulcio-keyless", "not Signed: SignerUnavailable", "connection refused"} {
				if !strings.Contains(held.Message, part) {
					t.Errorf("message lacks %q: %s", part, held.Message)
				}
			}
		}
		if attested, err := w.checker().Attested(t.Context(), event); attested || err != nil {
			t.Errorf("%s away: %t, %v", mode, attested, err)
		}
		w.notary.unable = nil
		w.run(event)
		if phase := w.second(event).Status.Phase; phase != v1alpha1.BundleSealed {
			t.Errorf("%s is back: second bundle is %s", mode, phase)
		}
	}
}

// modesStay changes the list after the first signature: a mode that is added is for later statements, one that is taken off
// finishes what was begun.
func modesStay(t *testing.T, w *world) {
	added := w.newEvent()
	w.signedOnly(added)
	w.inBothModes()
	if bundle := w.run(added); bundle.Status.Phase != v1alpha1.BundleSealed || len(bundle.Status.SigningModes) != 1 {
		t.Errorf("begun in one mode: %+v", bundle.Status)
	}
	removed := w.newEvent()
	w.signedOnly(removed)
	w.modes = w.modes[:1]
	if bundle := w.run(removed); len(bundle.Status.SigningModes) != 2 || len(bundle.Status.WithdrawnModes) != 0 {
		t.Errorf("begun in two modes: %+v", bundle.Status)
	}
	if phase := w.second(removed).Status.Phase; phase != v1alpha1.BundleSealed {
		t.Errorf("the second bundle is %s", phase)
	}
}

func dropsWithdrawn(t *testing.T, w *world) {
	event := w.newEvent()
	w.inBothModes().signedOnly(event)
	w.modes = w.modes[:1]
	w.notary.unable = map[v1alpha1.SigningMode]error{keyless: attestor.ErrModeWithdrawn}
	bundle := w.run(event)
	sealed := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionSealed)
	if len(bundle.Status.WithdrawnModes) != 1 || bundle.Status.WithdrawnModes[0] != keyless || !strings.Contains(sealed.Message, "not in mode fulcio-keyless") {
		t.Errorf("status %+v", bundle.Status)
	}
	signed := meta.FindStatusCondition(w.second(event).Status.Conditions, v1alpha1.ConditionSigned)
	if signed == nil || signed.Reason != v1alpha1.ReasonModeWithdrawn {
		t.Errorf("second bundle: %+v", signed)
	}
	if attested, err := w.checker().Attested(t.Context(), event); !attested || err != nil {
		t.Errorf("%t, %v", attested, err)
	}
	w.notary.unable = nil
	w.tries(event) // nobody waits for the second one any more, even if its servers are back
	if phase := w.second(event).Status.Phase; phase == v1alpha1.BundleSealed || len(w.store.Objects()) != 1 {
		t.Errorf("the second bundle is %s, %d stored", phase, len(w.store.Objects()))
	}
}

// firstWithdrawn takes the mode away between signature and log, where the certificate or the proof was lost.
func firstWithdrawn(t *testing.T, w *world) {
	event := w.newEvent()
	before := w.signedOnly(event)
	w.modes = []v1alpha1.SigningMode{keyless}
	w.notary.unable = map[v1alpha1.SigningMode]error{transit: attestor.ErrModeWithdrawn}
	w.notary.published = attest.ErrDuplicate
	w.tries(event)
	w.notary.published = nil
	after := w.run(event)
	if after.Status.StatementDigest != before.Status.StatementDigest || after.Status.Signer != "identity" {
		t.Errorf("statement %s by %s, before %s", after.Status.StatementDigest, after.Status.Signer, before.Status.StatementDigest)
	}
	if len(after.Status.SigningModes) != 1 || after.Status.SigningModes[0] != keyless || len(after.Status.WithdrawnModes) != 1 {
		t.Errorf("modes %v, withdrawn %v", after.Status.SigningModes, after.Status.WithdrawnModes)
	}
}

// adoptsBoth deletes both objects of a sealed statement: what is stored wins.
func adoptsBoth(t *testing.T, w *world) {
	event := w.newEvent()
	before := w.inBothModes().run(event)
	for _, bundle := range []*v1alpha1.AttestationBundle{w.second(event), before} {
		if err := w.base.Delete(t.Context(), bundle); err != nil {
			t.Fatal(err)
		}
	}
	after := w.run(event)
	if after.Status.StatementDigest != before.Status.StatementDigest {
		t.Errorf("statement %s became %s", before.Status.StatementDigest, after.Status.StatementDigest)
	}
	w.checkSealedInBoth(event)
}

func refusesForeignCountersignature(t *testing.T, w *world) {
	w.inBothModes()
	other := w.newEvent()
	w.run(other)
	for name, from := range map[string]*v1alpha1.StoredObject{
		"over another statement": w.second(other).Status.Object, "in the mode of the first": nil,
	} {
		event := w.newEvent()
		w.notary.unable = map[v1alpha1.SigningMode]error{keyless: errors.New("away")}
		w.tries(event)
		w.notary.unable = nil
		if from == nil {
			from = w.bundle(event).Status.Object
		}
		data := w.content(worm.Object{Key: from.Key, VersionID: from.VersionID})
		key := evidence.CountersignatureKey(w.bundle(event).Status.Object.Key, string(keyless))
		stored := w.store.Objects()[0].Lock
		if _, err := w.store.Put(t.Context(), key, bytes.NewReader(data), stored); err != nil {
			t.Fatal(err)
		}
		w.tries(event)
		w.tries(event)
		sealed := meta.FindStatusCondition(w.second(event).Status.Conditions, v1alpha1.ConditionSealed)
		if sealed == nil || sealed.Reason != v1alpha1.ReasonBundleInvalid || w.bundle(event).Status.Phase == v1alpha1.BundleSealed {
			t.Errorf("%s: %+v", name, sealed)
		}
	}
}

func checkerWantsEveryMode(t *testing.T, w *world) {
	event, other := w.newEvent(), w.newEvent()
	w.inBothModes().run(event)
	w.run(other)
	if attested, err := w.checker().Attested(t.Context(), event); !attested || err != nil {
		t.Fatalf("both stored: %t, %v", attested, err)
	}
	forged, target := w.second(event), w.second(other)
	if err := w.base.Delete(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	if attested, err := w.checker().Attested(t.Context(), event); attested || err != nil {
		t.Errorf("the second bundle is gone: %t, %v", attested, err)
	}
	again := &v1alpha1.AttestationBundle{Spec: forged.Spec}
	again.Name = forged.Name
	w.create(again)
	again.Status = target.Status
	if err := w.base.Status().Update(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if attested, err := w.checker().Attested(t.Context(), event); attested || err == nil {
		t.Errorf("the second bundle of another event: %t, %v", attested, err)
	}
}

func wholeVerifiesInBothModes(t *testing.T, config *rest.Config) {
	w, authority := signing(t, config)
	s := w.inBothModes().play(v1alpha1.EventCaptureCompleted)
	first := w.record(s.incident, 1).Status.Record.Key
	w.verifies(authority.TrustBoth(), first)
	s.release()
	w.verifies(authority.TrustBoth(), w.record(s.incident, 2).Status.Record.Key)
	w.verifies(authority.TrustBoth(), first)
	record := w.checkRecord(s.incident, 2)
	for _, statement := range record.Statements {
		if len(statement.Countersignatures) != 1 || statement.Countersignatures[0].Mode != evidence.ModeKeyless {
			t.Errorf("%s is countersigned by %+v", statement.Subject.Name, statement.Countersignatures)
		}
	}
	if len(record.CountersignedIn) != 1 || len(record.Gaps) != 0 {
		t.Errorf("the record is countersigned in %v, gaps %+v", record.CountersignedIn, record.Gaps)
	}
}

func wakeInBothModes(t *testing.T, config *rest.Config) {
	wakeEachOther(t, config, newWorld(t, config).inBothModes())
}

// recordedOnceInBothModes ends the process at every effect of the first record.
func recordedOnceInBothModes(t *testing.T, config *rest.Config) {
	smooth := newWorld(t, config).inBothModes().playShort()
	before := smooth.effects.count
	smooth.record(smooth.incident, 1)
	for at := range smooth.effects.count - before {
		t.Run(fmt.Sprintf("effect %d", at), func(t *testing.T) {
			s := newWorld(t, config).inBothModes().playShort()
			s.effects.at, s.effects.after = s.effects.count+at, true
			bundle := s.record(s.incident, 1)
			s.effects.at = -1
			// The record, and a bundle of each mode.
			if stored := s.records(s.incident, 1); len(stored) != 3 || bundle.Status.Phase != v1alpha1.BundleSealed {
				t.Errorf("%d objects stored: %+v", len(stored), stored)
			}
		})
	}
}

func withdrawnIsAGap(t *testing.T, config *rest.Config) {
	w := newWorld(t, config).inBothModes()
	s := w.newScene()
	freeze := s.failShort()
	s.signedOnly(s.trigger)
	w.modes = w.modes[:1]
	w.notary.unable = map[v1alpha1.SigningMode]error{keyless: attestor.ErrModeWithdrawn}
	for _, object := range []client.Object{s.trigger, freeze, s.ending} {
		s.seal(object)
	}
	w.record(s.incident, 1)
	s.release()
	w.record(s.incident, 2)
	for _, number := range []int32{1, 2} {
		record, gaps := w.checkRecord(s.incident, number), 0
		for _, gap := range record.Gaps {
			if gap.Reason == evidence.GapModeWithdrawn && strings.Contains(gap.Message, s.trigger.Name) {
				gaps++
			}
		}
		if gaps != 1 || len(record.CountersignedIn) != 0 {
			t.Errorf("record %d: gaps %+v, countersigned in %v", number, record.Gaps, record.CountersignedIn)
		}
	}
}

// recordKeepsItsPromise takes a mode away after the record, which names it, is stored.
func recordKeepsItsPromise(t *testing.T, config *rest.Config) {
	w := newWorld(t, config).inBothModes()
	s := w.playShort()
	w.notary.unable = map[v1alpha1.SigningMode]error{keyless: attestor.ErrModeWithdrawn}
	name := v1alpha1.CustodyBundleName(string(s.incident.UID), 1)
	for range 4 {
		if _, err := w.recordStep(s.incident, 1); err != nil {
			t.Logf("%v", err)
		}
	}
	var second v1alpha1.AttestationBundle
	w.get(client.ObjectKey{Name: w.beside(name)}, &second)
	signed := meta.FindStatusCondition(second.Status.Conditions, v1alpha1.ConditionSigned)
	if signed == nil || signed.Reason != v1alpha1.ReasonConfigInvalid || !strings.Contains(signed.Message, "configure its servers") {
		t.Errorf("condition %+v", signed)
	}
	if phase := w.recordBundle(s.incident, 1).Status.Phase; phase == v1alpha1.BundleSealed {
		t.Error("sealed without what the record promises")
	}
	w.notary.unable = nil
	w.record(s.incident, 1)
	w.get(client.ObjectKey{Name: w.beside(name)}, &second)
	if second.Status.Phase != v1alpha1.BundleSealed {
		t.Errorf("the second bundle is %s", second.Status.Phase)
	}
}
