package trigger

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ugallu.io/forensics/api/v1alpha1"
)

// checker is a verifier that says what it is told to, and counts how often it was asked.
type checker struct {
	attested bool
	err      error
	asked    int
	// within is how long the last question may have taken.
	within time.Duration
}

func (c *checker) Attested(ctx context.Context, _ *v1alpha1.SecurityEvent) (bool, error) {
	c.asked++
	if until, bounded := ctx.Deadline(); bounded {
		c.within = time.Until(until)
	}
	return c.attested, c.err
}

// world is a cluster with one pod, one event about it, and the recipe's configuration.
type world struct {
	t       *testing.T
	client  client.Client
	clock   *clocktesting.FakePassiveClock
	checker *checker
	r       *Reconciler
}

func newWorld(t *testing.T) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	created := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "victim", UID: "pod-uid", CreationTimestamp: metav1.NewTime(created.Add(-time.Hour))},
		Spec:       corev1.PodSpec{NodeName: "worker"},
	}
	event := &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{Name: "synth-1", UID: "event-uid", CreationTimestamp: metav1.NewTime(created)},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassDetection, Type: "HoneypotTriggered", Severity: v1alpha1.SeverityCritical,
			Subject: v1alpha1.EventSubject{Kind: "Pod", Namespace: "sandbox", Name: "victim"},
		},
	}
	config := &v1alpha1.ForensicsConfig{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SingletonName, Generation: 7}}
	config.Spec.WhitelistedTypes = []string{"HoneypotTriggered"}
	config.Spec.Trigger.Classes = []v1alpha1.EventClass{v1alpha1.ClassDetection}
	config.Spec.Trigger.MinSeverities = []v1alpha1.Severity{v1alpha1.SeverityHigh}
	config.Spec.Trigger.RequireAttested = ptr.To(true)
	w := &world{
		t: t, checker: &checker{}, clock: clocktesting.NewFakePassiveClock(created.Add(time.Second)),
		client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(pod, event, config).
			WithStatusSubresource(&v1alpha1.SecurityEvent{}, &v1alpha1.Incident{}).Build(),
	}
	w.r = &Reconciler{Client: w.client, Live: w.client, Checker: w.checker, Recorder: events.NewFakeRecorder(10), Clock: w.clock}
	return w
}

func (w *world) reconcile() (ctrl.Result, error) {
	w.t.Helper()
	return w.r.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "synth-1"}})
}

func (w *world) must() ctrl.Result {
	w.t.Helper()
	result, err := w.reconcile()
	if err != nil {
		w.t.Fatal(err)
	}
	return result
}

func (w *world) event() *v1alpha1.SecurityEvent {
	w.t.Helper()
	var event v1alpha1.SecurityEvent
	if err := w.client.Get(w.t.Context(), client.ObjectKey{Name: "synth-1"}, &event); err != nil {
		w.t.Fatal(err)
	}
	return &event
}

func (w *world) reason() string {
	w.t.Helper()
	matched := meta.FindStatusCondition(w.event().Status.Conditions, v1alpha1.ConditionMatched)
	if matched == nil {
		return ""
	}
	if matched.Message == "" {
		w.t.Errorf("verdict %s has no message", matched.Reason)
	}
	return matched.Reason
}

func (w *world) incidents() []v1alpha1.Incident {
	w.t.Helper()
	var list v1alpha1.IncidentList
	if err := w.client.List(w.t.Context(), &list); err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

// claim is what the attestor writes: only a hint to look.
func (w *world) claim() {
	w.t.Helper()
	event := w.event()
	event.Status.Phase = v1alpha1.EventAttested
	if err := w.client.Status().Update(w.t.Context(), event); err != nil {
		w.t.Fatal(err)
	}
}

func TestSealedEventOpensOneIncidentEver(t *testing.T) {
	w := newWorld(t)
	w.must()
	if w.reason() != "NotAttested" || len(w.incidents()) != 0 || w.checker.asked != 0 {
		t.Fatalf("before the seal: %s, %d incidents, verifier asked %d times", w.reason(), len(w.incidents()), w.checker.asked)
	}
	w.claim()
	w.checker.attested = true
	w.must()
	opened := w.incidents()
	if w.reason() != v1alpha1.ReasonIncidentOpened || len(opened) != 1 || opened[0].Name != v1alpha1.IncidentName("event-uid") {
		t.Fatalf("after the seal: %s, incidents %+v", w.reason(), opened)
	}
	if opened[0].Spec.ConfigGeneration != 7 || opened[0].Spec.Pod.UID != "pod-uid" || opened[0].Spec.SubjectUID != v1alpha1.SubjectResolved {
		t.Errorf("incident %+v", opened[0].Spec)
	}
	if err := w.client.Delete(t.Context(), &opened[0]); err != nil {
		t.Fatal(err)
	}
	w.must()
	if len(w.incidents()) != 0 {
		t.Error("an event whose incident is gone opened another")
	}
}

func TestClaimedPhaseAloneOpensNothing(t *testing.T) {
	w := newWorld(t)
	w.claim()
	w.must()
	if w.checker.within <= 0 || w.checker.within > verifyWithin {
		t.Errorf("the store may take %s to answer: one that hangs would hold a worker", w.checker.within)
	}
	if w.checker.asked != 1 || len(w.incidents()) != 0 || w.reason() != "NotAttested" {
		t.Errorf("verifier asked %d times, %d incidents, %s", w.checker.asked, len(w.incidents()), w.reason())
	}
	w.checker.err = errors.New("store is away")
	if _, err := w.reconcile(); err == nil {
		t.Error("a verifier that cannot answer was taken for an answer")
	}
	if len(w.incidents()) != 0 {
		t.Error("an incident was opened without a verified seal")
	}
}

func TestLateSealRaisesTheAlarmAndTheSealEndsIt(t *testing.T) {
	w := newWorld(t)
	if result := w.must(); result.RequeueAfter != overdueAfter-time.Second {
		t.Errorf("looks again after %s", result.RequeueAfter)
	}
	w.clock.SetTime(w.event().CreationTimestamp.Add(overdueAfter))
	w.must()
	if !meta.IsStatusConditionTrue(w.event().Status.Conditions, v1alpha1.ConditionAttestationOverdue) {
		t.Fatal("no alarm")
	}
	w.claim()
	w.checker.attested = true
	w.must()
	if !meta.IsStatusConditionFalse(w.event().Status.Conditions, v1alpha1.ConditionAttestationOverdue) || len(w.incidents()) != 1 {
		t.Errorf("%d incidents, conditions %+v", len(w.incidents()), w.event().Status.Conditions)
	}
}

func TestVerdictIsFinal(t *testing.T) {
	w := newWorld(t)
	var config v1alpha1.ForensicsConfig
	if err := w.client.Get(t.Context(), client.ObjectKey{Name: v1alpha1.SingletonName}, &config); err != nil {
		t.Fatal(err)
	}
	config.Spec.WhitelistedTypes = nil
	if err := w.client.Update(t.Context(), &config); err != nil {
		t.Fatal(err)
	}
	w.must()
	if w.reason() != "TypeNotWhitelisted" {
		t.Fatalf("an empty whitelist gave %s", w.reason())
	}
	config.Spec.WhitelistedTypes = []string{"HoneypotTriggered"}
	if err := w.client.Update(t.Context(), &config); err != nil {
		t.Fatal(err)
	}
	w.claim()
	w.checker.attested = true
	w.must()
	if w.reason() != "TypeNotWhitelisted" || len(w.incidents()) != 0 {
		t.Errorf("a judged event was judged again: %s, %d incidents", w.reason(), len(w.incidents()))
	}
}

func TestEventAboutAPodThatCameLaterOpensNothing(t *testing.T) {
	w := newWorld(t)
	var pod corev1.Pod
	key := client.ObjectKey{Namespace: "sandbox", Name: "victim"}
	if err := w.client.Get(t.Context(), key, &pod); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Delete(t.Context(), &pod); err != nil {
		t.Fatal(err)
	}
	younger := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "sandbox", Name: "victim", UID: "another-uid", CreationTimestamp: metav1.NewTime(w.event().CreationTimestamp.Add(time.Minute)),
	}, Spec: corev1.PodSpec{NodeName: "worker"}}
	if err := w.client.Create(t.Context(), younger); err != nil {
		t.Fatal(err)
	}
	w.must()
	if w.reason() != "PodUIDMismatch" || len(w.incidents()) != 0 {
		t.Errorf("%s, %d incidents", w.reason(), len(w.incidents()))
	}
}

// openWith opens an incident with a configuration and a store, and returns what it orders to capture.
func (w *world) openWith(snapshot v1alpha1.SnapshotConfig, store v1alpha1.WORMConfigSpec) v1alpha1.FilesystemSnapshotAction {
	w.t.Helper()
	var config v1alpha1.ForensicsConfig
	if err := w.client.Get(w.t.Context(), client.ObjectKey{Name: v1alpha1.SingletonName}, &config); err != nil {
		w.t.Fatal(err)
	}
	config.Spec.Snapshot = snapshot
	if err := w.client.Update(w.t.Context(), &config); err != nil {
		w.t.Fatal(err)
	}
	worm := &v1alpha1.WORMConfig{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName}, Spec: store}
	if err := w.client.Create(w.t.Context(), worm); err != nil {
		w.t.Fatal(err)
	}
	w.claim()
	w.checker.attested = true
	w.must()
	return w.incidents()[0].Spec.Snapshot
}

func TestOpeningCopiesWhatTheCaptureIsToLeaveOutAndHowItIsEncrypted(t *testing.T) {
	bandwidth := resource.MustParse("10Mi")
	got := newWorld(t).openWith(v1alpha1.SnapshotConfig{
		MaxBandwidth: &bandwidth, RedactEnvironment: v1alpha1.RedactMatching, RedactNames: "PASS|TOKEN",
	}, v1alpha1.WORMConfigSpec{Encryption: v1alpha1.EncryptionSSEKMS, KMSKeyID: "key-1"})
	if got.MaxBandwidth == nil || got.MaxBandwidth.Cmp(bandwidth) != 0 || got.RedactEnvironment != v1alpha1.RedactMatching || got.RedactNames != "PASS|TOKEN" {
		t.Errorf("snapshot %+v", got)
	}
	if to := got.Destination; to.Encryption != v1alpha1.EncryptionSSEKMS || to.KMSKeyID != "key-1" || to.AgeRecipients != nil {
		t.Errorf("destination %+v", to)
	}
}

func TestOpeningWithoutAWordLeavesNothingOut(t *testing.T) {
	got := newWorld(t).openWith(v1alpha1.SnapshotConfig{}, v1alpha1.WORMConfigSpec{})
	if got.MaxBandwidth != nil || got.RedactEnvironment != v1alpha1.RedactNone || got.Destination.Encryption != v1alpha1.EncryptionNone {
		t.Errorf("snapshot %+v", got)
	}
}

func TestOpeningNeverRedactsLessThanAsked(t *testing.T) {
	got := newWorld(t).openWith(v1alpha1.SnapshotConfig{RedactEnvironment: v1alpha1.RedactMatching, RedactNames: "PASS("}, v1alpha1.WORMConfigSpec{})
	if got.RedactEnvironment != v1alpha1.RedactAll || got.RedactNames != "" {
		t.Errorf("names that nobody can compare with redact %s %q", got.RedactEnvironment, got.RedactNames)
	}
}

func TestOpeningNeverStoresPlainWhatWasToBeEncrypted(t *testing.T) {
	const right, wrong = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8q"
	tests := map[string]struct{ configured, want []string }{
		"all right":      {[]string{right}, []string{right}},
		"one wrong":      {[]string{wrong, right}, []string{right}},
		"all wrong stay": {[]string{wrong}, []string{wrong}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := newWorld(t).openWith(v1alpha1.SnapshotConfig{}, v1alpha1.WORMConfigSpec{Encryption: v1alpha1.EncryptionAge, AgeRecipients: tt.configured})
			if to := got.Destination; to.Encryption != v1alpha1.EncryptionAge || !slices.Equal(to.AgeRecipients, tt.want) {
				t.Errorf("destination %+v", to)
			}
		})
	}
}
