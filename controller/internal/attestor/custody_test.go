package attestor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	settings "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/attestor"
	"ugallu.io/forensics/internal/apitest"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
	"ugallu.io/forensics/internal/worm"
)

// TestCustody starts one API server for every case; each case makes its own incident.
func TestCustody(t *testing.T) {
	config := apitest.Start(t)
	evidenceConfig(t, config)
	cases := map[string]func(*testing.T, *rest.Config){
		"a whole incident verifies":                        wholeVerifies,
		"a whole incident verifies in both modes":          wholeVerifiesInBothModes,
		"the controllers wake one another in both modes":   wakeInBothModes,
		"a record in both modes is made once":              recordedOnceInBothModes,
		"a mode that is withdrawn is a gap of the record":  withdrawnIsAGap,
		"what a record promises is waited for":             recordKeepsItsPromise,
		"a record keeps its first mode":                    recordKeepsItsFirstMode,
		"a record of an earlier version has one mode":      recordOfEarlierVersion,
		"a deleted countersignature holds up no record":    recordGoesOnAfterDeletion,
		"a capture that failed verifies":                   failedVerifies,
		"each of two incidents on one pod has its own":     twoOnOnePod,
		"a record is stored once, wherever it crashed":     recordedOnce,
		"a release does not wait, and is not in the first": releasedBefore,
		"what is not sealed is waited for and named":       waitsForSeal,
		"what is gone is named":                            namesWhatIsGone,
		"a trigger that went unsigned is named":            namesUnsignedTrigger,
		"a record on the incident is not made again":       notMadeAgain,
		"a record that changed in the store is not signed": refusesChangedRecord,
		"a record that nobody can read is not stored":      refusesUnreadableRecord,
		"the end names the statement before it":            endNamesBefore,
		"a digest that was given on stays":                 keepsItsDigest,
		"what is stored is the statement from the start":   takesWhatIsStored,
		"a parent made again is the same to its child":     madeAgainUnderChild,
		"a child waits for a digest that is open":          waitsForOpenDigest,
		"a child waits until what is foreign is hidden":    waitsForForeignToGo,
		"no record is made of a broken chain":              refusesBrokenChain,
		"no record is made of what was not sealed":         refusesExchanged,
		"records go on when a key is not trusted any more": goesOnWithoutFormerKey,
		"a response that nobody ordered is never attested": neverAttestsUnordered,
		"a response made in place of another is neither":   neverAttestsReplaced,
		"an incident that the cache lacks is waited for":   waitsForCache,
		"a subject that the cache lacks is signed":         signsWhatTheCacheLacks,
		"a bundle that the cache lacks is waited for":      waitsForBundleTheCacheLacks,
		"what went before it was signed stays unsigned":    deletedTooEarly,
		"an incident deleted before the seal":              deletedBeforeSeal,
		"what lies under a key of trust is named":          saysWhatLiesUnderTrust,
		"a bucket without lock is no outage":               saysThatNothingIsLocked,
		"statements follow the published schemas":          followSchemas,
		"an outage of the store is recorded and ends":      storeOutage,
		"the API server refuses a useless bundle":          refusesUselessBundle,
		"the controllers wake one another":                 wakeOneAnother,
	}
	for name, check := range cases {
		t.Run(name, func(t *testing.T) { check(t, config) })
	}
}

// evidenceConfig locks triggers as firmly as incidents.
func evidenceConfig(t *testing.T, config *rest.Config) {
	t.Helper()
	w := newWorld(t, config)
	w.create(&v1alpha1.ForensicsConfig{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SingletonName},
		Spec:       v1alpha1.ForensicsConfigSpec{Evidence: v1alpha1.EvidenceConfig{ObjectLock: v1alpha1.LockCompliance}},
	})
}

// records of an incident in the store, by the number in their key.
func (w *world) records(incident *v1alpha1.Incident, number int32) (found []worm.Object) {
	for _, object := range w.store.Objects() {
		if strings.HasPrefix(object.Key, fmt.Sprintf("%s/custody-%d-", v1alpha1.EvidencePrefix(incident.Name), number)) {
			found = append(found, object)
		}
	}
	return found
}

// record drives one custody record until its bundle is sealed.
func (w *world) record(incident *v1alpha1.Incident, number int32) *v1alpha1.AttestationBundle {
	w.t.Helper()
	for range 30 {
		result, err := w.recordStep(incident, number)
		if errors.Is(err, errCrash) {
			w.restart()
			continue
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if result.RequeueAfter == 0 {
			return w.recordBundle(incident, number)
		}
	}
	w.t.Fatalf("record %d does not settle: %+v", number, w.recordBundle(incident, number).Status)
	return nil
}

func (w *world) recordStep(incident *v1alpha1.Incident, number int32) (ctrl.Result, error) {
	if _, err := w.announcer.ReconcileIncident(w.t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(incident)}); err != nil {
		return ctrl.Result{}, err
	}
	return w.drive(v1alpha1.CustodyBundleName(string(incident.UID), number))
}

func (w *world) recordBundle(incident *v1alpha1.Incident, number int32) *v1alpha1.AttestationBundle {
	w.t.Helper()
	var bundle v1alpha1.AttestationBundle
	w.get(client.ObjectKey{Name: v1alpha1.CustodyBundleName(string(incident.UID), number)}, &bundle)
	return &bundle
}

// waitsFor demands that a record waits, or failed, and says for what.
func (w *world) waitsFor(incident *v1alpha1.Incident, number int32, reason, names string) {
	w.t.Helper()
	_, err := w.recordStep(incident, number)
	if (err == nil) != (reason == v1alpha1.ReasonWaiting) {
		w.t.Errorf("reconcile: %v", err)
	}
	signed := meta.FindStatusCondition(w.recordBundle(incident, number).Status.Conditions, v1alpha1.ConditionSigned)
	if signed == nil || signed.Reason != reason || !strings.Contains(signed.Message, names) {
		w.t.Errorf("condition %+v, want %s that names %q", signed, reason, names)
	}
	if stored := w.records(incident, number); len(stored) > 0 {
		w.t.Errorf("stored %+v", stored)
	}
}

// checkRecord compares a sealed record with the store: one record, one bundle over it, the trust of one moment.
func (w *world) checkRecord(incident *v1alpha1.Incident, number int32) evidence.Custody {
	w.t.Helper()
	bundle := w.recordBundle(incident, number)
	if bundle.Status.Phase != v1alpha1.BundleSealed || len(bundle.Status.Staged) != 0 || bundle.Status.Record == nil {
		w.t.Fatalf("record %d: %+v", number, bundle.Status)
	}
	kept := bundle.Status.Record
	over := evidence.CustodyBundleKey(kept.Key)
	keys := []string{kept.Key, over}
	for _, mode := range bundle.Status.SigningModes[1:] {
		keys = append(keys, evidence.CountersignatureKey(over, string(mode)))
	}
	slices.Sort(keys)
	var found []string
	for _, object := range w.records(incident, number) {
		found = append(found, object.Key)
		slices.Sort(found)
		if !object.Lock.RetainUntil.Equal(incident.Spec.Snapshot.Destination.RetainUntil.Time) || object.Lock.Mode != "COMPLIANCE" {
			w.t.Errorf("%s is locked %+v", object.Key, object.Lock)
		}
	}
	if diff := cmp.Diff(keys, found); diff != "" || bundle.Status.Object.Key != over || kept.Index != number {
		w.t.Errorf("stored of record %d (-recorded +stored):\n%s", number, diff)
	}
	var record evidence.Custody
	if err := json.Unmarshal(w.content(worm.Object{Key: kept.Key, VersionID: kept.VersionID}), &record); err != nil {
		w.t.Fatal(err)
	}
	folders := map[string]int{}
	for _, object := range record.Objects {
		if object.Role == evidence.RoleTrust {
			folders[path.Dir(object.Key)]++
		}
	}
	if want := len(w.trust()) * int(number); len(folders) == 0 || len(folders) > int(number) || sum(folders) > want {
		w.t.Errorf("trust on record: %v", folders)
	}
	return record
}

func sum(counts map[string]int) (total int) {
	for count := range maps.Values(counts) {
		total += count
	}
	return total
}

func recordedOnce(t *testing.T, config *rest.Config) {
	run := func(t *testing.T, at int) (*world, int) {
		w := newWorld(t, config)
		s := w.playShort()
		s.release()
		before := w.notary.signed
		*w.effects = effects{at: at, after: true}
		for _, number := range []int32{1, 2} {
			w.record(s.incident, number)
		}
		first, second := w.checkRecord(s.incident, 1), w.checkRecord(s.incident, 2)
		if second.Previous == nil || second.Previous.SHA256 != w.recordBundle(s.incident, 1).Status.Record.SHA256 ||
			len(second.Statements) != len(first.Statements)+2 {
			t.Errorf("record 2: %+v", second)
		}
		return w, w.notary.signed - before
	}
	smooth, signed := run(t, -1)
	// Each record: its object, two entries of trust, the record, the bundle, the log, and six patches.
	if smooth.effects.count != 24 || signed != 2 {
		t.Errorf("%d effects and %d signatures without a crash", smooth.effects.count, signed)
	}
	for at := range smooth.effects.count {
		t.Run(fmt.Sprintf("after effect %d", at), func(t *testing.T) {
			if _, signed := run(t, at); signed > 3 {
				t.Errorf("%d signatures for two records", signed)
			}
		})
	}
}

func releasedBefore(t *testing.T, config *rest.Config) {
	w := newWorld(t, config)
	s := w.play(v1alpha1.EventCaptureCompleted)
	s.release()
	w.waitsFor(s.incident, 2, v1alpha1.ReasonWaiting, "custody-1")
	w.record(s.incident, 1)
	first := w.checkRecord(s.incident, 1)
	for _, statement := range first.Statements {
		if statement.Step == string(v1alpha1.StepUnfreeze) {
			t.Errorf("the first record lists %+v", statement)
		}
	}
	w.record(s.incident, 2)
	steps := []string{}
	for _, statement := range w.checkRecord(s.incident, 2).Statements {
		steps = append(steps, string(statement.Kind)+statement.Step)
	}
	want := []string{
		"SecurityEvent", "EventResponsepodfreeze", "EventResponsefilesystem-snapshot", "EventResponseevidence-upload", "SecurityEvent",
		"Incident", "EventResponsepodunfreeze",
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("statements (-want +got):\n%s", diff)
	}
}

func waitsForSeal(t *testing.T, config *rest.Config) {
	w := newWorld(t, config)
	s := w.newScene()
	freeze := s.failShort()
	w.run(s.trigger)
	w.waitsFor(s.incident, 1, v1alpha1.ReasonWaiting, freeze.Name)
	s.seal(freeze)
	w.waitsFor(s.incident, 1, v1alpha1.ReasonWaiting, s.ending.Name)
	if number := len(s.due()); number != 1 {
		t.Errorf("%d bundles of records while the pod is held, want 1", number)
	}
	s.seal(s.ending)
	w.record(s.incident, 1)
	w.checkRecord(s.incident, 1)
}

func namesWhatIsGone(t *testing.T, config *rest.Config) {
	w := newWorld(t, config)
	s := w.play(v1alpha1.EventCaptureCompleted)
	snapshot := s.responses[1]
	if err := w.base.Delete(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
	w.waitsFor(s.incident, 1, v1alpha1.ReasonSubjectGone, snapshot.Name)
}

func namesUnsignedTrigger(t *testing.T, config *rest.Config) {
	w := newWorld(t, config)
	s := w.newScene()
	s.end(v1alpha1.EventCaptureFailed, nil)
	w.notary.fail = errors.New("connection refused")
	w.expectFailure(s.trigger, v1alpha1.ConditionSigned, v1alpha1.ReasonSignerUnavailable)
	if err := w.base.Delete(t.Context(), s.trigger); err != nil {
		t.Fatal(err)
	}
	w.notary.fail = nil
	if err := w.reconcile(s.trigger); err != nil {
		t.Fatal(err)
	}
	s.seal(s.ending)
	if got := w.eventPredicate(s.ending).Previous; got != "" {
		t.Errorf("the end names %q as the statement before it", got)
	}
	w.waitsFor(s.incident, 1, v1alpha1.ReasonSubjectGone, s.trigger.Name)
}

func notMadeAgain(t *testing.T, config *rest.Config) {
	w := newWorld(t, config)
	s := w.play(v1alpha1.EventCaptureCompleted)
	bundle := w.record(s.incident, 1)
	s.update(func(status *v1alpha1.IncidentStatus) { status.Custody = []v1alpha1.StoredObject{*bundle.Status.Record} })
	if err := w.base.Delete(t.Context(), bundle); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if _, err := w.recordStep(s.incident, 1); err != nil {
		t.Fatal(err)
	}
	if due := s.due(); len(due) > 0 {
		t.Errorf("announced again: %v", due)
	}
}

// forgetful is a store that gives other bytes back than it took.
type forgetful struct{ worm.Store }

func (f forgetful) Open(ctx context.Context, key, versionID string) (io.ReadCloser, error) {
	body, err := f.Store.Open(ctx, key, versionID)
	if err != nil || !strings.Contains(key, "/custody-1-") {
		return body, err
	}
	return io.NopCloser(strings.NewReader("{}")), body.Close()
}

func refusesChangedRecord(t *testing.T, config *rest.Config) {
	w := newWorld(t, config)
	s := w.play(v1alpha1.EventCaptureCompleted)
	honest := w.stages.Store
	w.stages.Store = func(ctx context.Context, bucket string) (worm.Store, error) {
		store, err := honest(ctx, bucket)
		return forgetful{store}, err
	}
	before := w.notary.signed
	if _, err := w.recordStep(s.incident, 1); err == nil {
		t.Error("no error")
	}
	signed := meta.FindStatusCondition(w.recordBundle(s.incident, 1).Status.Conditions, v1alpha1.ConditionSigned)
	if signed.Reason != v1alpha1.ReasonDigestMismatch || w.notary.signed != before {
		t.Errorf("%d signatures, condition %+v", w.notary.signed-before, signed)
	}
	w.stages.Store = honest
	w.record(s.incident, 1)
	w.checkRecord(s.incident, 1)
}

func storeOutage(t *testing.T, config *rest.Config) {
	w := newWorld(t, config)
	s := w.play(v1alpha1.EventCaptureCompleted)
	there := w.stages.Store
	w.stages.Store = func(context.Context, string) (worm.Store, error) { return away{w.store}, nil }
	w.waitsFor(s.incident, 1, v1alpha1.ReasonStoreUnreachable, "away")
	w.stages.Store = there
	w.record(s.incident, 1)
	w.checkRecord(s.incident, 1)
}

// away is a store that nothing can be put to.
type away struct{ *worm.Memory }

func (away) Put(context.Context, string, io.Reader, worm.Lock) (worm.Object, error) {
	return worm.Object{}, fmt.Errorf("the store is away: %w", worm.ErrUnavailable)
}

func refusesUselessBundle(t *testing.T, config *rest.Config) {
	w := newWorld(t, config)
	bundle := func(kind v1alpha1.AttestedKind, number int32) *v1alpha1.AttestationBundle {
		return &v1alpha1.AttestationBundle{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "useless-"},
			Spec: v1alpha1.AttestationBundleSpec{
				AttestedFor: v1alpha1.AttestedFor{Kind: kind, Ref: v1alpha1.Ref{Name: "n", UID: "u"}}, Number: number,
			},
		}
	}
	for name, useless := range map[string]*v1alpha1.AttestationBundle{
		"number is required for kind Incident": bundle(v1alpha1.AttestedIncident, 0),
		"and forbidden otherwise":              bundle(v1alpha1.AttestedSecurityEvent, 1),
		"spec.number":                          bundle(v1alpha1.AttestedIncident, 3),
	} {
		if err := w.base.Create(t.Context(), useless); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want a refusal that says %q: %v", name, err)
		}
	}
	s := w.play(v1alpha1.EventCaptureCompleted)
	recorded := w.record(s.incident, 1)
	recorded.Status.Record.VersionID = "another"
	if err := w.base.Status().Update(t.Context(), recorded); err == nil || !strings.Contains(err.Error(), "the first record stored wins") {
		t.Errorf("another record: %v", err)
	}
}

// wakeOneAnother runs the controllers as they are set up. The second look comes later than the test waits.
func wakeOneAnother(t *testing.T, config *rest.Config) { wakeEachOther(t, config, newWorld(t, config)) }

func wakeEachOther(t *testing.T, config *rest.Config, w *world) {
	t.Helper()
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: newScheme(t), Metrics: metricsserver.Options{BindAddress: "0"}, Controller: settings.Controller{SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.announcer.Client, w.stages.Client = mgr.GetClient(), mgr.GetClient()
	if err := errors.Join(w.announcer.SetupWithManager(mgr), w.stages.SetupWithManager(mgr)); err != nil {
		t.Fatal(err)
	}
	s := w.newScene()
	s.failShort()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	w.awaitRecord(s.incident, 1)
	s.free()
	w.awaitRecord(s.incident, 2)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func (w *world) awaitRecord(incident *v1alpha1.Incident, number int32) {
	w.t.Helper()
	bundle := &v1alpha1.AttestationBundle{}
	name := client.ObjectKey{Name: v1alpha1.CustodyBundleName(string(incident.UID), number)}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		err := w.base.Get(w.t.Context(), name, bundle)
		if client.IgnoreNotFound(err) != nil {
			w.t.Fatal(err)
		}
		if bundle.Status.Phase == v1alpha1.BundleSealed {
			return
		}
	}
	w.t.Fatalf("record %d is not sealed: %+v", number, bundle.Status)
}

func wholeVerifies(t *testing.T, config *rest.Config) {
	w, authority := signing(t, config)
	s := w.play(v1alpha1.EventCaptureCompleted)
	first := w.record(s.incident, 1).Status.Record.Key
	w.verifies(authority.TrustKey(), first)
	s.release()
	w.verifies(authority.TrustKey(), w.record(s.incident, 2).Status.Record.Key)
	w.verifies(authority.TrustKey(), first)
}

func failedVerifies(t *testing.T, config *rest.Config) {
	w, authority := signing(t, config)
	s := w.play(v1alpha1.EventCaptureFailed)
	w.verifies(authority.TrustKey(), w.record(s.incident, 1).Status.Record.Key)
	s.release()
	w.verifies(authority.TrustKey(), w.record(s.incident, 2).Status.Record.Key)
}

func twoOnOnePod(t *testing.T, config *rest.Config) {
	w, authority := signing(t, config)
	older, newer := w.play(v1alpha1.EventCaptureCompleted), w.play(v1alpha1.EventCaptureCompleted)
	for _, s := range []*scene{newer, older} {
		s.release()
		w.record(s.incident, 1)
		w.verifies(authority.TrustKey(), w.record(s.incident, 2).Status.Record.Key)
	}
	own := func(s *scene) (subjects []string) {
		for _, statement := range w.checkRecord(s.incident, 2).Statements {
			subjects = append(subjects, statement.Subject.UID)
		}
		return subjects
	}
	for _, uid := range own(older) {
		if slices.Contains(own(newer), uid) {
			t.Errorf("both list %s", uid)
		}
	}
}

// signing is a world whose bundles are real ones.
func signing(t *testing.T, config *rest.Config) (*world, *verifytest.Authority) {
	t.Helper()
	w, authority := newWorld(t, config), verifytest.NewAuthority(t)
	trust := authority.TrustBoth()
	w.stages.Notary = func(_ context.Context, mode v1alpha1.SigningMode) (attestor.Notary, error) {
		return office{authority, trust, verifytest.Signature{
			Key: mode == v1alpha1.SigningOpenBaoTransit, Identity: verifytest.Identity, Issuer: verifytest.Issuer,
		}}, nil
	}
	return w, authority
}

// office is a Notary that an authority inside the process seals for.
type office struct {
	authority *verifytest.Authority
	trust     *attest.Trust
	by        verifytest.Signature
}

func (o office) Sign(_ context.Context, statement []byte) ([]byte, string, error) {
	envelope, err := json.Marshal(attest.Envelope{
		PayloadType: evidence.PayloadType, Payload: statement, Signatures: []attest.EnvelopeSignature{{Sig: []byte("made when it is logged")}},
	})
	return envelope, verifytest.Identity, err
}

func (o office) Publish(_ context.Context, envelope []byte) ([]byte, error) {
	var parsed attest.Envelope
	if err := json.Unmarshal(envelope, &parsed); err != nil {
		return nil, err
	}
	return o.authority.Seal(parsed.Payload, o.by), nil
}

func (o office) Verify(bundle []byte) (attest.Verified, error) { return o.trust.Verify(bundle) }

// verifies demands that a stranger finds nothing wrong.
func (w *world) verifies(trust *attest.Trust, record string) {
	w.t.Helper()
	report, err := verify.Incident(w.t.Context(), bucket{w.store}, trust, verify.Target{Key: record})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, check := range report.Checks {
		if check.Status != verify.Passed && check.Status != verify.NotChecked {
			w.t.Errorf("%+v", check)
		}
	}
	if report.Verdict() != verify.Verified {
		w.t.Errorf("verdict %s", report.Verdict())
	}
}

// bucket lets a stranger look into the store.
type bucket struct{ *worm.Memory }

func (b bucket) OpenRange(ctx context.Context, key, versionID string, offset, length int64) (io.ReadCloser, error) {
	body, err := b.Open(ctx, key, versionID)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, body, offset); err != nil {
		return nil, err
	}
	return io.NopCloser(io.LimitReader(body, length)), nil
}

func (b bucket) List(_ context.Context, prefix string) ([]string, error) {
	var keys []string
	for _, object := range b.Objects() {
		if strings.HasPrefix(object.Key, prefix) {
			keys = append(keys, object.Key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}
