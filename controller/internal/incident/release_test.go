package incident_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// steady reconciles some more and wants the incident to stay as it is.
func (w *world) steady(event *v1alpha1.SecurityEvent, wanted v1alpha1.IncidentState) *v1alpha1.Incident {
	w.t.Helper()
	for range 3 {
		if err := w.round(event); err != nil {
			w.t.Fatal(err)
		}
	}
	found := &v1alpha1.Incident{}
	w.get(v1alpha1.IncidentName(string(event.UID)), found)
	if found.Status.State != wanted {
		w.t.Fatalf("incident is %q, want %q", found.Status.State, wanted)
	}
	return found
}

func releasedByNothingElse(t *testing.T, w *world) {
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.RequiredAcknowledgements = new(int32(2)) })
	_, event := w.victim("stamped")
	held := w.drive(event, v1alpha1.IncidentHeld)
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.RequiredAcknowledgements = new(int32(1)) })
	completed := w.outcome(held, v1alpha1.EventCaptureCompleted)
	first, second := w.stamp(completed, "first"), w.stamp(completed, "second")
	changed := first
	changed.Username = "somebody"
	otherEvent := completed.DeepCopy()
	otherEvent.UID = "another"
	otherManifest := completed.DeepCopy()
	otherManifest.Spec.Evidence.SHA256 = held.Spec.Trigger.SpecSHA256
	tests := map[string]struct {
		value string
		acks  []v1alpha1.Acknowledgement
	}{
		"no stamp":             {"true", nil},
		"one of two":           {"true", []v1alpha1.Acknowledgement{first}},
		"the same twice":       {"true", []v1alpha1.Acknowledgement{first, first}},
		"invalid code":         {"true", []v1alpha1.Acknowledgement{first, changed}},
		"of another event":     {"true", []v1alpha1.Acknowledgement{first, w.stamp(otherEvent, "second")}},
		"of another manifest":  {"true", []v1alpha1.Acknowledgement{first, w.stamp(otherManifest, "second")}},
		"TRUE":                 {"TRUE", []v1alpha1.Acknowledgement{first, second}},
		"1":                    {"1", []v1alpha1.Acknowledgement{first, second}},
		"true with a space":    {"true ", []v1alpha1.Acknowledgement{first, second}},
		"stamps without value": {"", []v1alpha1.Acknowledgement{first, second}},
	}
	for name, test := range tests {
		w.annotate(completed, test.value, test.acks...)
		if found := w.steady(event, v1alpha1.IncidentHeld); meta.IsStatusConditionTrue(found.Status.Conditions, v1alpha1.ConditionAcknowledged) {
			t.Fatalf("%s: acknowledged", name)
		}
	}
	w.annotate(completed, "true", first, second)
	released := w.drive(event, v1alpha1.IncidentReleased)
	if len(released.Status.Acknowledgements) != 2 {
		t.Fatalf("%d acknowledgements are on record", len(released.Status.Acknowledgements))
	}
}

func releasedAtDeadline(t *testing.T, w *world) {
	_, event := w.victim("deadline")
	held := w.drive(event, v1alpha1.IncidentHeld)
	w.clock.SetTime(held.Status.UnfreezeAt.Add(-time.Second))
	w.restart()
	w.steady(event, v1alpha1.IncidentHeld)
	w.clock.SetTime(held.Status.UnfreezeAt.Time)
	w.restart()
	released := w.drive(event, v1alpha1.IncidentReleased)
	if got := conditions(released); got["Released"] != "True/DeadlineReached" || got["Acknowledged"] != "False/DeadlineReached" {
		t.Fatalf("conditions are %v", got)
	}
}

func neverReleased(t *testing.T, w *world) {
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.AutoUnfreezeAfter = &metav1.Duration{} })
	_, event := w.victim("never")
	held := w.drive(event, v1alpha1.IncidentHeld)
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.AutoUnfreezeAfter = nil })
	if held.Status.UnfreezeAt != nil || w.outcome(held, v1alpha1.EventCaptureCompleted).Status.UnfreezeAt != nil {
		t.Fatal("a deadline is set")
	}
	w.advance(10 * 365 * 24 * time.Hour)
	w.steady(event, v1alpha1.IncidentHeld)
}

func failedFreeze(t *testing.T, w *world) {
	w.agent = failing(v1alpha1.ActionPodFreeze)
	pod, event := w.victim("refused")
	failed := w.drive(event, v1alpha1.IncidentFailed)
	w.steady(event, v1alpha1.IncidentFailed)
	if got := conditions(failed); got["Failed"] != "True/OrderRefused" || got["Contained"] != "False/PolicyOnly" {
		t.Fatalf("conditions are %v", got)
	}
	announced := w.outcome(failed, v1alpha1.EventCaptureFailed)
	if announced.Spec.Evidence != nil || announced.Status.UnfreezeAt == nil {
		t.Fatalf("outcome event is %+v", announced)
	}
	if _, err := w.policyOf(pod); err != nil {
		t.Fatal(err)
	}
	w.annotate(announced, "true", w.stamp(announced, "responder"))
	w.drive(event, v1alpha1.IncidentReleased)
	checkOnce(t, w, event)
}

func agentGone(t *testing.T, w *world) {
	w.agent = silent
	_, event := w.victim("silent")
	w.drive(event, "")
	w.advance(3 * time.Second)
	w.steady(event, v1alpha1.IncidentContaining)
	w.advance(time.Minute + 15*time.Second)
	failed := w.drive(event, v1alpha1.IncidentFailed)
	if got := conditions(failed); got["Failed"] != "True/DeadlineExceeded" {
		t.Fatalf("conditions are %v", got)
	}
	var freeze v1alpha1.EventResponse
	w.get(v1alpha1.ResponseName(failed.Name, v1alpha1.StepFreeze, 1), &freeze)
	if freeze.Status.Phase != v1alpha1.ResponseFailed || freeze.Status.CompletedAt == nil {
		t.Fatalf("response is %+v", freeze.Status)
	}
}

func failedAndReleased(t *testing.T, w *world) {
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.OnFailure = v1alpha1.OnFailureRelease })
	w.agent = failing(v1alpha1.ActionFilesystemSnapshot)
	_, event := w.victim("given-up")
	released := w.drive(event, v1alpha1.IncidentReleased)
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.OnFailure = v1alpha1.OnFailureHold })
	if got := conditions(released); got["Released"] != "True/CaptureFailed" || got["Captured"] != "False/Failed" {
		t.Fatalf("conditions are %v", got)
	}
}

func podGone(t *testing.T, w *world) {
	pod, event := w.victim("vanished")
	held := w.drive(event, v1alpha1.IncidentHeld)
	if err := w.base.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	w.pod("vanished")
	found := w.steady(event, v1alpha1.IncidentHeld)
	if got := conditions(found); got["Contained"] != "True/PodGone" {
		t.Fatalf("conditions are %v", got)
	}
	w.acknowledge(held)
	w.drive(event, v1alpha1.IncidentReleased)
	if _, err := w.policyOf(pod); !apierrors.IsNotFound(err) {
		t.Fatalf("policy of a pod that is gone: %v", err)
	}
	if label := w.labelOf(pod); label != "" {
		t.Fatalf("a pod of the same name was labelled %q", label)
	}
}

func deletesPod(t *testing.T, w *world) {
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.Disposition = v1alpha1.DispositionDelete })
	pod, event := w.victim("condemned")
	held := w.drive(event, v1alpha1.IncidentHeld)
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.Disposition = v1alpha1.DispositionResume })
	w.acknowledge(held)
	w.drive(event, v1alpha1.IncidentReleasing)
	for range 3 {
		if err := w.round(event); err != nil {
			t.Fatal(err)
		}
	}
	var dying corev1.Pod
	dying.Namespace = namespace
	w.get(pod.Name, &dying)
	if dying.DeletionTimestamp.IsZero() || dying.Labels[v1alpha1.LabelFrozen] == "" {
		t.Fatalf("pod has %v and labels %v: it should die frozen", dying.DeletionTimestamp, dying.Labels)
	}
	if _, err := w.policyOf(pod); err != nil {
		t.Fatalf("the policy went before the pod: %v", err)
	}
	// The kubelet reports that the containers are gone.
	if err := w.base.Delete(t.Context(), &dying, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	w.drive(event, v1alpha1.IncidentReleased)
	if _, err := w.policyOf(pod); !apierrors.IsNotFound(err) {
		t.Fatalf("policy after release: %v", err)
	}
}

func nodeGone(t *testing.T, w *world) {
	event := w.releasing("orphan")
	w.nodeGoes()
	w.advance(4 * time.Minute)
	w.steady(event, v1alpha1.IncidentReleasing)
	// Another controller has not looked yet.
	w.restart()
	w.advance(2 * time.Minute)
	w.steady(event, v1alpha1.IncidentReleasing)
	// No later than it asks to be called again itself.
	w.advance(w.again)
	released := w.drive(event, v1alpha1.IncidentReleased)
	if got := conditions(released); got["Released"] != "True/Acknowledged" {
		t.Fatalf("conditions are %v", got)
	}
	var release v1alpha1.EventResponse
	w.get(v1alpha1.ResponseName(released.Name, v1alpha1.StepUnfreeze, 1), &release)
	want := []evidence.Gap{{Reason: "FlowsNotRead", Message: "what the drop had counted by the release, and of which flows, was not read", Count: 1}}
	if diff := cmp.Diff(want, evidenceGaps(&release)); diff != "" {
		t.Errorf("gaps of the release (-want +got):\n%s", diff)
	}
}

func nodeAwayForAMoment(_ *testing.T, w *world) {
	event := w.releasing("registered-anew")
	w.advance(4 * time.Minute)
	for range 3 {
		w.nodeGoes()
		w.steady(event, v1alpha1.IncidentReleasing)
		w.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker"}})
		w.advance(2 * time.Minute)
		w.steady(event, v1alpha1.IncidentReleasing)
	}
	w.nodeGoes()
	w.steady(event, v1alpha1.IncidentReleasing)
	w.advance(2 * time.Minute)
	w.drive(event, v1alpha1.IncidentReleased)
}

// absenceIsForgotten: a node is not gone at the first look of another incident, soon after; and one that came back without
// being looked for is not at its next absence, long after.
func absenceIsForgotten(_ *testing.T, w *world) {
	first, second := w.releasing("away-once"), w.releasing("away-later")
	w.advance(4 * time.Minute)
	w.nodeGoes()
	w.steady(first, v1alpha1.IncidentReleasing)
	w.advance(2 * time.Minute)
	w.steady(second, v1alpha1.IncidentReleasing)
	w.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker"}})
	w.nodeGoes()
	w.advance(time.Hour)
	w.steady(first, v1alpha1.IncidentReleasing)
	w.steady(second, v1alpha1.IncidentReleasing)
	w.advance(2 * time.Minute)
	w.drive(first, v1alpha1.IncidentReleased)
	w.drive(second, v1alpha1.IncidentReleased)
}

// releasing is an incident whose release no agent carries out.
func (w *world) releasing(pod string) *v1alpha1.SecurityEvent {
	w.t.Helper()
	w.agent = succeed
	_, event := w.victim(pod)
	held := w.drive(event, v1alpha1.IncidentHeld)
	w.agent = silent
	w.acknowledge(held)
	w.steady(event, v1alpha1.IncidentReleasing)
	return event
}

// labelStaysOff walks on a record from before the release when the pod is let go.
func labelStaysOff(t *testing.T, w *world) {
	pod, event := w.victim("let-go")
	held := w.drive(event, v1alpha1.IncidentHeld)
	w.agent = silent
	w.acknowledge(held)
	stale := w.steady(event, v1alpha1.IncidentReleasing)
	w.nodeGoes()
	w.advance(4 * time.Minute)
	w.steady(event, v1alpha1.IncidentReleasing)
	w.advance(2 * time.Minute)
	w.drive(event, v1alpha1.IncidentReleased)
	for _, record := range []*v1alpha1.Incident{stale, held} {
		// What the old record leads to is refused; the pod is what counts.
		_, err := w.onRecord(record).Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(record)})
		if label := w.labelOf(pod); label != "" {
			t.Errorf("after a walk on a record that is %s the pod is labelled %q (%v)", record.Status.State, label, err)
		}
		if _, err := w.policyOf(pod); !apierrors.IsNotFound(err) {
			t.Errorf("after a walk on a record that is %s the policy is back: %v", record.Status.State, err)
		}
	}
}

func deletedWithNode(t *testing.T, w *world) {
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.Disposition = v1alpha1.DispositionDelete })
	pod, event := w.victim("condemned-orphan")
	held := w.drive(event, v1alpha1.IncidentHeld)
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.Disposition = v1alpha1.DispositionResume })
	w.acknowledge(held)
	w.steady(event, v1alpha1.IncidentReleasing)
	w.nodeGoes()
	w.steady(event, v1alpha1.IncidentReleasing)
	w.advance(2 * time.Minute)
	w.drive(event, v1alpha1.IncidentReleased)
	if err := w.base.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); !apierrors.IsNotFound(err) {
		t.Errorf("the pod is still there: %v", err)
	}
}

func namesFailedRelease(t *testing.T, w *world) {
	w.agent = failing(v1alpha1.ActionPodUnfreeze)
	_, event := w.victim("stuck")
	held := w.drive(event, v1alpha1.IncidentHeld)
	w.acknowledge(held)
	found := w.steady(event, v1alpha1.IncidentReleasing)
	var release v1alpha1.EventResponse
	w.get(v1alpha1.ResponseName(found.Name, v1alpha1.StepUnfreeze, 1), &release)
	want := v1alpha1.Ref{Name: release.Name, UID: string(release.UID)}
	if named := found.Status.Responses[len(found.Status.Responses)-1]; named != want {
		t.Errorf("the last response that is named is %+v, want %+v", named, want)
	}
	released := meta.FindStatusCondition(found.Status.Conditions, v1alpha1.ConditionReleased)
	if released == nil || released.Reason != v1alpha1.ReasonWaiting || !strings.Contains(released.Message, "attempt 1 of 10") {
		t.Errorf("condition %+v", released)
	}
	if again := w.steady(event, v1alpha1.IncidentReleasing); again.ResourceVersion != found.ResourceVersion {
		t.Errorf("written again without a change: %+v", again.Status)
	}
}

// allow writes how many attempts at a release there may be, or takes that away.
func (w *world) allow(incident *v1alpha1.Incident, number string) {
	w.t.Helper()
	w.get(incident.Name, incident)
	incident.Annotations = map[string]string{v1alpha1.AnnotationReleaseAttempts: number}
	if number == "" {
		incident.Annotations = nil
	}
	if err := w.base.Update(w.t.Context(), incident); err != nil {
		w.t.Fatal(err)
	}
}

// attempted goes on until three rounds in a row change nothing, and counts the attempts at the release.
func (w *world) attempted(event *v1alpha1.SecurityEvent) (made int, released *metav1.Condition) {
	w.t.Helper()
	found, version := &v1alpha1.Incident{}, ""
	for still := 0; still < 3; w.advance(max(w.again, 31*time.Second)) {
		if err := w.round(event); err != nil {
			w.t.Fatal(err)
		}
		w.get(v1alpha1.IncidentName(string(event.UID)), found)
		if still++; found.ResourceVersion != version {
			still, version = 0, found.ResourceVersion
		}
	}
	for _, named := range found.Status.Responses {
		if strings.Contains(named.Name, string(v1alpha1.StepUnfreeze)) {
			made++
		}
	}
	return made, meta.FindStatusCondition(found.Status.Conditions, v1alpha1.ConditionReleased)
}

func ordersFurtherAttempts(t *testing.T, w *world) {
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.AutoUnfreezeAfter = &metav1.Duration{} })
	w.agent = failing(v1alpha1.ActionPodUnfreeze)
	_, event := w.victim("stuck-for-long")
	held := w.drive(event, v1alpha1.IncidentHeld)
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.AutoUnfreezeAfter = nil })
	w.acknowledge(held)
	how := "kubectl annotate --overwrite inc " + held.Name + " ugallu.io/release-attempts="
	for _, tt := range []struct {
		allowed string
		made    int
		says    string
	}{
		{"", 10, how + "20, "},
		{"eleven", 10, `"eleven" is not such a number`},
		{"0", 10, `"0" is not such a number`},
		{"26", 10, `"26" is not such a number`},
		{"3", 10, how + "20, "},
		{"12", 12, how + "22, "},
		{"", 12, how + "22, "},
		{"11", 12, how + "22, "},
		{"25", 25, "by hand"},
	} {
		w.allow(held, tt.allowed)
		made, released := w.attempted(event)
		if made != tt.made || released == nil || released.Reason != v1alpha1.ReasonFailed || !strings.Contains(released.Message, tt.says) {
			t.Errorf("with %q: %d attempts, %+v; want %d and %q", tt.allowed, made, released, tt.made, tt.says)
		}
	}
	w.agent = silent
	w.nodeGoes()
	if made, released := w.attempted(event); made != 26 || released.Status != metav1.ConditionTrue {
		t.Errorf("without the node: %d attempts, %+v; want 26 and the incident released", made, released)
	}
}

func releasedByAFurtherAttempt(t *testing.T, w *world) {
	w.agent = failing(v1alpha1.ActionPodUnfreeze)
	_, event := w.victim("stuck-till-mended")
	held := w.drive(event, v1alpha1.IncidentHeld)
	w.acknowledge(held)
	if made, _ := w.attempted(event); made != 10 {
		t.Fatalf("%d attempts, want 10", made)
	}
	w.agent = succeed
	if made, released := w.attempted(event); made != 10 || released.Status != metav1.ConditionFalse {
		t.Fatalf("%d attempts, %+v: nobody ordered another", made, released)
	}
	w.allow(held, "11")
	if made, released := w.attempted(event); made != 11 || released.Status != metav1.ConditionTrue {
		t.Errorf("%d attempts, %+v; want 11 and the pod released", made, released)
	}
}
