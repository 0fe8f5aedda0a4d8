package attestor_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

// signedOnly has an object's statement signed while the log does not answer.
func (w *world) signedOnly(object client.Object) *v1alpha1.AttestationBundle {
	w.t.Helper()
	w.notary.published = errors.New("connection refused")
	w.expectFailure(object, v1alpha1.ConditionLogged, v1alpha1.ReasonLogUnavailable)
	w.notary.published = nil
	return w.bundle(object)
}

// reconcile takes an object's bundle as far as it goes.
func (w *world) reconcile(object client.Object) error {
	w.t.Helper()
	name := client.ObjectKey{Name: v1alpha1.BundleName(string(object.GetUID()))}
	_, err := w.stages.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: name})
	return err
}

func replacesUntrusted(t *testing.T, w *world) {
	event := w.newEvent()
	before := w.signedOnly(event)
	w.notary.distrusted = w.notary.signed // everything that was signed so far
	after := w.run(event)
	if after.Status.StatementDigest != before.Status.StatementDigest || w.notary.signed != 2 {
		t.Errorf("statement %s became %s after %d signatures", before.Status.StatementDigest, after.Status.StatementDigest, w.notary.signed)
	}
	w.checkSealed(event)
}

// refusesForeignStatement stages another statement, with its digest, as whoever may write the status could.
func refusesForeignStatement(t *testing.T, w *world) {
	event := w.newEvent()
	bundle := w.signedOnly(event)
	payload := bytes.Replace(unpacked(t, bundle.Status.Staged).Payload, []byte("HoneypotTriggered"), []byte("NothingHappened!!"), 1)
	envelope, err := json.Marshal(attest.Envelope{
		PayloadType: evidence.PayloadType, Payload: payload, Signatures: []attest.EnvelopeSignature{{KeyID: "id", Sig: []byte("1")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	bundle.Status.Staged, bundle.Status.StatementDigest = packed(t, envelope), evidence.Digest(payload)
	if err := w.base.Status().Update(t.Context(), bundle); err != nil {
		t.Fatal(err)
	}
	w.notary.distrusted = w.notary.signed
	signed := w.notary.signed
	if err := w.reconcile(event); err == nil {
		t.Error("no error: the queue would not try again")
	}
	logged := meta.FindStatusCondition(w.bundle(event).Status.Conditions, v1alpha1.ConditionLogged)
	if w.notary.signed != signed || logged.Reason != v1alpha1.ReasonKeyNotTrusted || !strings.Contains(logged.Message, "trusted-root ConfigMap") {
		t.Errorf("%d signatures, condition %+v", w.notary.signed-signed, logged)
	}
	if stored := w.store.Objects(); len(stored) > 0 {
		t.Errorf("stored %+v", stored)
	}
}

// saysFormerTrust has the log exchanged between the entry and the seal.
func saysFormerTrust(t *testing.T, w *world) {
	event := w.newEvent()
	there := w.stages.Store
	w.stages.Store = func(context.Context, string) (worm.Store, error) { return away{w.store}, nil }
	w.expectFailure(event, v1alpha1.ConditionSealed, v1alpha1.ReasonStoreUnreachable)
	w.stages.Store = there
	w.notary.forgetEntries = true
	w.expectFailure(event, v1alpha1.ConditionSealed, v1alpha1.ReasonBundleInvalid)
	sealed := meta.FindStatusCondition(w.bundle(event).Status.Conditions, v1alpha1.ConditionSealed)
	if !strings.Contains(sealed.Message, "former log, authority, key or identity back into the trusted-root ConfigMap") {
		t.Errorf("message %q", sealed.Message)
	}
	if stored := w.store.Objects(); len(stored) > 0 {
		t.Errorf("stored %+v", stored)
	}
	w.notary.forgetEntries = false
	w.run(event)
	w.checkSealed(event)
}

func unpacked(t *testing.T, staged []byte) attest.Envelope {
	t.Helper()
	reader, err := gzip.NewReader(bytes.NewReader(staged))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := attest.ParseEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func packed(t *testing.T, data []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	if _, err := writer.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// neverAttestsForged has an outsider who got past admission create an event of class Forensic, and set its phase by hand.
func neverAttestsForged(t *testing.T, w *world) {
	s := w.playShort()
	signed := w.notary.signed
	forged := s.ending.DeepCopy()
	forged.Name, forged.ResourceVersion, forged.UID = "se-"+s.incident.Name+"-completed", "", ""
	forged.Spec.Type = v1alpha1.EventCaptureCompleted
	forged.Spec.Evidence = &v1alpha1.EvidenceRef{
		URL: "s3://evidence/forged", SHA256: evidence.Digest(nil), VersionID: "1", Size: 1, MediaType: evidence.MediaTypeManifest,
	}
	w.create(forged)
	forged.Status.Phase = v1alpha1.EventAttested
	if err := w.base.Status().Update(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	if !w.step(forged) {
		t.Error("it is looked at again, though its incident names another event")
	}
	bundle := w.bundle(forged)
	condition := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionSigned)
	if w.notary.signed != signed || bundle.Status.Object != nil || condition.Reason != v1alpha1.ReasonSubjectGone ||
		!strings.Contains(condition.Message, s.incident.Name) || !strings.Contains(condition.Message, s.ending.Name) {
		t.Errorf("%d signatures, condition %+v", w.notary.signed-signed, condition)
	}
	if attested, err := w.checker().Attested(t.Context(), forged); err != nil || attested {
		t.Errorf("attested %t: %v", attested, err)
	}
	forged = forged.DeepCopy()
	forged.Name, forged.ResourceVersion, forged.UID = "se-0123456789abcdef-completed", "", ""
	forged.Spec.Incident.UID = "of-no-incident"
	w.create(forged)
	w.goneForGood(forged)
}

func slowsDownForUnnamed(t *testing.T, w *world) {
	s := w.newScene()
	s.end(v1alpha1.EventCaptureFailed, nil)
	s.seal(s.trigger)
	s.update(func(status *v1alpha1.IncidentStatus) { status.CompletionEvent = nil })
	if err := w.announce(s.ending); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ age, again time.Duration }{{time.Second, 500 * time.Millisecond}, {time.Minute, 30 * time.Second}} {
		w.clock.SetTime(s.ending.CreationTimestamp.Add(tt.age))
		name := client.ObjectKey{Name: v1alpha1.BundleName(string(s.ending.UID))}
		result, err := w.stages.Reconcile(t.Context(), ctrl.Request{NamespacedName: name})
		if err != nil || result.RequeueAfter != tt.again {
			t.Errorf("at the age of %s it is looked at again after %s (%v), want %s", tt.age, result.RequeueAfter, err, tt.again)
		}
	}
	condition := meta.FindStatusCondition(w.bundle(s.ending).Status.Conditions, v1alpha1.ConditionSigned)
	if condition.Reason != v1alpha1.ReasonWaiting || !strings.Contains(condition.Message, s.incident.Name) {
		t.Errorf("condition %+v", condition)
	}
}

func namesShortRetention(t *testing.T, w *world) {
	response := func() client.Object {
		made := w.newResponse(w.newIncident(w.newEvent()), v1alpha1.StepFreeze, nil)
		w.complete(made, nil)
		return made
	}
	for name, tt := range map[string]struct {
		object client.Object
		change func(*worm.Lock)
	}{
		"an event's, shorter":   {w.newEvent(), func(l *worm.Lock) { l.RetainUntil = l.RetainUntil.Add(-48 * time.Hour) }},
		"a response's, shorter": {response(), func(l *worm.Lock) { l.RetainUntil = l.RetainUntil.Add(-time.Minute) }},
		"a response's, weaker":  {response(), func(l *worm.Lock) { l.Mode = "GOVERNANCE" }},
	} {
		t.Run(name, func(t *testing.T) {
			stored := w.storedAs(w.run(tt.object), tt.change)
			w.expectFailure(tt.object, v1alpha1.ConditionSealed, v1alpha1.ReasonStoreNotLocked)
			bundle := w.bundle(tt.object)
			sealed := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionSealed)
			for _, part := range []string{stored.Key, stored.VersionID, "extend the retention"} {
				if !strings.Contains(sealed.Message, part) {
					t.Errorf("%q does not say %q", sealed.Message, part)
				}
			}
			if bundle.Status.Object != nil {
				t.Errorf("object %+v", bundle.Status.Object)
			}
		})
	}
	t.Run("longer and firmer is sealed", func(t *testing.T) {
		event := w.newEvent()
		stored := w.storedAs(w.run(event), func(l *worm.Lock) {
			l.Mode, l.RetainUntil = "COMPLIANCE", l.RetainUntil.Add(time.Hour)
		})
		if object := w.run(event).Status.Object; object.VersionID != stored.VersionID {
			t.Errorf("object %+v", object)
		}
	})
}

// storedAs has the bundle object made again over a store that kept the bundle under another lock.
func (w *world) storedAs(bundle *v1alpha1.AttestationBundle, change func(*worm.Lock)) worm.Object {
	w.t.Helper()
	before := w.store.Objects()
	kept := before[len(before)-1]
	content := w.content(kept)
	change(&kept.Lock)
	w.store = worm.NewMemory()
	stored, err := w.store.Put(w.t.Context(), kept.Key, bytes.NewReader(content), kept.Lock)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.base.Delete(w.t.Context(), bundle); err != nil {
		w.t.Fatal(err)
	}
	w.restart()
	return stored
}
