package verifytest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// Names of what every incident is made of.
const (
	Bucket       = "evidence"
	TriggerUID   = "b1a1c0de-0000-4000-8000-000000000001"
	IncidentUID  = "b1a1c0de-0000-4000-8000-000000000002"
	PodUID       = "b1a1c0de-0000-4000-8000-000000000003"
	RootArtifact = "web/rootfs.tar.zst"

	agent    = "system:serviceaccount:ugallu-system-privileged:ugallu-forensics-nodeagent"
	readBack = "system:serviceaccount:ugallu-system-privileged:ugallu-forensics-snapshot"
	node     = "node-1"
)

// Change alters what is said before it is signed; each may be nil.
type Change struct {
	// Signer of the statement about the object of this name; of a custody record custody-1 and custody-2.
	Signer    func(name string) Signature
	Event     func(*v1alpha1.SecurityEvent)
	Response  func(*v1alpha1.EventResponse)
	Predicate func(*evidence.EventResponsePredicate)
	Manifest  func(*evidence.Manifest)
	Record    func(*evidence.Custody)
	Incident  func(*evidence.IncidentPredicate)
	// Archive to be stored in place of the usual one.
	Archive *Archive
}

// Incident is a whole incident in a store: sealed, released, with a custody record of each kind.
type Incident struct {
	*Store
	// Name of the incident, and the prefix of its keys.
	Name, Prefix string
	// ManifestKey, and the keys of the records.
	ManifestKey, Captured, Released string
	Archive                         Archive
	Authority                       *Authority

	t        testing.TB
	put      Put
	change   Change
	begun    time.Time
	lock     worm.Lock
	listed   []evidence.CustodyStatement
	objects  []evidence.CustodyObject
	payloads map[types.UID]string
}

// NewIncident makes an incident of its own trigger.
func NewIncident(t testing.TB, authority *Authority, change Change) *Incident {
	t.Helper()
	return NewIncidentOf(t, authority, TriggerUID, change)
}

// NewIncidentOf makes the incident that a trigger with this uid opens.
func NewIncidentOf(t testing.TB, authority *Authority, trigger string, change Change) *Incident {
	t.Helper()
	store := NewStore(t)
	i := newIncident(t, authority, store.Put, trigger, change)
	i.Store = store
	return i
}

// Put stores an object and returns what was stored.
type Put func(key string, data []byte, lock worm.Lock) worm.Object

// NewIncidentIn makes an incident in a store of the caller's; its own Store is nil.
func NewIncidentIn(t testing.TB, authority *Authority, put Put) *Incident {
	t.Helper()
	return newIncident(t, authority, put, TriggerUID, Change{})
}

func newIncident(t testing.TB, authority *Authority, put Put, trigger string, change Change) *Incident {
	t.Helper()
	name := v1alpha1.IncidentName(trigger)
	i := &Incident{
		Name: name, Prefix: v1alpha1.EvidencePrefix(name), Archive: authority.archive, Authority: authority,
		t: t, put: put, change: change, begun: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		lock:     worm.Lock{Mode: "COMPLIANCE", RetainUntil: time.Date(2036, 3, 1, 0, 0, 0, 0, time.UTC)},
		payloads: map[types.UID]string{},
	}
	if change.Archive != nil {
		i.Archive = *change.Archive
	}
	i.event(i.trigger(trigger))
	freeze := i.freeze()
	i.response(freeze, nil)
	snapshot := i.snapshot()
	i.response(snapshot, freeze)
	upload := i.upload(freeze, snapshot)
	i.response(upload, snapshot)
	i.event(i.completed(trigger, upload))
	captured := i.record(evidence.CustodyCaptured, nil)
	i.Captured = captured.Key
	i.response(i.unfreeze(), upload)
	i.Released = i.record(evidence.CustodyReleased, &captured).Key
	return i
}

func (i *Incident) at(seconds int) *metav1.MicroTime {
	at := metav1.NewMicroTime(i.begun.Add(time.Duration(seconds) * time.Second))
	return &at
}

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
	return &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{Name: "se-" + i.Name + "-completed", UID: "uid-completed", CreationTimestamp: metav1.NewTime(i.begun)},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassForensic, Type: v1alpha1.EventCaptureCompleted, Severity: v1alpha1.SeverityHigh,
			Source:   v1alpha1.EventSource{Operator: "ugallu-forensics"},
			Subject:  v1alpha1.EventSubject{Kind: "Pod", Namespace: "shop", Name: "web", UID: PodUID},
			Incident: &v1alpha1.IncidentRef{UID: IncidentUID}, Trigger: &v1alpha1.Ref{Name: "se-trigger", UID: trigger},
			Evidence: &v1alpha1.EvidenceRef{
				URL: "s3://" + Bucket + "/" + stored.Key, SHA256: stored.SHA256, VersionID: stored.VersionID, Size: stored.Size,
				MediaType: evidence.MediaTypeManifest,
			},
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
	half := len(i.Archive.Stream) / 2
	index := i.store("artifacts/web/rootfs.index.ndjson.zst", i.Archive.Index, evidence.RoleIndex, RootArtifact)
	timeline := i.store("artifacts/web/rootfs.timeline.zst", pack(i.t, []byte("0|/etc|0\n")), evidence.RoleTimeline, RootArtifact)
	volatile := []byte(`{"process":1}`)
	snapshot.Status.Artifacts = []v1alpha1.Artifact{{
		Name: "volatile.ndjson", Kind: v1alpha1.ArtifactVolatileState, MediaType: "application/x-ndjson", Size: int64(len(volatile)),
		SHA256: evidence.Digest(volatile), FrozenThroughout: true,
		Segments: []v1alpha1.StoredObject{*i.store("artifacts/volatile.ndjson", volatile, evidence.RoleSegment, "volatile.ndjson")},
	}, {
		Name: RootArtifact, Kind: v1alpha1.ArtifactRootFilesystem, Container: "web", MediaType: i.Archive.MediaType,
		Size: int64(len(i.Archive.Stream)), SHA256: evidence.Digest(i.Archive.Stream), MerkleRoot: i.Archive.Root,
		IndexLines: i.Archive.Lines, Index: index, Timeline: timeline, FrozenThroughout: true,
		Segments: []v1alpha1.StoredObject{
			*i.store("artifacts/"+RootArtifact+"/0", i.Archive.Stream[:half], evidence.RoleSegment, RootArtifact),
			*i.store("artifacts/"+RootArtifact+"/1", i.Archive.Stream[half:], evidence.RoleSegment, RootArtifact),
		},
	}}
	snapshot.Status.Artifacts[1].Segments[1].Index = 1
	snapshot.Status.GapsObject = i.store("artifacts/gaps.jsonl", []byte(`{"path":"proc"}`), evidence.RoleAttachment, "")
	return snapshot
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

func (i *Incident) manifest(covered []*v1alpha1.EventResponse) evidence.Manifest {
	manifest := evidence.Manifest{
		Version: evidence.ManifestVersion, Incident: evidence.Reference{Name: i.Name, UID: IncidentUID}, Trigger: i.listed[0].Subject,
		Pod: i.pod(), RetainUntil: i.lock.RetainUntil, Gaps: []evidence.Gap{},
	}
	for _, response := range covered {
		manifest.Responses = append(manifest.Responses, evidence.ResponseSummary{
			Reference: evidence.Reference{Name: response.Name, UID: string(response.UID)}, Step: response.Labels[v1alpha1.LabelStep],
			Phase: string(response.Status.Phase), CompletedAt: response.Status.CompletedAt.UTC(),
		})
		manifest.Artifacts = append(manifest.Artifacts, artifacts(response)...)
	}
	manifest.Containment = i.canonical(covered[0].Status.Containment)
	return manifest
}

func (i *Incident) pod() evidence.Pod {
	return evidence.Pod{Namespace: "shop", Name: "web", UID: PodUID, Node: node}
}

// store puts an object below the prefix and remembers it for the record.
func (i *Incident) store(name string, data []byte, role evidence.ObjectRole, artifact string) *v1alpha1.StoredObject {
	put := i.put(i.Prefix+"/"+name, data, i.lock)
	stored := listing(put)
	i.objects = append(i.objects, evidence.CustodyObject{StoredVersion: stored, Role: role, Artifact: artifact})
	return &v1alpha1.StoredObject{
		Key: put.Key, VersionID: put.VersionID, Size: put.Size, SHA256: put.SHA256, RetainUntil: metav1.NewTime(put.Lock.RetainUntil),
	}
}

func listing(put worm.Object) evidence.StoredVersion {
	return evidence.StoredVersion{
		Key: put.Key, VersionID: put.VersionID, Size: put.Size, SHA256: put.SHA256, RetainUntil: put.Lock.RetainUntil,
	}
}

// record makes a custody record and the statement over it.
func (i *Incident) record(number int, previous *evidence.StoredVersion) evidence.StoredVersion {
	i.t.Helper()
	custody := evidence.Custody{
		Version: evidence.CustodyVersion, Number: number, Incident: evidence.Reference{Name: i.Name, UID: IncidentUID},
		Trigger: i.listed[0].Subject, Pod: i.pod(), RetainUntil: i.lock.RetainUntil, LockMode: i.lock.Mode, Previous: previous,
		Statements: slices.Clone(i.listed), Objects: slices.Clone(i.objects),
	}
	slices.SortFunc(custody.Objects, func(a, b evidence.CustodyObject) int { return strings.Compare(a.Key, b.Key) })
	if i.change.Record != nil {
		i.change.Record(&custody)
	}
	data := i.canonical(custody)
	put := i.put(evidence.CustodyKey(i.Prefix, number, evidence.Digest(data)), data, i.lock)
	predicate := evidence.IncidentPredicate{
		Incident: custody.Incident, Number: number, Previous: custody.Statements[len(custody.Statements)-1].PayloadSHA256,
		Attestor: evidence.Attestor{Account: Identity, At: i.begun},
	}
	if previous != nil {
		predicate.PreviousCustody = previous.SHA256
	}
	if i.change.Incident != nil {
		i.change.Incident(&predicate)
	}
	name := put.Key[len(i.Prefix)+1:]
	payload := i.statement(evidence.PredicateTypeIncident, predicate, evidence.SHA256Subject(name, put.SHA256))
	bundle := i.seal(name[:len("custody-1")], payload, evidence.CustodyBundleKey(put.Key))
	i.listed = append(i.listed, evidence.CustodyStatement{
		Kind: evidence.StatementIncident, Subject: custody.Incident, PayloadSHA256: evidence.Digest(payload), Bundle: bundle,
	})
	return listing(put)
}

func (i *Incident) event(event *v1alpha1.SecurityEvent) {
	i.t.Helper()
	if i.change.Event != nil {
		i.change.Event(event)
	}
	spec := i.canonical(event.Spec)
	payload := i.statement(evidence.PredicateTypeSecurityEvent, evidence.SecurityEventPredicate{
		Event: evidence.Reference{Name: event.Name, UID: string(event.UID)}, CreatedAt: event.CreationTimestamp.UTC(), Spec: spec,
		Attestor: evidence.Attestor{Account: Identity, At: i.begun},
	}, evidence.SHA256Subject(event.Name, evidence.Digest(spec)))
	key := i.Prefix + "/bundles/" + v1alpha1.BundleName(string(event.UID)) + ".sigstore.json"
	if event.Spec.Class != v1alpha1.ClassForensic {
		key = evidence.TriggerBundleKey(string(event.UID))
	}
	i.list(evidence.StatementSecurityEvent, &event.ObjectMeta, payload, key)
}

func (i *Incident) response(response, parent *v1alpha1.EventResponse) {
	i.t.Helper()
	predicate := evidence.EventResponsePredicate{}
	if parent != nil {
		response.Spec.ParentRef = &v1alpha1.Ref{Name: parent.Name, UID: string(parent.UID)}
		predicate.Previous = i.payloads[parent.UID]
	}
	if i.change.Response != nil {
		i.change.Response(response)
	}
	predicate.Response = evidence.Reference{Name: response.Name, UID: string(response.UID)}
	predicate.IncidentUID, predicate.Step = response.Spec.IncidentUID, response.Labels[v1alpha1.LabelStep]
	predicate.Spec, predicate.Outcome = i.canonical(response.Spec), i.canonical(response.Status)
	predicate.Artifacts = observed(artifacts(response))
	for _, attachment := range response.Status.Attachments() {
		read := segment(attachment)
		read.ObservedSHA256 = read.SHA256
		predicate.Attachments = append(predicate.Attachments, read)
	}
	if len(response.Status.StoredObjects()) > 0 {
		predicate.ReadBack = &evidence.ReadBack{By: readBack, Agrees: true, Message: "every version was read back"}
	}
	predicate.Attestor = evidence.Attestor{Account: Identity, At: i.begun}
	if i.change.Predicate != nil {
		i.change.Predicate(&predicate)
	}
	closed := i.canonical(map[string]json.RawMessage{"spec": predicate.Spec, "outcome": predicate.Outcome})
	subjects := []evidence.Subject{evidence.SHA256Subject(response.Name, evidence.Digest(closed))}
	for _, artifact := range predicate.Artifacts {
		subjects = append(subjects, evidence.SHA256Subject(artifact.Name, artifact.Asserted.SHA256))
	}
	payload := i.statement(evidence.PredicateTypeEventResponse, predicate, subjects...)
	i.payloads[response.UID] = evidence.Digest(payload)
	i.list(evidence.StatementEventResponse, &response.ObjectMeta, payload,
		i.Prefix+"/bundles/"+v1alpha1.BundleName(string(response.UID))+".sigstore.json")
}

func (i *Incident) list(kind evidence.StatementKind, object *metav1.ObjectMeta, payload []byte, key string) {
	i.listed = append(i.listed, evidence.CustodyStatement{
		Kind: kind, Subject: evidence.Reference{Name: object.Name, UID: string(object.UID)}, Step: object.Labels[v1alpha1.LabelStep],
		PayloadSHA256: evidence.Digest(payload), Bundle: i.seal(object.Name, payload, key),
	})
}

func (i *Incident) seal(name string, payload []byte, key string) evidence.StoredVersion {
	by := Keyless()
	if i.change.Signer != nil {
		by = i.change.Signer(name)
	}
	return listing(i.put(key, i.Authority.Seal(payload, by), i.lock))
}

func (i *Incident) statement(kind string, predicate any, subjects ...evidence.Subject) []byte {
	return i.canonical(evidence.Statement{Type: evidence.StatementType, Subject: subjects, PredicateType: kind, Predicate: predicate})
}

func (i *Incident) canonical(value any) []byte {
	i.t.Helper()
	data, err := evidence.Canonical(value)
	must(i.t, err)
	return data
}

// artifacts of a response as its executor asserts them.
func artifacts(response *v1alpha1.EventResponse) []evidence.Artifact {
	var found []evidence.Artifact
	for _, artifact := range response.Status.Artifacts {
		out := evidence.Artifact{
			Name: artifact.Name, Kind: string(artifact.Kind), Container: artifact.Container, MediaType: artifact.MediaType, Size: artifact.Size,
			Entries: artifact.Entries, MerkleRoot: artifact.MerkleRoot, IndexLines: artifact.IndexLines,
			Asserted: evidence.Asserted{By: agent, Node: node, SHA256: artifact.SHA256}, FrozenThroughout: artifact.FrozenThroughout,
		}
		for _, object := range artifact.Segments {
			out.Segments = append(out.Segments, segment(object))
		}
		if artifact.Index != nil {
			index, timeline := segment(*artifact.Index), segment(*artifact.Timeline)
			out.Index, out.Timeline = &index, &timeline
		}
		found = append(found, out)
	}
	return found
}

func segment(object v1alpha1.StoredObject) evidence.Segment {
	return evidence.Segment{
		Index: object.Index, Key: object.Key, VersionID: object.VersionID, Size: object.Size, SHA256: object.SHA256, RetainUntil: object.RetainUntil.UTC(),
	}
}

// observed is what the read-back found, which is what was asserted.
func observed(artifacts []evidence.Artifact) []evidence.Artifact {
	for a := range artifacts {
		artifact := &artifacts[a]
		artifact.Observed = &evidence.Observed{By: readBack, SHA256: artifact.Asserted.SHA256}
		for s := range artifact.Segments {
			artifact.Segments[s].ObservedSHA256 = artifact.Segments[s].SHA256
		}
		for _, beside := range []*evidence.Segment{artifact.Index, artifact.Timeline} {
			if beside != nil {
				beside.ObservedSHA256 = beside.SHA256
			}
		}
	}
	return artifacts
}

// ContentSHA256 is the digest of a file in the archive.
func ContentSHA256(name string, size int) string {
	sum := sha256.Sum256(content(name, size))
	return hex.EncodeToString(sum[:])
}
