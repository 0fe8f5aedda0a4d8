package verifytest

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

func (i *Incident) trigger(uid string) *v1alpha1.SecurityEvent {
	return &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{Name: "se-trigger", UID: types.UID(uid), CreationTimestamp: metav1.NewTime(i.begun)},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassDetection, Type: "HoneypotTriggered", Severity: v1alpha1.SeverityHigh,
			Source: v1alpha1.EventSource{Operator: "sensor"}, Subject: v1alpha1.EventSubject{Kind: "Pod", Namespace: "shop", Name: "web"},
		},
	}
}

func (i *Incident) completed(trigger string, upload *v1alpha1.EventResponse) *v1alpha1.SecurityEvent {
	stored := upload.Status.Artifacts[0].Segments[0]
	event := i.ending(trigger, "completed", v1alpha1.EventCaptureCompleted)
	event.Spec.Evidence = &v1alpha1.EvidenceRef{
		URL: "s3://" + Bucket + "/" + stored.Key, SHA256: stored.SHA256, VersionID: stored.VersionID, Size: stored.Size,
		MediaType: evidence.MediaTypeManifest,
	}
	return event
}

func (i *Incident) failed(trigger string) *v1alpha1.SecurityEvent {
	return i.ending(trigger, "failed", v1alpha1.EventCaptureFailed)
}

// ending is the event that ends the capture.
func (i *Incident) ending(trigger, name, kind string) *v1alpha1.SecurityEvent {
	return &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{Name: "se-" + i.Name + "-" + name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(i.begun)},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassForensic, Type: kind, Severity: v1alpha1.SeverityHigh,
			Source:   v1alpha1.EventSource{Operator: "ugallu-forensics"},
			Subject:  v1alpha1.EventSubject{Kind: "Pod", Namespace: "shop", Name: "web", UID: PodUID},
			Incident: &v1alpha1.IncidentRef{UID: IncidentUID}, Trigger: &v1alpha1.Ref{Name: "se-trigger", UID: trigger},
		},
	}
}

// order is a response that is complete, begun and ended so many seconds after the incident.
func (i *Incident) order(step v1alpha1.Step, node string, began, ended int) *v1alpha1.EventResponse {
	return &v1alpha1.EventResponse{
		ObjectMeta: metav1.ObjectMeta{
			Name: v1alpha1.ResponseName(i.Name, step, 1), UID: types.UID("uid-" + string(step)),
			Labels: map[string]string{v1alpha1.LabelStep: string(step)},
		},
		Spec: v1alpha1.EventResponseSpec{
			IncidentUID: IncidentUID, IncidentName: i.Name, SecurityEventRef: v1alpha1.Ref{Name: "se-trigger", UID: i.listed[0].Subject.UID},
			Attempt: 1, NodeName: node, PodRef: v1alpha1.PodRef{Namespace: "shop", Name: "web", UID: PodUID, NodeName: "node-1"},
		},
		Status: v1alpha1.EventResponseStatus{
			Phase: v1alpha1.ResponseSucceeded, StartedAt: i.at(began), CompletedAt: i.at(ended),
			Reporter: &v1alpha1.Reporter{Account: agent, NodeName: node},
		},
	}
}

func (i *Incident) freeze() *v1alpha1.EventResponse {
	freeze := i.order(v1alpha1.StepFreeze, node, 1, 2)
	freeze.Spec.Action.Type = v1alpha1.ActionPodFreeze
	flows := i.store("artifacts/flows.ndjson", []byte(`{"flow":1}`), evidence.RoleAttachment, "")
	freeze.Status.Containment = &v1alpha1.Containment{
		Level: v1alpha1.LevelFull, ContainedAt: i.at(1), FreezeMethod: v1alpha1.FreezeCgroupV2, FlowsObject: flows,
		Containers: []v1alpha1.ContainerFreeze{{ContainerID: "c1", Name: "web", FrozenAt: i.at(2)}, {ContainerID: "c2", Name: "log", FrozenAt: i.at(2)}},
	}
	return freeze
}

func (i *Incident) snapshot() *v1alpha1.EventResponse {
	snapshot := i.order(v1alpha1.StepSnapshot, node, 3, 60)
	snapshot.Spec.Action.Type = v1alpha1.ActionFilesystemSnapshot
	volatile := []byte(`{"process":1}`)
	snapshot.Status.Artifacts = []v1alpha1.Artifact{{
		Name: "volatile.ndjson", Kind: v1alpha1.ArtifactVolatileState, MediaType: "application/x-ndjson", Size: int64(len(volatile)),
		SHA256: evidence.Digest(volatile), FrozenThroughout: true,
		Segments: []v1alpha1.StoredObject{*i.store("artifacts/volatile.ndjson", volatile, evidence.RoleSegment, "volatile.ndjson")},
	}, i.archived(RootArtifact)}
	for n := range i.change.MoreArchives {
		snapshot.Status.Artifacts = append(snapshot.Status.Artifacts, i.archived(fmt.Sprintf("web/volume-%d.tar.zst", n+1)))
	}
	snapshot.Status.GapsObject = i.store("artifacts/gaps.jsonl", []byte(`{"path":"proc"}`), evidence.RoleAttachment, "")
	return snapshot
}

// archived stores the archive in two segments.
func (i *Incident) archived(name string) v1alpha1.Artifact {
	half := len(i.Archive.Stream) / 2
	beside := "artifacts/" + strings.TrimSuffix(name, ".tar.zst")
	artifact := v1alpha1.Artifact{
		Name: name, Kind: v1alpha1.ArtifactRootFilesystem, Container: "web", MediaType: i.Archive.MediaType,
		Size: int64(len(i.Archive.Stream)), SHA256: evidence.Digest(i.Archive.Stream), MerkleRoot: i.Archive.Root,
		IndexLines: i.Archive.Lines, FrozenThroughout: true,
		Index:    i.store(beside+".index.ndjson.zst", i.Archive.Index, evidence.RoleIndex, name),
		Timeline: i.store(beside+".timeline.zst", pack(i.t, []byte("0|/etc|0\n")), evidence.RoleTimeline, name),
		Segments: []v1alpha1.StoredObject{
			*i.store("artifacts/"+name+"/0", i.Archive.Stream[:half], evidence.RoleSegment, name),
			*i.store("artifacts/"+name+"/1", i.Archive.Stream[half:], evidence.RoleSegment, name),
		},
	}
	artifact.Segments[1].Index = 1
	return artifact
}

func (i *Incident) upload(covered ...*v1alpha1.EventResponse) *v1alpha1.EventResponse {
	upload := i.order(v1alpha1.StepUpload, "", 61, 62)
	upload.Spec.Action.Type = v1alpha1.ActionEvidenceUpload
	state := []byte("kind: Pod\n")
	cluster := i.store("artifacts/cluster-state-"+evidence.Digest(state)+".yaml", state, evidence.RoleSegment, "cluster-state.yaml")
	upload.Status.Artifacts = []v1alpha1.Artifact{{
		Name: "cluster-state.yaml", Kind: v1alpha1.ArtifactClusterState, MediaType: evidence.MediaTypeClusterState,
		Segments: []v1alpha1.StoredObject{*cluster}, Size: cluster.Size, SHA256: cluster.SHA256,
	}}
	manifest := i.manifest(append(covered, upload))
	manifest.Responses = manifest.Responses[:len(covered)]
	if i.change.Manifest != nil {
		i.change.Manifest(&manifest)
	}
	data := i.canonical(manifest)
	i.ManifestKey = evidence.ManifestKey(i.Prefix, evidence.Digest(data))
	stored := i.store(strings.TrimPrefix(i.ManifestKey, i.Prefix+"/"), data, evidence.RoleManifest, "")
	upload.Status.Artifacts = append([]v1alpha1.Artifact{{
		Name: "manifest", Kind: v1alpha1.ArtifactManifest, MediaType: evidence.MediaTypeManifest, Segments: []v1alpha1.StoredObject{*stored},
		Size: stored.Size, SHA256: stored.SHA256,
	}}, upload.Status.Artifacts...)
	return upload
}

func (i *Incident) unfreeze() *v1alpha1.EventResponse {
	unfreeze := i.order(v1alpha1.StepUnfreeze, node, 100, 101)
	unfreeze.Spec.Action.Type = v1alpha1.ActionPodUnfreeze
	unfreeze.Status.Containment = &v1alpha1.Containment{
		Level: v1alpha1.LevelFull, FreezeMethod: v1alpha1.FreezeCgroupV2,
		Containers: []v1alpha1.ContainerFreeze{{ContainerID: "c1", Name: "web", FrozenAt: i.at(2), ThawedAt: i.at(100)}},
	}
	return unfreeze
}
