package incident_test

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

func withoutReadBack(t *testing.T, w *world) {
	pod, event := w.victim("unread")
	// The capture is closed, but its bundle stays without a read-back.
	name := v1alpha1.ResponseName(v1alpha1.IncidentName(string(event.UID)), v1alpha1.StepSnapshot, 1)
	w.agent = func(response *v1alpha1.EventResponse) {
		if response.Name == name {
			w.create(&v1alpha1.AttestationBundle{
				ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.BundleName(string(response.UID))},
				Spec: v1alpha1.AttestationBundleSpec{AttestedFor: v1alpha1.AttestedFor{
					Kind: v1alpha1.AttestedEventResponse, Ref: v1alpha1.Ref{Name: response.Name, UID: string(response.UID)},
				}},
			})
		}
		succeed(response)
	}
	w.drive(event, v1alpha1.IncidentCapturing)
	w.steady(event, v1alpha1.IncidentCapturing)
	if len(manifests(w.store)) != 0 {
		t.Fatal("the manifest did not wait for the read-back")
	}
	w.advance(3 * time.Minute)
	w.drive(event, v1alpha1.IncidentHeld)
	stored := manifests(w.store)
	body, err := w.store.Open(t.Context(), stored[0].Key, "")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	var manifest evidence.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		t.Fatal(err)
	}
	missing := slices.ContainsFunc(manifest.Gaps, func(gap evidence.Gap) bool { return gap.Reason == "ReadBackMissing" && gap.Count == 1 })
	if !missing || manifest.Artifacts[1].Observed != nil || manifest.Pod.UID != string(pod.UID) {
		t.Fatalf("gaps are %v, observed is %v", manifest.Gaps, manifest.Artifacts[1].Observed)
	}
}

// misread is a capture that the read-back found to be something else than what the node asserted.
func misread(t *testing.T, w *world) {
	_, event := w.victim("misread")
	name := v1alpha1.ResponseName(v1alpha1.IncidentName(string(event.UID)), v1alpha1.StepSnapshot, 1)
	w.agent = func(response *v1alpha1.EventResponse) {
		if response.Name == name {
			bundle := &v1alpha1.AttestationBundle{
				ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.BundleName(string(response.UID))},
				Spec: v1alpha1.AttestationBundleSpec{AttestedFor: v1alpha1.AttestedFor{
					Kind: v1alpha1.AttestedEventResponse, Ref: v1alpha1.Ref{Name: response.Name, UID: string(response.UID)},
				}},
			}
			w.create(bundle)
			meta.SetStatusCondition(&bundle.Status.Conditions, metav1.Condition{
				Type: v1alpha1.ConditionReadBack, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonDigestMismatch, Message: "other bytes",
			})
			if err := w.base.Status().Update(t.Context(), bundle); err != nil {
				t.Error(err)
			}
		}
		succeed(response)
	}
	held := w.drive(event, v1alpha1.IncidentHeld)
	uploaded := meta.FindStatusCondition(held.Status.Conditions, v1alpha1.ConditionUploaded)
	if uploaded.Status != metav1.ConditionTrue || uploaded.Reason != v1alpha1.ReasonDigestMismatch || !strings.Contains(uploaded.Message, "other bytes") {
		t.Errorf("Uploaded is %+v", uploaded)
	}
}

func dryRun(t *testing.T, w *world) {
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.DryRun = true })
	pod, event := w.victim("imagined")
	w.drive(event, v1alpha1.IncidentReleased)
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.DryRun = false })
	released := w.steady(event, v1alpha1.IncidentReleased)
	if got := conditions(released); got["Contained"] != "False/DryRun" || got["Released"] != "True/DryRun" {
		t.Fatalf("conditions are %v", got)
	}
	if _, err := w.policyOf(pod); !apierrors.IsNotFound(err) || w.labelOf(pod) != "" || released.Labels[v1alpha1.LabelOpen] != "" {
		t.Fatalf("a dry run left policy %v, label %q, open %q", err, w.labelOf(pod), released.Labels[v1alpha1.LabelOpen])
	}
	var responses v1alpha1.EventResponseList
	if err := w.base.List(t.Context(), &responses, client.MatchingLabels{v1alpha1.LabelIncidentUID: string(released.UID)}); err != nil {
		t.Fatal(err)
	}
	if len(responses.Items) != 0 {
		t.Fatalf("a dry run ordered %d responses", len(responses.Items))
	}
}

func takesTurns(t *testing.T, w *world) {
	var running v1alpha1.EventResponseList
	if err := w.base.List(t.Context(), &running, client.MatchingLabels{v1alpha1.LabelStep: string(v1alpha1.StepSnapshot)}); err != nil {
		t.Fatal(err)
	}
	limit := int32(1)
	for i := range running.Items {
		if running.Items[i].Status.CompletedAt == nil {
			limit++
		}
	}
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.MaxConcurrentIncidents = &limit })
	slow := func(response *v1alpha1.EventResponse) {
		if response.Spec.Action.Type != v1alpha1.ActionFilesystemSnapshot {
			succeed(response)
		}
	}
	w.agent = slow
	_, first := w.victim("first")
	_, second := w.victim("second")
	w.drive(first, v1alpha1.IncidentCapturing)
	w.steady(first, v1alpha1.IncidentCapturing)
	w.drive(second, v1alpha1.IncidentCapturing)
	waiting := w.steady(second, v1alpha1.IncidentCapturing)
	if got := conditions(waiting); got["Contained"] != "True/Succeeded" || got["Captured"] != "False/Waiting" {
		t.Fatalf("conditions are %v", got)
	}
	w.agent = succeed
	w.drive(first, v1alpha1.IncidentHeld)
	w.drive(second, v1alpha1.IncidentHeld)
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.MaxConcurrentIncidents = nil })
}

func foreignOrder(t *testing.T, w *world) {
	pod, event := w.victim("foreign")
	name := v1alpha1.IncidentName(string(event.UID))
	w.create(&v1alpha1.EventResponse{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.ResponseName(name, v1alpha1.StepFreeze, 1)},
		Spec: v1alpha1.EventResponseSpec{
			IncidentUID: "made-up", IncidentName: name, SecurityEventRef: v1alpha1.Ref{Name: event.Name, UID: string(event.UID)},
			Attempt: 1, NodeName: "elsewhere",
			PodRef: v1alpha1.PodRef{Namespace: namespace, Name: pod.Name, UID: string(pod.UID), NodeName: "elsewhere"},
			Action: v1alpha1.Action{Type: v1alpha1.ActionPodFreeze, PodFreeze: &v1alpha1.PodFreezeAction{Processes: v1alpha1.FreezeNever, Memory: v1alpha1.MemoryNone}},
		},
	})
	failed := w.drive(event, v1alpha1.IncidentFailed)
	if got := conditions(failed); got["Failed"] != "True/OrderRefused" {
		t.Fatalf("conditions are %v", got)
	}
	if w.labelOf(pod) != string(failed.UID) {
		t.Fatal("the pod is not labelled")
	}
}

func notOpenedAgain(t *testing.T, w *world) {
	_, event := w.victim("settled")
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.WhitelistedTypes = []string{"Other"} })
	if err := w.round(event); err != nil {
		t.Fatal(err)
	}
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.WhitelistedTypes = []string{"HoneypotTriggered"} })
	w.restart()
	if err := w.round(event); err != nil {
		t.Fatal(err)
	}
	w.get(event.Name, event)
	matched := meta.FindStatusCondition(event.Status.Conditions, v1alpha1.ConditionMatched)
	if matched == nil || matched.Reason != "TypeNotWhitelisted" {
		t.Fatalf("verdict is %+v", matched)
	}
	var found v1alpha1.Incident
	err := w.base.Get(t.Context(), client.ObjectKey{Name: v1alpha1.IncidentName(string(event.UID))}, &found)
	if !apierrors.IsNotFound(err) {
		t.Fatalf("a settled event opened an incident: %v", err)
	}
}
