package incident_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/apitest"
	"ugallu.io/forensics/internal/stamp"
)

// TestIncident starts one API server for everything below.
func TestIncident(t *testing.T) {
	config := apitest.Start(t)
	newWorld(t, config).prepare()
	tests := map[string]func(t *testing.T, w *world){
		"goes from detection to release":                   releasedByAcknowledgement,
		"notes custody records and waits for none":         notesRecords,
		"happens once wherever the controller is killed":   killedAnywhere,
		"needs a valid stamp to be released":               releasedByNothingElse,
		"is released at its deadline after a restart":      releasedAtDeadline,
		"never unfreezes by itself when configured so":     neverReleased,
		"fails when the node refuses":                      failedFreeze,
		"fails when the agent is gone":                     agentGone,
		"counts what an agent did not come to capture":     captureNotEnded,
		"counts what an agent did not come to name":        nothingCaptured,
		"is released when its capture fails, if told so":   failedAndReleased,
		"is completed without a read-back, and says so":    withoutReadBack,
		"says when the store holds something else":         misread,
		"says what keeps the store, and goes on":           storeFull,
		"is completed without the cluster state, and says": withoutClusterState,
		"shows what keeps the node's store":                captureKept,
		"keeps label and policy in place":                  keptInPlace,
		"counts each repair of the policy once":            countedOnce,
		"shares a pod with another":                        sharedPod,
		"does nothing in a dry run":                        dryRun,
		"waits for its turn to capture, not to contain":    takesTurns,
		"goes on when the pod is gone":                     podGone,
		"deletes the pod when its disposition says so":     deletesPod,
		"hands over that the pod is to be deleted":         deletedByTheLast,
		"deletes the pod for one that is gone":             deletedForOneThatIsGone,
		"deletes a pod that another let go before":         deletedAfterTheOther,
		"hands it over to one that came late":              deletedByOneThatCameLate,
		"deletes the pod with another at once":             deletedByBoth,
		"decides once wherever the controller is killed":   decidedOnce,
		"leaves a release that was ordered as it is":       orderStands,
		"is released with its node":                        nodeGone,
		"waits for a node that may come back":              nodeAwayForAMoment,
		"forgets that a node was away once":                absenceIsForgotten,
		"leaves a pod alone that it let go":                labelStaysOff,
		"deletes a pod whose node is gone":                 deletedWithNode,
		"names an attempt at a release that failed":        namesFailedRelease,
		"attempts a release again when a person says so":   ordersFurtherAttempts,
		"is released by an attempt that a person ordered":  releasedByAFurtherAttempt,
		"refuses an order that somebody else made":         foreignOrder,
		"is not opened again after a change of the config": notOpenedAgain,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, config)
			w.nodeComes()
			test(t, w)
		})
	}
}

// victim is a pod with a sealed detection.
func (w *world) victim(name string) (*corev1.Pod, *v1alpha1.SecurityEvent) {
	w.t.Helper()
	pod := w.pod(name)
	event := w.detect(pod)
	w.attest(event)
	return pod, event
}

// outcome is the incident's Completed or Failed event.
func (w *world) outcome(found *v1alpha1.Incident, eventType string) *v1alpha1.SecurityEvent {
	w.t.Helper()
	var event v1alpha1.SecurityEvent
	w.get(v1alpha1.OutcomeEventName(found.Name, eventType), &event)
	return &event
}

// acknowledge has a responder look at what was captured.
func (w *world) acknowledge(held *v1alpha1.Incident) {
	w.t.Helper()
	completed := w.outcome(held, v1alpha1.EventCaptureCompleted)
	w.annotate(completed, "true", w.stamp(completed, "responder"))
}

// annotate does what the admission webhook lets through, with the given annotations.
func (w *world) annotate(event *v1alpha1.SecurityEvent, value string, acks ...v1alpha1.Acknowledgement) {
	w.t.Helper()
	raw, err := json.Marshal(acks)
	if err != nil {
		w.t.Fatal(err)
	}
	w.get(event.Name, event)
	event.Annotations = map[string]string{v1alpha1.AnnotationAcknowledged: value, v1alpha1.AnnotationAcknowledgements: string(raw)}
	if err := w.base.Update(w.t.Context(), event); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stamp(event *v1alpha1.SecurityEvent, username string) v1alpha1.Acknowledgement {
	w.t.Helper()
	ack := v1alpha1.Acknowledgement{Username: username, EventUID: string(event.UID), At: metav1.NowMicro()}
	if event.Spec.Evidence != nil {
		ack.ManifestSHA256 = event.Spec.Evidence.SHA256
	}
	signed, err := stamp.Sign(acknowledgementKey(), ack)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

func (w *world) policyOf(pod *corev1.Pod) (*networkingv1.NetworkPolicy, error) {
	found := &networkingv1.NetworkPolicy{}
	err := w.base.Get(w.t.Context(), client.ObjectKey{Namespace: namespace, Name: "ugallu-frozen-" + string(pod.UID)}, found)
	return found, err
}

func (w *world) labelOf(pod *corev1.Pod) string {
	w.t.Helper()
	found := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}}
	w.get(pod.Name, found)
	return found.Labels[v1alpha1.LabelFrozen]
}

func conditions(found *v1alpha1.Incident) map[string]string {
	out := map[string]string{}
	for _, condition := range found.Status.Conditions {
		out[condition.Type] = string(condition.Status) + "/" + condition.Reason
	}
	return out
}

func releasedByAcknowledgement(t *testing.T, w *world) {
	w.nodeGoes() // a gap of the cluster state
	pod, event := w.victim("acknowledged")
	held := w.drive(event, v1alpha1.IncidentHeld)
	if label := w.labelOf(pod); label != string(held.UID) {
		t.Fatalf("label is %q, want the incident's uid", label)
	}
	if _, err := w.policyOf(pod); err != nil {
		t.Fatal(err)
	}
	completed := w.outcome(held, v1alpha1.EventCaptureCompleted)
	checkManifest(t, w, held, completed)
	w.seal(v1alpha1.AttestedSecurityEvent, completed, string(held.UID))
	w.annotate(completed, "true", w.stamp(completed, "system:serviceaccount:ugallu-system:ugallu-responder"))
	released := w.drive(event, v1alpha1.IncidentReleased)
	want := map[string]string{
		"Contained": "False/Released", "Captured": "True/Succeeded", "Uploaded": "True/Succeeded", "Attested": "True/Succeeded",
		"Acknowledged": "True/Succeeded", "Released": "True/Acknowledged",
	}
	if diff := cmp.Diff(want, conditions(released)); diff != "" {
		t.Fatal(diff)
	}
	if label := w.labelOf(pod); label != "" {
		t.Errorf("released pod still has label %q", label)
	}
	if _, err := w.policyOf(pod); !apierrors.IsNotFound(err) {
		t.Errorf("policy after release: %v", err)
	}
	if released.Labels[v1alpha1.LabelOpen] != "" {
		t.Error("released incident is labelled open")
	}
	checkChain(t, w, released)
	t.Logf("%d writes: %s", w.faults.writes, strings.Join(w.faults.log, ", "))
	if w.faults.writes > 23 {
		t.Errorf("%d writes for one incident", w.faults.writes)
	}
}

func checkManifest(t *testing.T, w *world, held *v1alpha1.Incident, completed *v1alpha1.SecurityEvent) {
	t.Helper()
	stored := manifests(w.store)
	if len(stored) != 1 {
		t.Fatalf("%d manifests are stored", len(stored))
	}
	destination := held.Spec.Snapshot.Destination
	want := &v1alpha1.EvidenceRef{
		URL:    fmt.Sprintf("s3://%s/forensics/%s/manifest-%s.json", destination.Bucket, held.Name, stored[0].SHA256),
		SHA256: stored[0].SHA256, VersionID: stored[0].VersionID, Size: stored[0].Size, MediaType: evidence.MediaTypeManifest,
	}
	if diff := cmp.Diff(want, completed.Spec.Evidence); diff != "" {
		t.Fatal(diff)
	}
	manifest := w.manifestOf(held)
	digest := evidence.Digest([]byte("archive"))
	checkClusterState(t, held, manifest)
	got := manifest.Artifacts[1]
	if got.Asserted.SHA256 != digest || got.Asserted.Node != "worker" || got.Observed == nil || got.Observed.SHA256 != digest ||
		got.Segments[0].ObservedSHA256 != digest {
		t.Errorf("artifact has not both accounts: %+v", got)
	}
	// This cluster has no object of the node.
	gaps := []evidence.Gap{
		{Reason: "Unreadable", Message: "/proc/kcore", Count: 1},
		{Reason: "ClusterObjectGone", Message: `Node worker: nodes "worker" not found`, Count: 1},
	}
	if diff := cmp.Diff(gaps, manifest.Gaps); diff != "" {
		t.Error(diff)
	}
	if len(manifest.Responses) != 2 || manifest.Responses[0].Step != "podfreeze" || len(manifest.Containment) == 0 {
		t.Errorf("manifest names %+v", manifest.Responses)
	}
	wanted := metav1.NewTime(completed.CreationTimestamp.Add(4 * time.Hour))
	if !completed.Status.UnfreezeAt.Equal(&wanted) || !held.Status.UnfreezeAt.Equal(&wanted) {
		t.Errorf("unfreezeAt is %v on the event and %v on the incident, want %v", completed.Status.UnfreezeAt, held.Status.UnfreezeAt, wanted)
	}
}

// checkClusterState wants what the controller itself stored on its own word, and no node's.
func checkClusterState(t *testing.T, held *v1alpha1.Incident, manifest *evidence.Manifest) {
	t.Helper()
	state := held.Status.ClusterState
	if state == nil || state.Object == nil || manifest.ClusterStateAt == nil || !manifest.ClusterStateAt.Equal(state.TakenAt.Time) {
		t.Fatalf("cluster state is %+v, taken at %v", state, manifest.ClusterStateAt)
	}
	segment := evidence.Segment{
		Key: state.Object.Key, VersionID: state.Object.VersionID, Size: state.Object.Size, SHA256: state.Object.SHA256,
		RetainUntil: held.Spec.Snapshot.Destination.RetainUntil.UTC(),
	}
	want := evidence.Artifact{
		Name: "cluster-state.yaml", Kind: "ClusterState", MediaType: evidence.MediaTypeClusterState, Size: segment.Size,
		Entries:  2,
		Asserted: evidence.Asserted{By: "system:serviceaccount:ugallu-system:ugallu-forensics", SHA256: segment.SHA256},
		Segments: []evidence.Segment{segment},
	}
	if diff := cmp.Diff(want, manifest.Artifacts[0]); diff != "" {
		t.Error(diff)
	}
}

// checkChain wants the four responses, each naming the one before it.
func checkChain(t *testing.T, w *world, released *v1alpha1.Incident) {
	t.Helper()
	var responses v1alpha1.EventResponseList
	err := w.base.List(t.Context(), &responses, client.MatchingLabels{v1alpha1.LabelIncidentUID: string(released.UID)})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, response := range responses.Items {
		got[response.Labels[v1alpha1.LabelStep]] = response.Labels[v1alpha1.LabelParentResponse]
	}
	name := func(step v1alpha1.Step) string { return v1alpha1.ResponseName(released.Name, step, 1) }
	want := map[string]string{
		"podfreeze": "", "filesystem-snapshot": name(v1alpha1.StepFreeze),
		"evidence-upload": name(v1alpha1.StepSnapshot), "podunfreeze": name(v1alpha1.StepUpload),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(released.Status.Responses) != 4 {
		t.Errorf("status lists %d responses", len(released.Status.Responses))
	}
}

func killedAnywhere(t *testing.T, w *world) {
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			*w.faults = faults{}
			pod, event := w.victim(fmt.Sprintf("killed-%d-%t", at, after))
			before, states := len(manifests(w.store)), len(stored(w.store, "/cluster-state-"))
			w.faults.at, w.faults.after = at, after
			held := w.drive(event, v1alpha1.IncidentHeld)
			w.acknowledge(held)
			released := w.drive(event, v1alpha1.IncidentReleased)
			for released.Labels[v1alpha1.LabelOpen] != "" {
				released = w.drive(event, v1alpha1.IncidentReleased)
			}
			checkChain(t, w, released)
			if got := len(manifests(w.store)) - before; got != 1 {
				t.Errorf("killed at write %d: %d manifests", at, got)
			}
			// The state of a pod that was labelled meanwhile is another one: what is put and not recorded stays, unnamed.
			if got := len(stored(w.store, "/cluster-state-")) - states; got < 1 || got > 2 {
				t.Errorf("killed at write %d: %d cluster states", at, got)
			}
			checkOnce(t, w, event)
			if label := w.labelOf(pod); label != "" {
				t.Errorf("killed at write %d: released pod has label %q", at, label)
			}
			if w.faults.writes < at {
				break
			}
		}
	}
}

// checkOnce wants one incident and one Forensic event for a trigger.
func checkOnce(t *testing.T, w *world, event *v1alpha1.SecurityEvent) {
	t.Helper()
	var incidents v1alpha1.IncidentList
	var outcomes v1alpha1.SecurityEventList
	for _, list := range []client.ObjectList{&incidents, &outcomes} {
		if err := w.base.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	opened, announced := 0, 0
	for _, found := range incidents.Items {
		if found.Spec.Trigger.UID == string(event.UID) {
			opened++
		}
	}
	for _, found := range outcomes.Items {
		if found.Spec.Trigger != nil && found.Spec.Trigger.UID == string(event.UID) {
			announced++
		}
	}
	if opened != 1 || announced != 1 {
		t.Errorf("%d incidents and %d outcome events", opened, announced)
	}
	w.get(event.Name, event)
	if !meta.IsStatusConditionTrue(event.Status.Conditions, v1alpha1.ConditionMatched) {
		t.Errorf("the event does not say that it matched: %+v", event.Status.Conditions)
	}
}
