package incident_test

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// reasonOf is what an incident's condition says.
func reasonOf(found *v1alpha1.Incident, condition string) (reason, message string) {
	if c := meta.FindStatusCondition(found.Status.Conditions, condition); c != nil {
		return c.Reason, c.Message
	}
	return "", ""
}

func (w *world) uploadOf(found *v1alpha1.Incident) *v1alpha1.EventResponse {
	w.t.Helper()
	response := &v1alpha1.EventResponse{}
	w.get(v1alpha1.ResponseName(found.Name, v1alpha1.StepUpload, 1), response)
	return response
}

// manifestOf is the manifest that an incident names.
func (w *world) manifestOf(found *v1alpha1.Incident) *evidence.Manifest {
	w.t.Helper()
	body, err := w.store.Open(w.t.Context(), found.Status.Manifest.Key, found.Status.Manifest.VersionID)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		w.t.Fatal(err)
	}
	manifest := &evidence.Manifest{}
	if err := json.Unmarshal(raw, manifest); err != nil {
		w.t.Fatal(err)
	}
	return manifest
}

// storeFull is full until somebody makes room, longer than anything else is waited for.
func storeFull(t *testing.T, w *world) {
	_, event := w.victim("full")
	w.refuse = func(string) error { return fmt.Errorf("put: %w", worm.ErrFull) }
	w.drive(event, v1alpha1.IncidentCapturing)
	w.steady(event, v1alpha1.IncidentCapturing)
	w.advance(5 * time.Minute)
	found := w.steady(event, v1alpha1.IncidentCapturing)
	if reason, message := reasonOf(found, v1alpha1.ConditionUploaded); reason != v1alpha1.ReasonStoreFull || !strings.Contains(message, "make room") {
		t.Fatalf("incident says %s: %s", reason, message)
	}
	complete := meta.FindStatusCondition(w.uploadOf(found).Status.Conditions, v1alpha1.ConditionComplete)
	if complete == nil || complete.Reason != v1alpha1.ReasonStoreFull || complete.Status != metav1.ConditionFalse {
		t.Fatalf("response says %+v", complete)
	}
	w.refuse = nil
	found = w.drive(event, v1alpha1.IncidentHeld)
	if reason, message := reasonOf(found, v1alpha1.ConditionUploaded); reason != v1alpha1.ReasonSucceeded || found.Status.ClusterState.Object == nil {
		t.Errorf("incident says %s: %s, cluster state %+v", reason, message, found.Status.ClusterState)
	}
}

// withoutClusterState is a store whose policy lets the controller put manifests only.
func withoutClusterState(t *testing.T, w *world) {
	_, event := w.victim("denied")
	before := len(manifests(w.store))
	w.refuse = func(key string) error {
		if strings.Contains(key, "/cluster-state-") {
			return fmt.Errorf("put: %w", worm.ErrDenied)
		}
		return nil
	}
	w.drive(event, v1alpha1.IncidentCapturing)
	found := w.steady(event, v1alpha1.IncidentCapturing)
	if reason, _ := reasonOf(found, v1alpha1.ConditionUploaded); reason != v1alpha1.ReasonStoreDenied || len(manifests(w.store)) != before {
		t.Fatalf("the manifest did not wait: %s", reason)
	}
	w.advance(3 * time.Minute)
	found = w.drive(event, v1alpha1.IncidentHeld)
	if reason, message := reasonOf(found, v1alpha1.ConditionUploaded); reason != v1alpha1.ReasonPartial || !strings.Contains(message, "API server") {
		t.Errorf("incident says %s: %s", reason, message)
	}
	order := w.uploadOf(found)
	if order.Status.Phase != v1alpha1.ResponsePartial || len(order.Status.Artifacts) != 1 || len(order.Status.Gaps) != 1 ||
		order.Status.Gaps[0].Reason != "ClusterStateMissing" {
		t.Errorf("response is %+v", order.Status)
	}
	manifest := w.manifestOf(found)
	if last := manifest.Gaps[len(manifest.Gaps)-1]; last.Reason != "ClusterStateMissing" || manifest.ClusterStateAt != nil || len(manifest.Artifacts) != 1 {
		t.Errorf("manifest has %d artifacts and the gaps %v", len(manifest.Artifacts), manifest.Gaps)
	}
}

// captureKept is an agent whose store does not take it, and then does.
func captureKept(t *testing.T, w *world) {
	_, event := w.victim("captured-full")
	kept := true
	say := func(response *v1alpha1.EventResponse, reason, message string) {
		meta.SetStatusCondition(&response.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionComplete, Status: metav1.ConditionUnknown, Reason: reason, Message: message,
		})
		if err := w.base.Status().Update(t.Context(), response); err != nil {
			t.Fatal(err)
		}
	}
	w.agent = func(response *v1alpha1.EventResponse) {
		switch {
		case response.Spec.Action.Type != v1alpha1.ActionFilesystemSnapshot:
			succeed(response)
		case kept:
			say(response, v1alpha1.ReasonStoreFull, "make room")
		default:
			say(response, v1alpha1.ReasonRunning, "capturing")
		}
	}
	w.drive(event, v1alpha1.IncidentCapturing)
	found := w.steady(event, v1alpha1.IncidentCapturing)
	if reason, message := reasonOf(found, v1alpha1.ConditionCaptured); reason != v1alpha1.ReasonStoreFull || message != "make room" {
		t.Fatalf("incident says %s: %s", reason, message)
	}
	kept = false
	found = w.steady(event, v1alpha1.IncidentCapturing)
	if reason, message := reasonOf(found, v1alpha1.ConditionCaptured); reason != v1alpha1.ReasonRunning {
		t.Errorf("incident still says %s: %s", reason, message)
	}
	w.agent = succeed
	w.drive(event, v1alpha1.IncidentHeld)
}
