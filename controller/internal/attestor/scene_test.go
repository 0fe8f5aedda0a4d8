package attestor_test

import (
	"bytes"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	describe "ugallu.io/forensics/internal/artifact"
	"ugallu.io/forensics/internal/worm"
)

// trust is what this start of the process trusts.
func (w *world) trust() map[string]string {
	return map[string]string{"trusted_root.json": "{}", "key.pub": fmt.Sprintf("key of start %d", w.starts)}
}

// scene is one incident, played as the controller and the node's agent would.
type scene struct {
	*world
	trigger, ending *v1alpha1.SecurityEvent
	incident        *v1alpha1.Incident
	responses       []*v1alpha1.EventResponse
}

func (w *world) newScene() *scene {
	w.t.Helper()
	trigger := w.newEvent()
	return &scene{world: w, trigger: trigger, incident: w.newIncident(trigger)}
}

// play an incident up to the end of its capture, with everything sealed.
func (w *world) play(ending string) *scene {
	w.t.Helper()
	s := w.newScene()
	w.run(s.trigger)
	freeze := s.step(v1alpha1.StepFreeze, 1, nil)
	s.finish(freeze, s.artifact("flows", `{"flow":1}`))
	snapshot := s.step(v1alpha1.StepSnapshot, 1, freeze)
	var manifest *v1alpha1.StoredObject
	if ending == v1alpha1.EventCaptureFailed {
		s.finish(snapshot)
	} else {
		s.finish(snapshot, s.artifact("rootfs", "every file"), s.artifact("logs", "every line"))
		upload := s.step(v1alpha1.StepUpload, 1, snapshot)
		manifest = s.upload(upload)
	}
	s.note(s.responses...)
	s.end(ending, manifest)
	for _, response := range s.responses {
		s.seal(response)
	}
	s.seal(s.ending)
	return s
}

// failShort has the capture fail after the freeze, with nothing sealed.
func (s *scene) failShort() *v1alpha1.EventResponse {
	s.t.Helper()
	freeze := s.step(v1alpha1.StepFreeze, 1, nil)
	s.finish(freeze)
	s.note(freeze)
	s.end(v1alpha1.EventCaptureFailed, nil)
	return freeze
}

// playShort plays the shortest incident, with everything sealed.
func (w *world) playShort() *scene {
	w.t.Helper()
	s := w.newScene()
	freeze := s.failShort()
	for _, object := range []client.Object{s.trigger, freeze, s.ending} {
		s.seal(object)
	}
	return s
}

// release lets the pod go, and has that sealed.
func (s *scene) release() {
	s.t.Helper()
	s.seal(s.free())
}

// free lets the pod go.
func (s *scene) free() *v1alpha1.EventResponse {
	s.t.Helper()
	unfreeze := s.step(v1alpha1.StepUnfreeze, 1, s.responses[len(s.responses)-1])
	s.finish(unfreeze)
	s.note(unfreeze)
	s.update(func(status *v1alpha1.IncidentStatus) {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionReleased, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded,
		})
	})
	return unfreeze
}

func (s *scene) step(step v1alpha1.Step, attempt int32, parent *v1alpha1.EventResponse) *v1alpha1.EventResponse {
	s.t.Helper()
	incident := s.incident
	response := &v1alpha1.EventResponse{
		ObjectMeta: metav1.ObjectMeta{
			Name:   v1alpha1.ResponseName(incident.Name, step, attempt),
			Labels: map[string]string{v1alpha1.LabelStep: string(step), v1alpha1.LabelIncidentUID: string(incident.UID)},
		},
		Spec: v1alpha1.EventResponseSpec{
			IncidentUID: string(incident.UID), IncidentName: incident.Name, SecurityEventRef: incident.Spec.Trigger.Ref,
			Attempt: attempt, NodeName: incident.Spec.Pod.NodeName, PodRef: incident.Spec.Pod,
		},
	}
	if parent != nil {
		response.Spec.ParentRef = &v1alpha1.Ref{Name: parent.Name, UID: string(parent.UID)}
	}
	action := &response.Spec.Action
	switch step {
	case v1alpha1.StepFreeze:
		*action = v1alpha1.Action{Type: v1alpha1.ActionPodFreeze, PodFreeze: &incident.Spec.Freeze}
	case v1alpha1.StepSnapshot:
		*action = v1alpha1.Action{Type: v1alpha1.ActionFilesystemSnapshot, FilesystemSnapshot: &incident.Spec.Snapshot}
	case v1alpha1.StepUpload:
		response.Spec.NodeName = ""
		*action = v1alpha1.Action{Type: v1alpha1.ActionEvidenceUpload, EvidenceUpload: &v1alpha1.EvidenceUploadAction{
			Destination: incident.Spec.Snapshot.Destination, Responses: []v1alpha1.Ref{{Name: parent.Name, UID: string(parent.UID)}},
		}}
	case v1alpha1.StepUnfreeze:
		*action = v1alpha1.Action{Type: v1alpha1.ActionPodUnfreeze, PodUnfreeze: &v1alpha1.PodUnfreezeAction{
			Reason: v1alpha1.ReleaseAcknowledged, Disposition: incident.Spec.Disposition,
		}}
	}
	s.create(response)
	s.responses = append(s.responses, response)
	return response
}

// put stores something of the incident.
func (s *scene) put(key string, data []byte) v1alpha1.StoredObject {
	s.t.Helper()
	to := s.incident.Spec.Snapshot.Destination
	lock := worm.Lock{Mode: string(to.LockMode), RetainUntil: to.RetainUntil.Time}
	object, err := s.store.Put(s.t.Context(), to.Prefix+"/"+key, bytes.NewReader(data), lock)
	if err != nil {
		s.t.Fatal(err)
	}
	return v1alpha1.StoredObject{
		Key: object.Key, VersionID: object.VersionID, SHA256: object.SHA256, Size: object.Size, RetainUntil: metav1.NewTime(object.Lock.RetainUntil),
	}
}

// artifact of one segment, with a timeline, stored.
func (s *scene) artifact(name, content string) v1alpha1.Artifact {
	s.t.Helper()
	timeline := s.put("artifacts/"+name+"/timeline", []byte("0|"+name))
	return v1alpha1.Artifact{
		Name: name, Timeline: &timeline, Kind: v1alpha1.ArtifactLogs, MediaType: "text/plain", Size: int64(len(content)), SHA256: evidence.Digest([]byte(content)),
		Segments: []v1alpha1.StoredObject{s.put("artifacts/"+name+"/0", []byte(content))},
	}
}

// finish closes a response.
func (s *scene) finish(response *v1alpha1.EventResponse, artifacts ...v1alpha1.Artifact) {
	s.t.Helper()
	now := metav1.NewMicroTime(s.clock.Now())
	response.Status = v1alpha1.EventResponseStatus{
		Phase: v1alpha1.ResponseSucceeded, StartedAt: &now, CompletedAt: &now, Artifacts: artifacts,
		Reporter: &v1alpha1.Reporter{Account: "agent", NodeName: "worker", Realtime: now},
	}
	if err := s.base.Status().Update(s.t.Context(), response); err != nil {
		s.t.Fatal(err)
	}
}

// upload stores the manifest and closes the response that ordered it.
func (s *scene) upload(response *v1alpha1.EventResponse) *v1alpha1.StoredObject {
	s.t.Helper()
	to, pod := s.incident.Spec.Snapshot.Destination, s.incident.Spec.Pod
	manifest := evidence.Manifest{
		Version:     evidence.ManifestVersion,
		Incident:    evidence.Reference{Name: s.incident.Name, UID: string(s.incident.UID)},
		Trigger:     evidence.Reference{Name: s.trigger.Name, UID: string(s.trigger.UID)},
		Pod:         evidence.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Node: pod.NodeName},
		RetainUntil: to.RetainUntil.UTC(), Gaps: []evidence.Gap{},
	}
	for _, covered := range s.responses[:len(s.responses)-1] {
		manifest.Responses = append(manifest.Responses, evidence.ResponseSummary{
			Reference: evidence.Reference{Name: covered.Name, UID: string(covered.UID)}, Step: covered.Labels[v1alpha1.LabelStep],
			Phase: string(covered.Status.Phase), CompletedAt: covered.Status.CompletedAt.UTC(),
		})
		for _, artifact := range covered.Status.Artifacts {
			manifest.Artifacts = append(manifest.Artifacts, describe.Evidence(&artifact, evidence.Asserted{By: "agent", Node: "worker"}, nil))
		}
	}
	data, err := evidence.Canonical(manifest)
	if err != nil {
		s.t.Fatal(err)
	}
	stored := s.put("manifest-"+evidence.Digest(data)+".json", data)
	s.finish(response, v1alpha1.Artifact{
		Name: "manifest", Kind: v1alpha1.ArtifactManifest, MediaType: evidence.MediaTypeManifest, Size: stored.Size, SHA256: stored.SHA256,
		Segments: []v1alpha1.StoredObject{stored},
	})
	return &stored
}

// end announces how the capture ended.
func (s *scene) end(eventType string, manifest *v1alpha1.StoredObject) {
	s.t.Helper()
	pod := s.incident.Spec.Pod
	s.ending = &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.OutcomeEventName(s.incident.Name, eventType)},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassForensic, Type: eventType, Severity: v1alpha1.SeverityCritical, Source: v1alpha1.EventSource{Operator: "test"},
			Subject:  v1alpha1.EventSubject{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
			Incident: &v1alpha1.IncidentRef{UID: string(s.incident.UID)}, Trigger: &s.incident.Spec.Trigger.Ref,
		},
	}
	if manifest != nil {
		s.ending.Spec.Evidence = &v1alpha1.EvidenceRef{
			URL: "s3://evidence/" + manifest.Key, SHA256: manifest.SHA256, VersionID: manifest.VersionID, Size: manifest.Size,
			MediaType: evidence.MediaTypeManifest,
		}
	}
	s.create(s.ending)
	s.update(func(status *v1alpha1.IncidentStatus) {
		status.CompletionEvent = &v1alpha1.Ref{Name: s.ending.Name, UID: string(s.ending.UID)}
	})
}

// note names responses on the incident.
func (s *scene) note(responses ...*v1alpha1.EventResponse) {
	s.t.Helper()
	s.update(func(status *v1alpha1.IncidentStatus) {
		for _, response := range responses {
			status.Responses = append(status.Responses, v1alpha1.Ref{Name: response.Name, UID: string(response.UID)})
		}
	})
}

func (s *scene) update(change func(*v1alpha1.IncidentStatus)) {
	s.t.Helper()
	s.get(client.ObjectKeyFromObject(s.incident), s.incident)
	change(&s.incident.Status)
	for i := range s.incident.Status.Conditions {
		s.incident.Status.Conditions[i].LastTransitionTime = metav1.NewTime(s.clock.Now().Truncate(time.Second))
	}
	if err := s.base.Status().Update(s.t.Context(), s.incident); err != nil {
		s.t.Fatal(err)
	}
}

// seal has an object attested, after its objects were read back as asserted.
func (s *scene) seal(object client.Object) {
	s.t.Helper()
	response, ok := object.(*v1alpha1.EventResponse)
	if ok && len(response.Status.StoredObjects()) > 0 {
		s.world.step(object)
		bundle := s.bundle(object)
		bundle.Status.Conditions = append(bundle.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionReadBack, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, Message: "as asserted",
			LastTransitionTime: metav1.NewTime(s.clock.Now()),
		})
		for _, stored := range response.Status.StoredObjects() {
			bundle.Status.Observed = append(bundle.Status.Observed, v1alpha1.ObservedObject{
				Key: stored.Key, VersionID: stored.VersionID, SHA256: stored.SHA256, Size: stored.Size, RetainUntil: stored.RetainUntil,
				LockMode: v1alpha1.LockCompliance,
			})
		}
		if err := s.base.Status().Update(s.t.Context(), bundle); err != nil {
			s.t.Fatal(err)
		}
	}
	s.run(object)
}

// due are the bundles of the incident's custody records that exist.
func (s *scene) due() (names []string) {
	s.t.Helper()
	for _, number := range []int32{1, 2} {
		name := v1alpha1.CustodyBundleName(string(s.incident.UID), number)
		err := s.base.Get(s.t.Context(), client.ObjectKey{Name: name}, &v1alpha1.AttestationBundle{})
		if client.IgnoreNotFound(err) != nil {
			s.t.Fatal(err)
		}
		if err == nil {
			names = append(names, name)
		}
	}
	return names
}
