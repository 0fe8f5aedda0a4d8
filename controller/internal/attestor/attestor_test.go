package attestor_test

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/apitest"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

// TestAttestor starts one API server for every case; each case makes its own objects.
func TestAttestor(t *testing.T) {
	config := apitest.Start(t)
	cases := map[string]func(*testing.T, *world){
		"an event is sealed once, wherever it crashed": nil,
		"both modes seal an event, wherever it crashed": func(t *testing.T, _ *world) {
			sealedOnceInBothModes(t, func(t *testing.T) *world { return newWorld(t, config) })
		},
		"one of two modes away is waited for and named": waitsForSecondMode,
		"modes are those of the first signature":        modesStay,
		"a mode that is withdrawn is dropped aloud":     dropsWithdrawn,
		"the first mode withdrawn is signed anew":       firstWithdrawn,
		"a bundle made again adopts both":               adoptsBoth,
		"a countersignature over something else":        refusesForeignCountersignature,
		"the checker wants every mode":                  checkerWantsEveryMode,
		"a stolen mode gets nothing countersigned":      adoptsNoForgery,
		"the checker wants the first mode first":        checkerRefusesOneModeTwice,
		"a deleted countersignature is made again":      deletedIsMadeAgain,
		"a countersignature waits for its first bundle": waitsForItsFirst,
		"a foreign object is no countersignature":       refusesForeignObject,
		"a mode that was withdrawn stays so":            staysWithdrawn,
		"what an earlier version signed goes on":        signedByEarlierVersion,
		"a response waits for the read-back":            waitsForReadBack,
		"a mismatch is signed as observed":              signsMismatch,
		"a response names its parent's statement":       namesParent,
		"a parent that is gone leaves the link empty":   parentGone,
		"a bundle made again adopts the stored one":     adoptsStored,
		"another object under the key is kept":          keepsForeignObject,
		"a stored bundle that goes too early is named":  namesShortRetention,
		"a signature nobody trusts now is replaced":     replacesUntrusted,
		"what somebody else staged is not signed":       refusesForeignStatement,
		"a bundle of a former trust says what to do":    saysFormerTrust,
		"a forged Forensic event is never attested":     neverAttestsForged,
		"an event that nobody names is seldom sought":   slowsDownForUnnamed,
		"an outage is recorded and ends":                outageEnds,
		"what a person must repair is said":             saysWhatToRepair,
		"a certificate that ran out is replaced":        replacesCertificate,
		"an event deleted before it was signed":         eventGone,
		"publishing leaves other fields alone":          leavesFieldsAlone,
		"the checker proves the stored bundle":          checkerProves,
		"the API server refuses a useless config":       refusesConfig,
	}
	for name, check := range cases {
		t.Run(name, func(t *testing.T) {
			if check == nil {
				sealedOnce(t, func(t *testing.T) *world { return newWorld(t, config) })
				return
			}
			check(t, newWorld(t, config))
		})
	}
}

func sealedOnce(t *testing.T, fresh func(*testing.T) *world) {
	smooth := fresh(t)
	smooth.run(smooth.newEvent())
	// Create, four stages, the log, the store's put and the event's status.
	if smooth.effects.count != 8 {
		t.Errorf("%d effects without a crash", smooth.effects.count)
	}
	for at := range smooth.effects.count {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("effect %d, answer lost %t", at, after), func(t *testing.T) {
				w := fresh(t)
				w.effects.at, w.effects.after = at, after
				event := w.newEvent()
				digest := ""
				for range 20 {
					settled := w.step(event)
					if at == 0 && !after && w.effects.count == 1 {
						continue // not even the bundle object exists
					}
					now := w.bundle(event).Status.StatementDigest
					if digest != "" && digest != now {
						t.Fatalf("statement changed from %s to %s", digest, now)
					}
					digest = now
					if settled {
						break
					}
				}
				w.checkSealed(event)
			})
		}
	}
}

// checkSealed compares the bundle object, the event and the store with one another.
func (w *world) checkSealed(event *v1alpha1.SecurityEvent) {
	w.t.Helper()
	bundle := w.bundle(event)
	objects := w.store.Objects()
	if bundle.Status.Phase != v1alpha1.BundleSealed || len(objects) != 1 || len(bundle.Status.Staged) != 0 {
		w.t.Fatalf("phase %s, %d objects stored, %d bytes staged", bundle.Status.Phase, len(objects), len(bundle.Status.Staged))
	}
	stored := objects[0]
	want := &v1alpha1.StoredObject{
		Key: "attestations/" + string(event.UID) + ".sigstore.json", VersionID: stored.VersionID, SHA256: stored.SHA256,
		Size: stored.Size, RetainUntil: metav1.NewTime(stored.Lock.RetainUntil),
	}
	if diff := cmp.Diff(want, bundle.Status.Object, cmp.Comparer(sameSecond)); diff != "" {
		w.t.Errorf("object (-stored +recorded):\n%s", diff)
	}
	if wanted := w.clock.Now().Add(31 * 24 * time.Hour).UTC().Truncate(time.Second); !stored.Lock.RetainUntil.Equal(wanted) ||
		stored.Lock.Mode != "GOVERNANCE" {
		w.t.Errorf("locked %s until %s, want GOVERNANCE until %s", stored.Lock.Mode, stored.Lock.RetainUntil, wanted)
	}
	verified, err := w.notary.Verify(w.content(stored))
	if err != nil {
		w.t.Fatal(err)
	}
	if evidence.Digest(verified.Payload) != bundle.Status.StatementDigest || *bundle.Status.LogIndex != verified.LogIndex {
		w.t.Errorf("status names statement %s at %d", bundle.Status.StatementDigest, *bundle.Status.LogIndex)
	}
	var after v1alpha1.SecurityEvent
	w.get(client.ObjectKeyFromObject(event), &after)
	wantStatus := v1alpha1.SecurityEventStatus{
		Phase: v1alpha1.EventAttested, StatementDigest: bundle.Status.StatementDigest,
		BundleRef: &v1alpha1.Ref{Name: bundle.Name, UID: string(bundle.UID)},
	}
	if diff := cmp.Diff(wantStatus, after.Status); diff != "" {
		w.t.Errorf("event (-want +got):\n%s", diff)
	}
}

func sameSecond(a, b metav1.Time) bool { return a.Unix() == b.Unix() }

func (w *world) content(object worm.Object) []byte {
	w.t.Helper()
	body, err := w.store.Open(w.t.Context(), object.Key, object.VersionID)
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		w.t.Fatal(err)
	}
	return data
}

// responsePredicate of the statement that the store holds under a bundle's key.
func (w *world) responsePredicate(bundle *v1alpha1.AttestationBundle) (evidence.EventResponsePredicate, []evidence.Subject) {
	w.t.Helper()
	object := bundle.Status.Object
	verified, err := w.notary.Verify(w.content(worm.Object{Key: object.Key, VersionID: object.VersionID}))
	if err != nil {
		w.t.Fatal(err)
	}
	var statement struct {
		Subject   []evidence.Subject              `json:"subject"`
		Predicate evidence.EventResponsePredicate `json:"predicate"`
	}
	if err := json.Unmarshal(verified.Payload, &statement); err != nil {
		w.t.Fatal(err)
	}
	return statement.Predicate, statement.Subject
}

func waitsForReadBack(t *testing.T, w *world) {
	incident := w.newIncident(w.newEvent())
	response := w.newResponse(incident, v1alpha1.StepSnapshot, nil)
	w.complete(response, map[string]string{"rootfs": "bytes"})
	for range 2 {
		if w.step(response) {
			t.Fatal("nothing left to do before the read-back")
		}
	}
	signed := meta.FindStatusCondition(w.bundle(response).Status.Conditions, v1alpha1.ConditionSigned)
	if signed == nil || signed.Reason != v1alpha1.ReasonWaiting || w.notary.signed != 0 {
		t.Fatalf("condition %+v, %d signatures", signed, w.notary.signed)
	}
	w.giveVerdict(response, metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, Message: "m"}, "bytes")
	bundle := w.run(response)
	wantKey := "forensics/" + incident.Name + "/bundles/" + bundle.Name + ".sigstore.json"
	stored := w.store.Objects()[0]
	retain := incident.Spec.Snapshot.Destination.RetainUntil
	if stored.Key != wantKey || stored.Lock.Mode != "COMPLIANCE" || stored.Lock.RetainUntil.Unix() != retain.Unix() {
		t.Errorf("stored %+v, want key %s", stored, wantKey)
	}
	predicate, subjects := w.responsePredicate(bundle)
	digest := evidence.Digest([]byte("bytes"))
	if len(subjects) != 2 || subjects[1].Digest["sha256"] != digest {
		t.Errorf("subjects %+v", subjects)
	}
	artifact := predicate.Artifacts[0]
	want := evidence.Asserted{By: "agent", Node: "worker", SHA256: digest}
	if artifact.Asserted != want || artifact.Observed.SHA256 != digest || artifact.Segments[0].ObservedSHA256 != digest {
		t.Errorf("artifact %+v, observed %+v", artifact, artifact.Observed)
	}
	if !predicate.ReadBack.Agrees || predicate.Attestor.Account != account {
		t.Errorf("read-back %+v, attestor %+v", predicate.ReadBack, predicate.Attestor)
	}
}

func signsMismatch(t *testing.T, w *world) {
	response := w.newResponse(w.newIncident(w.newEvent()), v1alpha1.StepSnapshot, nil)
	w.complete(response, map[string]string{"rootfs": "bytes"})
	w.step(response)
	w.giveVerdict(response, metav1.Condition{
		Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonDigestMismatch, Message: "names the key",
	}, "other")
	predicate, _ := w.responsePredicate(w.run(response))
	want := &evidence.ReadBack{By: "system:serviceaccount:ugallu-system-privileged:ugallu-forensics-snapshot", Message: "names the key"}
	if diff := cmp.Diff(want, predicate.ReadBack); diff != "" {
		t.Error(diff)
	}
	if artifact := predicate.Artifacts[0]; artifact.Observed.SHA256 != evidence.Digest([]byte("other")) ||
		artifact.Asserted.SHA256 != evidence.Digest([]byte("bytes")) {
		t.Errorf("artifact %+v, observed %+v", artifact, artifact.Observed)
	}
}

func namesParent(t *testing.T, w *world) {
	incident := w.newIncident(w.newEvent())
	parent := w.newResponse(incident, v1alpha1.StepFreeze, nil)
	child := w.newResponse(incident, v1alpha1.StepSnapshot, parent)
	w.complete(child, nil)
	for range 3 {
		if w.step(child) {
			t.Fatal("signed before its parent")
		}
	}
	w.complete(parent, nil)
	first := w.run(parent)
	predicate, _ := w.responsePredicate(w.run(child))
	if predicate.Previous != first.Status.StatementDigest || predicate.Previous == "" {
		t.Errorf("previous %q, parent's statement %q", predicate.Previous, first.Status.StatementDigest)
	}
	if before, _ := w.responsePredicate(first); before.Previous != "" || before.ReadBack != nil {
		t.Errorf("first statement has previous %q, read-back %+v", before.Previous, before.ReadBack)
	}
}

func parentGone(t *testing.T, w *world) {
	incident := w.newIncident(w.newEvent())
	parent := w.newResponse(incident, v1alpha1.StepFreeze, nil)
	child := w.newResponse(incident, v1alpha1.StepSnapshot, parent)
	w.complete(child, nil)
	if err := w.base.Delete(t.Context(), parent); err != nil {
		t.Fatal(err)
	}
	if predicate, _ := w.responsePredicate(w.run(child)); predicate.Previous != "" {
		t.Errorf("previous %q", predicate.Previous)
	}
}

func adoptsStored(t *testing.T, w *world) {
	event := w.newEvent()
	first := w.run(event)
	if err := w.base.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	w.clock.SetTime(w.clock.Now().Add(time.Minute))
	second := w.run(event)
	if diff := cmp.Diff(first.Status.Object, second.Status.Object); diff != "" || len(w.store.Objects()) != 1 {
		t.Errorf("%d objects; (-first +second):\n%s", len(w.store.Objects()), diff)
	}
	if first.Status.StatementDigest != second.Status.StatementDigest || *first.Status.LogIndex != *second.Status.LogIndex {
		t.Errorf("statement %s became %s", first.Status.StatementDigest, second.Status.StatementDigest)
	}
}

func keepsForeignObject(t *testing.T, w *world) {
	event := w.newEvent()
	lock := worm.Lock{Mode: "COMPLIANCE", RetainUntil: time.Now().Add(time.Hour)}
	key := "attestations/" + string(event.UID) + ".sigstore.json"
	if _, err := w.store.Put(t.Context(), key, strings.NewReader(`{"foreign":true}`), lock); err != nil {
		t.Fatal(err)
	}
	w.expectFailure(event, v1alpha1.ConditionSealed, v1alpha1.ReasonBundleInvalid)
	if bundle := w.bundle(event); bundle.Status.Object != nil || len(bundle.Status.Staged) == 0 {
		t.Errorf("status %+v", bundle.Status)
	}
}

// expectFailure reconciles until the failure that is expected is recorded.
func (w *world) expectFailure(object client.Object, condition, reason string) {
	w.t.Helper()
	if err := w.announce(object); err != nil {
		w.t.Fatal(err)
	}
	name := client.ObjectKey{Name: v1alpha1.BundleName(string(object.GetUID()))}
	if _, err := w.stages.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: name}); err == nil {
		w.t.Fatal("no error: the queue would not try again")
	}
	bundle := w.bundle(object)
	got := meta.FindStatusCondition(bundle.Status.Conditions, condition)
	if got == nil || got.Status != metav1.ConditionFalse || got.Reason != reason || got.Message == "" {
		w.t.Fatalf("condition %s is %+v, want reason %s", condition, got, reason)
	}
	if bundle.Status.Phase != v1alpha1.BundleFailed {
		w.t.Errorf("phase %s", bundle.Status.Phase)
	}
}

func outageEnds(t *testing.T, w *world) {
	event := w.newEvent()
	w.notary.fail = errors.New("connection refused")
	w.expectFailure(event, v1alpha1.ConditionSigned, v1alpha1.ReasonSignerUnavailable)
	w.notary.fail = fmt.Errorf("key: %w", attest.ErrUnknownKey)
	w.expectFailure(event, v1alpha1.ConditionSigned, v1alpha1.ReasonKeyNotTrusted)
	w.notary.fail = nil
	w.run(event)
	w.checkSealed(event)

	response := w.newEvent()
	w.effects.at = w.effects.count + 3 // the log, after the bundle object, the read-back and the signature
	w.expectFailure(response, v1alpha1.ConditionLogged, v1alpha1.ReasonLogUnavailable)
	w.run(response)
	another := w.newEvent()
	w.effects.at = w.effects.count + 5 // the store
	w.expectFailure(another, v1alpha1.ConditionSealed, v1alpha1.ReasonStoreUnreachable)
	if bundle := w.run(another); bundle.Status.Phase != v1alpha1.BundleSealed {
		t.Errorf("phase %s", bundle.Status.Phase)
	}
}

func saysWhatToRepair(t *testing.T, w *world) {
	event := w.newEvent()
	for _, err := range []error{attest.ErrToken, attest.ErrRefused, attest.ErrClock, x509.UnknownAuthorityError{}} {
		w.notary.fail = fmt.Errorf("get certificate: %w", err)
		w.expectFailure(event, v1alpha1.ConditionSigned, v1alpha1.ReasonConfigInvalid)
	}
	if w.notary.signed != 0 || len(w.store.Objects()) != 0 || len(w.bundle(event).Status.Staged) != 0 {
		t.Error("something was signed or stored")
	}
	w.notary.fail = nil
	w.run(event)
	w.checkSealed(event)
}

func replacesCertificate(t *testing.T, w *world) {
	event := w.newEvent()
	w.notary.expired = 2
	w.run(event)
	w.checkSealed(event)
	if w.notary.signed != 3 || len(w.notary.logged) != 1 {
		t.Errorf("%d signatures, %d log entries", w.notary.signed, len(w.notary.logged))
	}
}

func eventGone(t *testing.T, w *world) {
	event := w.newEvent()
	w.notary.fail = errors.New("connection refused")
	w.expectFailure(event, v1alpha1.ConditionSigned, v1alpha1.ReasonSignerUnavailable)
	if err := w.base.Delete(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	name := client.ObjectKey{Name: v1alpha1.BundleName(string(event.UID))}
	result, err := w.stages.Reconcile(t.Context(), ctrl.Request{NamespacedName: name})
	if err != nil || result.RequeueAfter != 0 {
		t.Errorf("tried again: %+v, %v", result, err)
	}
	signed := meta.FindStatusCondition(w.bundle(event).Status.Conditions, v1alpha1.ConditionSigned)
	if signed.Reason != v1alpha1.ReasonSubjectGone {
		t.Errorf("condition %+v", signed)
	}
}

func leavesFieldsAlone(t *testing.T, w *world) {
	event := w.newEvent()
	event.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionMatched, Status: metav1.ConditionFalse, Reason: "NotAttested", LastTransitionTime: metav1.Now(),
	}}
	if err := w.base.Status().Update(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	w.run(event)
	var after v1alpha1.SecurityEvent
	w.get(client.ObjectKeyFromObject(event), &after)
	if len(after.Status.Conditions) != 1 || after.Status.Phase != v1alpha1.EventAttested {
		t.Errorf("status %+v", after.Status)
	}
}
