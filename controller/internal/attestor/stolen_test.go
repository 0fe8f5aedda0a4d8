package attestor_test

import (
	"bytes"
	"context"
	"errors"
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

// plant puts a bundle, signed in a mode by whoever stole it, under the key of a first one.
func (w *world) plant(key string, mode v1alpha1.SigningMode, payload []byte) {
	w.t.Helper()
	envelope, _, err := w.notary.sign(mode, payload)
	if err != nil {
		w.t.Fatal(err)
	}
	bundle, err := w.notary.Publish(w.t.Context(), envelope)
	if err != nil {
		w.t.Fatal(err)
	}
	lock := worm.Lock{Mode: string(v1alpha1.LockCompliance), RetainUntil: w.clock.Now().AddDate(1, 0, 0)}
	if _, err := w.store.Put(w.t.Context(), key, bytes.NewReader(bundle), lock); err != nil {
		w.t.Fatal(err)
	}
}

// adoptsNoForgery has a thief of the first mode put a bundle first, whose subject is right and whose rest is not.
func adoptsNoForgery(t *testing.T, w *world) {
	w.inBothModes()
	for name, row := range map[string]struct {
		mode        v1alpha1.SigningMode
		forge       func([]byte) []byte
		message     string
		again, made bool
	}{
		"another time": {transit, func(p []byte) []byte { return bytes.Replace(p, []byte(`"createdAt":"2`), []byte(`"createdAt":"1`), 1) }, "delete marker", false, false},
		"another attestor": {transit, func(p []byte) []byte {
			return bytes.Replace(p, []byte("ugallu-attestor"), []byte("ugallu-another!"), 1)
		}, "delete marker", true, false},
		"the same, another moment": {transit, anotherMoment, "gave to the statement after it", false, false},
		"the same, other mode":     {keyless, func(p []byte) []byte { return p }, "not in mode openbao-transit", false, false},
		"its own, made by hand":    {transit, func(p []byte) []byte { return p }, "", true, true},
	} {
		event := w.newEvent()
		before := w.signedOnly(event)
		own := unpacked(t, before.Status.Staged).Payload
		forged := row.forge(bytes.Clone(own))
		if !row.made && row.mode == transit && bytes.Equal(forged, own) {
			t.Fatalf("%s: nothing is forged in %s", name, own)
		}
		w.plant(evidence.TriggerBundleKey(string(event.UID)), row.mode, forged)
		if row.again { // as after a deletion: nothing of the statement is remembered
			if err := w.base.Delete(t.Context(), before); err != nil {
				t.Fatal(err)
			}
		}
		w.tries(event)
		w.tries(event)
		bundle := w.bundle(event)
		sealed := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionSealed)
		if row.made {
			if bundle.Status.Phase != v1alpha1.BundleSealed || bundle.Status.StatementDigest != evidence.Digest(own) {
				t.Errorf("%s: %+v", name, bundle.Status)
			}
			continue
		}
		if sealed == nil || sealed.Reason != v1alpha1.ReasonBundleInvalid || !strings.Contains(sealed.Message, row.message) {
			t.Errorf("%s: %+v", name, sealed)
		}
		if bundle.Status.Object != nil || bundle.Status.StatementDigest == evidence.Digest(forged) && row.mode == transit {
			t.Errorf("%s is adopted: %+v", name, bundle.Status)
		}
		var beside v1alpha1.AttestationBundle
		if err := w.base.Get(t.Context(), client.ObjectKey{Name: w.beside(bundle.Name)}, &beside); client.IgnoreNotFound(err) != nil || err == nil {
			t.Errorf("%s is countersigned: %v", name, err)
		}
	}
}

// checkerRefusesOneModeTwice has the status claim the other order of modes than the bundles have.
func checkerRefusesOneModeTwice(t *testing.T, w *world) {
	event := w.newEvent()
	bundle := w.inBothModes().run(event)
	bundle.Status.SigningModes = []v1alpha1.SigningMode{keyless, transit}
	if err := w.base.Status().Update(t.Context(), bundle); err != nil {
		t.Fatal(err)
	}
	attested, err := w.checker().Attested(t.Context(), event)
	if attested || err == nil || !strings.Contains(err.Error(), "not in mode fulcio-keyless") {
		t.Errorf("%t, %v", attested, err)
	}
}

// deletedIsMadeAgain deletes a countersignature after its first bundle was sealed.
func deletedIsMadeAgain(t *testing.T, w *world) {
	event := w.newEvent()
	w.inBothModes().run(event)
	before := w.second(event)
	if err := w.base.Delete(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	w.tries(event)
	after := w.second(event)
	if after.UID == before.UID || after.Status.Object == nil || after.Status.Object.VersionID != before.Status.Object.VersionID {
		t.Errorf("before %+v, after %+v", before.Status, after.Status)
	}
	w.checkSealedInBoth(event)
	if attested, err := w.checker().Attested(t.Context(), event); !attested || err != nil {
		t.Errorf("%t, %v", attested, err)
	}
}

// waitsForItsFirst deletes the first bundle of a countersignature that is not signed.
func waitsForItsFirst(t *testing.T, w *world) {
	event := w.newEvent()
	w.inBothModes().notary.unable = map[v1alpha1.SigningMode]error{keyless: errors.New("away")}
	w.tries(event)
	if err := w.base.Delete(t.Context(), w.bundle(event)); err != nil {
		t.Fatal(err)
	}
	second := client.ObjectKeyFromObject(w.second(event))
	result, err := w.stages.Reconcile(t.Context(), ctrl.Request{NamespacedName: second})
	signed := meta.FindStatusCondition(w.second(event).Status.Conditions, v1alpha1.ConditionSigned)
	if err != nil || result.RequeueAfter == 0 || signed == nil || signed.Reason != v1alpha1.ReasonWaiting {
		t.Errorf("%+v, %v, condition %+v", result, err, signed)
	}
	w.notary.unable = nil
	w.run(event)
	w.checkSealedInBoth(event)
}

// refusesForeignObject finds another object under the name of the countersignature.
func refusesForeignObject(t *testing.T, w *world) {
	event := w.newEvent()
	w.inBothModes().signedOnly(event)
	bundle := w.bundle(event)
	foreign := &v1alpha1.AttestationBundle{ObjectMeta: metav1.ObjectMeta{Name: w.beside(bundle.Name)}, Spec: bundle.Spec}
	foreign.Spec.Countersigns = &v1alpha1.Countersigned{Name: bundle.Name, Mode: transit}
	w.create(foreign)
	if err := w.reconcile(event); err == nil {
		t.Error("no error: the queue would not try again")
	}
	sealed := meta.FindStatusCondition(w.bundle(event).Status.Conditions, v1alpha1.ConditionSealed)
	if sealed == nil || sealed.Reason != v1alpha1.ReasonBundleInvalid || !strings.Contains(sealed.Message, "then delete it") {
		t.Errorf("condition %+v", sealed)
	}
	if err := w.base.Delete(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	w.run(event)
	w.checkSealedInBoth(event)
}

// staysWithdrawn takes the second mode away after it signed, and gives it back after the first bundle was sealed without.
func staysWithdrawn(t *testing.T, w *world) {
	event := w.newEvent()
	w.inBothModes().notary.unable = map[v1alpha1.SigningMode]error{keyless: errors.New("away")}
	w.tries(event)
	w.notary.unable, w.notary.published = nil, attest.ErrDuplicate
	second := ctrl.Request{NamespacedName: client.ObjectKeyFromObject(w.second(event))}
	if _, err := w.stages.Reconcile(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	w.notary.unable = map[v1alpha1.SigningMode]error{keyless: attestor.ErrModeWithdrawn}
	w.tries(event)
	logged := meta.FindStatusCondition(w.second(event).Status.Conditions, v1alpha1.ConditionLogged)
	if logged == nil || logged.Reason != v1alpha1.ReasonModeWithdrawn || w.bundle(event).Status.Phase != v1alpha1.BundleSealed {
		t.Fatalf("condition %+v, first bundle %s", logged, w.bundle(event).Status.Phase)
	}
	w.notary.unable, w.notary.published = nil, nil
	w.tries(event)
	if stored := len(w.store.Objects()); w.second(event).Status.Phase == v1alpha1.BundleSealed || stored != 1 {
		t.Errorf("the second bundle is %s, %d stored", w.second(event).Status.Phase, stored)
	}
}

// forgetModes makes a bundle one of an earlier version, which recorded no modes.
func (w *world) forgetModes(bundle *v1alpha1.AttestationBundle) {
	w.t.Helper()
	bundle.Status.SigningModes = nil
	if err := w.base.Status().Update(w.t.Context(), bundle); err != nil {
		w.t.Fatal(err)
	}
}

// signedByEarlierVersion has the modes change with the version: nobody knows in which one it is signed.
func signedByEarlierVersion(t *testing.T, w *world) {
	event := w.newEvent()
	w.forgetModes(w.signedOnly(event))
	w.modes = []v1alpha1.SigningMode{keyless, transit}
	bundle := w.run(event)
	w.checkSealed(event)
	if attested, err := w.checker().Attested(t.Context(), event); !attested || err != nil || len(bundle.Status.SigningModes) != 0 {
		t.Errorf("%t, %v, modes %v", attested, err, bundle.Status.SigningModes)
	}
}

// recordOfEarlierVersion says nothing of a countersignature, and gets none.
func recordOfEarlierVersion(t *testing.T, config *rest.Config) {
	w := newWorld(t, config)
	s := w.playShort()
	there := w.stages.Store
	w.stages.Store = func(context.Context, string) (worm.Store, error) { return away{w.store}, nil }
	w.stages.Trust = func(context.Context) (map[string]string, error) { return map[string]string{}, nil }
	if _, err := w.recordStep(s.incident, 1); err == nil {
		t.Fatal("the store took it")
	}
	w.stages.Store = there
	bundle := w.recordBundle(s.incident, 1)
	if len(bundle.Status.Staged) == 0 {
		t.Fatalf("nothing is staged: %+v", bundle.Status)
	}
	w.forgetModes(bundle)
	after := w.inBothModes().record(s.incident, 1)
	if len(after.Status.SigningModes) != 1 || after.Status.SigningModes[0] != transit || len(w.records(s.incident, 1)) != 2 {
		t.Errorf("modes %v, stored %+v", after.Status.SigningModes, w.records(s.incident, 1))
	}
}

// recordKeepsItsFirstMode takes the first mode away after the record, which names the second, is stored.
func recordKeepsItsFirstMode(t *testing.T, config *rest.Config) {
	w := newWorld(t, config).inBothModes()
	s := w.playShort()
	w.notary.unable = map[v1alpha1.SigningMode]error{transit: attestor.ErrModeWithdrawn}
	if _, err := w.recordStep(s.incident, 1); err == nil {
		t.Error("no error: the queue would not try again")
	}
	w.modes = []v1alpha1.SigningMode{keyless}
	if _, err := w.recordStep(s.incident, 1); err == nil {
		t.Error("no error: the queue would not try again")
	}
	bundle := w.recordBundle(s.incident, 1)
	signed := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionSigned)
	if signed == nil || signed.Reason != v1alpha1.ReasonConfigInvalid || !strings.Contains(signed.Message, "mode openbao-transit") {
		t.Errorf("condition %+v", signed)
	}
	if modes := bundle.Status.SigningModes; len(modes) != 2 || modes[0] != transit || modes[1] != keyless {
		t.Errorf("modes %v", modes)
	}
	w.notary.unable = nil
	if after := w.record(s.incident, 1); after.Status.Signer != "key" || len(w.records(s.incident, 1)) != 3 {
		t.Errorf("status %+v, stored %+v", after.Status, w.records(s.incident, 1))
	}
}

// recordGoesOnAfterDeletion deletes a countersignature that a record is to list.
func recordGoesOnAfterDeletion(t *testing.T, config *rest.Config) {
	w := newWorld(t, config).inBothModes()
	s := w.playShort()
	if err := w.base.Delete(t.Context(), w.second(s.responses[0])); err != nil {
		t.Fatal(err)
	}
	w.waitsFor(s.incident, 1, v1alpha1.ReasonWaiting, "in mode fulcio-keyless")
	w.tries(s.responses[0]) // as the watch on the deleted bundle does
	w.record(s.incident, 1)
	w.checkRecord(s.incident, 1)
}
