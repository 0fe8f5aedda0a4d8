package attestor_test

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

func (w *world) newEvent() *v1alpha1.SecurityEvent {
	w.t.Helper()
	event := &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "event-"},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassDetection, Type: "HoneypotTriggered", Severity: v1alpha1.SeverityCritical,
			Source:  v1alpha1.EventSource{Operator: "test"},
			Subject: v1alpha1.EventSubject{Kind: "Pod", Namespace: "sandbox", Name: "victim"},
		},
	}
	w.create(event)
	return event
}

func (w *world) newIncident(trigger *v1alpha1.SecurityEvent) *v1alpha1.Incident {
	w.t.Helper()
	name := v1alpha1.IncidentName(string(trigger.UID))
	incident := &v1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.IncidentSpec{
			Trigger: v1alpha1.Trigger{
				Ref:  v1alpha1.Ref{Name: trigger.Name, UID: string(trigger.UID)},
				Type: trigger.Spec.Type, Severity: trigger.Spec.Severity, SpecSHA256: strings.Repeat("0", 64),
			},
			Pod:        pod(),
			SubjectUID: v1alpha1.SubjectDeclared,
			Freeze:     v1alpha1.PodFreezeAction{Processes: v1alpha1.FreezeUntilReleased, Memory: v1alpha1.MemoryNone},
			Snapshot:   w.snapshot(name),
			OnFailure:  v1alpha1.OnFailureHold, Disposition: v1alpha1.DispositionResume, RequiredAcknowledgements: 1,
			ConfigGeneration: 1,
		},
	}
	w.create(incident)
	return incident
}

func pod() v1alpha1.PodRef {
	return v1alpha1.PodRef{Namespace: "sandbox", Name: "victim", UID: "pod-uid", NodeName: "worker"}
}

func (w *world) snapshot(incident string) v1alpha1.FilesystemSnapshotAction {
	return v1alpha1.FilesystemSnapshotAction{
		Destination: v1alpha1.Destination{
			Bucket: "evidence", Prefix: v1alpha1.EvidencePrefix(incident), LockMode: v1alpha1.LockCompliance,
			RetainUntil: metav1.NewTime(w.clock.Now().Add(48 * time.Hour)),
		},
		Compression: v1alpha1.CompressionZstd, MaxBytes: resource.MustParse("1Gi"), MaxEntries: 100,
		MaxDuration: metav1.Duration{Duration: time.Minute},
	}
}

// newResponse is a step of an incident, which names it, not complete yet.
func (w *world) newResponse(incident *v1alpha1.Incident, step v1alpha1.Step, parent *v1alpha1.EventResponse) *v1alpha1.EventResponse {
	w.t.Helper()
	response := &v1alpha1.EventResponse{
		ObjectMeta: metav1.ObjectMeta{
			Name:   v1alpha1.ResponseName(incident.Name, step, 1),
			Labels: map[string]string{v1alpha1.LabelStep: string(step), v1alpha1.LabelIncidentUID: string(incident.UID)},
		},
		Spec: v1alpha1.EventResponseSpec{
			IncidentUID: string(incident.UID), IncidentName: incident.Name, SecurityEventRef: incident.Spec.Trigger.Ref,
			Attempt: 1, NodeName: "worker", PodRef: incident.Spec.Pod,
			Action: v1alpha1.Action{Type: v1alpha1.ActionPodFreeze, PodFreeze: &incident.Spec.Freeze},
		},
	}
	if step == v1alpha1.StepSnapshot {
		response.Spec.Action = v1alpha1.Action{
			Type: v1alpha1.ActionFilesystemSnapshot, FilesystemSnapshot: &incident.Spec.Snapshot,
		}
	}
	if parent != nil {
		response.Spec.ParentRef = &v1alpha1.Ref{Name: parent.Name, UID: string(parent.UID)}
	}
	w.create(response)
	w.get(client.ObjectKeyFromObject(incident), incident)
	incident.Status.Responses = append(incident.Status.Responses, v1alpha1.Ref{Name: response.Name, UID: string(response.UID)})
	if err := w.base.Status().Update(w.t.Context(), incident); err != nil {
		w.t.Fatal(err)
	}
	return response
}

// complete closes a response with artifacts of one segment each, by name and content.
func (w *world) complete(response *v1alpha1.EventResponse, artifacts map[string]string) {
	w.t.Helper()
	now := metav1.NewMicroTime(w.clock.Now())
	response.Status = v1alpha1.EventResponseStatus{
		Phase: v1alpha1.ResponseSucceeded, CompletedAt: &now,
		Reporter: &v1alpha1.Reporter{Account: "agent", NodeName: "worker", Realtime: now},
	}
	for name, content := range artifacts {
		digest := evidence.Digest([]byte(content))
		response.Status.Artifacts = append(response.Status.Artifacts, v1alpha1.Artifact{
			Name: name, Kind: v1alpha1.ArtifactRootFilesystem, MediaType: evidence.MediaTypeTarZstd,
			Size: int64(len(content)), SHA256: digest,
			Segments: []v1alpha1.StoredObject{{
				Key: "forensics/x/artifacts/" + name + "/0", VersionID: "version", SHA256: digest, Size: int64(len(content)),
				RetainUntil: metav1.NewTime(w.clock.Now().Add(48 * time.Hour)),
			}},
		})
	}
	if err := w.base.Status().Update(w.t.Context(), response); err != nil {
		w.t.Fatal(err)
	}
}

// giveVerdict writes what the read-back workload would.
func (w *world) giveVerdict(response *v1alpha1.EventResponse, verdict metav1.Condition, observed string) {
	w.t.Helper()
	bundle := w.bundle(response)
	verdict.Type, verdict.LastTransitionTime = v1alpha1.ConditionReadBack, metav1.NewTime(w.clock.Now())
	bundle.Status.Conditions = append(bundle.Status.Conditions, verdict)
	for _, object := range response.Status.StoredObjects() {
		bundle.Status.Observed = append(bundle.Status.Observed, v1alpha1.ObservedObject{
			Key: object.Key, VersionID: object.VersionID, SHA256: evidence.Digest([]byte(observed)), Size: object.Size,
			RetainUntil: object.RetainUntil, LockMode: v1alpha1.LockCompliance,
		})
	}
	if err := w.base.Status().Update(w.t.Context(), bundle); err != nil {
		w.t.Fatal(err)
	}
}
