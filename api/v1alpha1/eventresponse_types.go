package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ActionType discriminates Action.
// +kubebuilder:validation:Enum=PodFreeze;FilesystemSnapshot;EvidenceUpload;PodUnfreeze
type ActionType string

// Action types, one for each step.
const (
	ActionPodFreeze          ActionType = "PodFreeze"
	ActionFilesystemSnapshot ActionType = "FilesystemSnapshot"
	ActionEvidenceUpload     ActionType = "EvidenceUpload"
	ActionPodUnfreeze        ActionType = "PodUnfreeze"
)

// Action is what a response orders: a type and exactly the member of that type.
// +kubebuilder:validation:XValidation:rule="(self.type == 'PodFreeze') == has(self.podFreeze)",message="podFreeze is required for type PodFreeze, and forbidden otherwise"
// +kubebuilder:validation:XValidation:rule="(self.type == 'FilesystemSnapshot') == has(self.filesystemSnapshot)",message="filesystemSnapshot is required for type FilesystemSnapshot, and forbidden otherwise"
// +kubebuilder:validation:XValidation:rule="(self.type == 'EvidenceUpload') == has(self.evidenceUpload)",message="evidenceUpload is required for type EvidenceUpload, and forbidden otherwise"
// +kubebuilder:validation:XValidation:rule="(self.type == 'PodUnfreeze') == has(self.podUnfreeze)",message="podUnfreeze is required for type PodUnfreeze, and forbidden otherwise"
type Action struct {
	// type says which member is set.
	// +required
	Type ActionType `json:"type"`
	// podFreeze contains, freezes and holds the pod.
	// +optional
	PodFreeze *PodFreezeAction `json:"podFreeze,omitempty"`
	// filesystemSnapshot captures and stores the pod's files.
	// +optional
	FilesystemSnapshot *FilesystemSnapshotAction `json:"filesystemSnapshot,omitempty"`
	// evidenceUpload writes the manifest.
	// +optional
	EvidenceUpload *EvidenceUploadAction `json:"evidenceUpload,omitempty"`
	// podUnfreeze lets the pod go.
	// +optional
	PodUnfreeze *PodUnfreezeAction `json:"podUnfreeze,omitempty"`
}

// FreezeProcesses says how long the pod's processes stay frozen.
// +kubebuilder:validation:Enum=UntilReleased;DuringCapture;Never
type FreezeProcesses string

// Values of FreezeProcesses.
const (
	FreezeUntilReleased FreezeProcesses = "UntilReleased"
	FreezeDuringCapture FreezeProcesses = "DuringCapture"
	FreezeNever         FreezeProcesses = "Never"
)

// MemoryCapture says whether process memory is captured.
// +kubebuilder:validation:Enum=None;Auto;Always
type MemoryCapture string

// Values of MemoryCapture.
const (
	MemoryNone   MemoryCapture = "None"
	MemoryAuto   MemoryCapture = "Auto"
	MemoryAlways MemoryCapture = "Always"
)

// PodFreezeAction contains, freezes and holds the pod.
type PodFreezeAction struct {
	// processes says how long processes stay frozen.
	// +required
	Processes FreezeProcesses `json:"processes"`
	// memory says whether process memory is captured.
	// +required
	Memory MemoryCapture `json:"memory"`
}

// Compression of archives.
// +kubebuilder:validation:Enum=Zstd;Gzip
type Compression string

// Compressions.
const (
	CompressionZstd Compression = "Zstd"
	CompressionGzip Compression = "Gzip"
)

// FilesystemSnapshotAction captures every container of the pod; the limits hold for each artifact.
type FilesystemSnapshotAction struct {
	// destination of the artifacts.
	// +required
	Destination Destination `json:"destination"`
	// compression of the archives.
	// +required
	Compression Compression `json:"compression"`
	// maxBytes of uncompressed content in one artifact.
	// +required
	MaxBytes resource.Quantity `json:"maxBytes"`
	// maxEntries in one artifact.
	// +required
	// +kubebuilder:validation:Minimum=1
	MaxEntries int64 `json:"maxEntries"`
	// maxDuration of one artifact.
	// +required
	MaxDuration metav1.Duration `json:"maxDuration"`
}

// EvidenceUploadAction writes the manifest over the named responses.
type EvidenceUploadAction struct {
	// destination of the manifest.
	// +required
	Destination Destination `json:"destination"`
	// responses that the manifest covers.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Responses []Ref `json:"responses"`
}

// ReleaseReason says why a pod is let go.
// +kubebuilder:validation:Enum=Acknowledged;DeadlineReached;CaptureFailed;BreakGlass
type ReleaseReason string

// Release reasons.
const (
	ReleaseAcknowledged    ReleaseReason = "Acknowledged"
	ReleaseDeadlineReached ReleaseReason = "DeadlineReached"
	ReleaseCaptureFailed   ReleaseReason = "CaptureFailed"
	ReleaseBreakGlass      ReleaseReason = "BreakGlass"
)

// Disposition says what happens to the pod at release.
// +kubebuilder:validation:Enum=Resume;Delete
type Disposition string

// Dispositions.
const (
	DispositionResume Disposition = "Resume"
	DispositionDelete Disposition = "Delete"
)

// PodUnfreezeAction lets the pod go.
type PodUnfreezeAction struct {
	// reason for the release.
	// +required
	Reason ReleaseReason `json:"reason"`
	// disposition of the pod.
	// +required
	Disposition Disposition `json:"disposition"`
	// keepContained is true when another incident still holds the pod.
	// +optional
	KeepContained bool `json:"keepContained,omitempty"`
	// acknowledgements that ordered the release; in the spec so that the signature covers them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	Acknowledgements []Acknowledgement `json:"acknowledgements,omitempty"`
}

// EventResponseSpec is the order to act.
type EventResponseSpec struct {
	// incidentUID of the incident that this step belongs to.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	IncidentUID string `json:"incidentUID"`
	// incidentName of that incident.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{16}$`
	IncidentName string `json:"incidentName"`
	// securityEventRef is the trigger.
	// +required
	SecurityEventRef Ref `json:"securityEventRef"`
	// parentRef is the previous response; absent on the first.
	// +optional
	ParentRef *Ref `json:"parentRef,omitempty"`
	// attempt at this step, from 1; above 1 the name ends in -r<n>.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Attempt int32 `json:"attempt"`
	// nodeName of the agent that executes; empty when the controller does.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName,omitempty"`
	// podRef is the contained pod.
	// +required
	PodRef PodRef `json:"podRef"`
	// deadline past which the step fails; absent on podunfreeze only.
	// +optional
	Deadline *metav1.Time `json:"deadline,omitempty"`
	// action ordered.
	// +required
	Action Action `json:"action"`
}

// ResponsePhase is computed from a response's conditions.
// +kubebuilder:validation:Enum=Pending;Running;Succeeded;Partial;Failed
type ResponsePhase string

// Response phases.
const (
	ResponsePending   ResponsePhase = "Pending"
	ResponseRunning   ResponsePhase = "Running"
	ResponseSucceeded ResponsePhase = "Succeeded"
	ResponsePartial   ResponsePhase = "Partial"
	ResponseFailed    ResponsePhase = "Failed"
)

// EventResponseStatus is the record of the act, written by the executor alone and final once completedAt is set.
type EventResponseStatus struct {
	// conditions: Complete, and while it runs the executor's steps.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// phase computed from the conditions.
	// +optional
	Phase ResponsePhase `json:"phase,omitempty"`
	// reporter asserts what stands here.
	// +optional
	Reporter *Reporter `json:"reporter,omitempty"`
	// attempts counts the starts of the executor on this order.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`
	// startedAt is when the executor first took the order.
	// +optional
	StartedAt *metav1.MicroTime `json:"startedAt,omitempty"`
	// completedAt closes the record.
	// +optional
	CompletedAt *metav1.MicroTime `json:"completedAt,omitempty"`
	// containment reached (podfreeze) or given up (podunfreeze).
	// +optional
	Containment *Containment `json:"containment,omitempty"`
	// progress of a running capture.
	// +optional
	Progress *Progress `json:"progress,omitempty"`
	// artifacts stored.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Artifacts []Artifact `json:"artifacts,omitempty"`
	// gaps counted by reason.
	// +optional
	// +listType=map
	// +listMapKey=reason
	// +kubebuilder:validation:MaxItems=32
	Gaps []GapCount `json:"gaps,omitempty"`
	// gapsObject names every path that is missing, in the write-once store.
	// +optional
	GapsObject *StoredObject `json:"gapsObject,omitempty"`
}

// Reporter is who asserts, and what its clocks said.
type Reporter struct {
	// account of the reporter.
	// +required
	// +kubebuilder:validation:MaxLength=512
	Account string `json:"account"`
	// podUID of the reporter.
	// +required
	// +kubebuilder:validation:MaxLength=64
	PodUID string `json:"podUID"`
	// nodeName of the reporter.
	// +required
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName"`
	// bootID of the reporter's node.
	// +required
	// +kubebuilder:validation:MaxLength=64
	BootID string `json:"bootID"`
	// imageDigest of the reporter, or its version.
	// +required
	// +kubebuilder:validation:MaxLength=512
	ImageDigest string `json:"imageDigest"`
	// realtime is CLOCK_REALTIME when the order was taken.
	// +required
	Realtime metav1.MicroTime `json:"realtime"`
	// boottimeNanos is CLOCK_BOOTTIME at the same moment.
	// +required
	BoottimeNanos int64 `json:"boottimeNanos"`
	// maxErrorMicros is the kernel's bound on the error of realtime.
	// +required
	MaxErrorMicros int64 `json:"maxErrorMicros"`
	// clockSynchronized is whether the kernel says that a time source steers it.
	// +required
	ClockSynchronized bool `json:"clockSynchronized"`
	// apiServerDate is the Date header of the API server nearest to that moment.
	// +optional
	APIServerDate *metav1.Time `json:"apiServerDate,omitempty"`
}

// ContainmentLevel is the worst part of a containment.
// +kubebuilder:validation:Enum=Full;Partial;PolicyOnly
type ContainmentLevel string

// Containment levels.
const (
	LevelFull       ContainmentLevel = "Full"
	LevelPartial    ContainmentLevel = "Partial"
	LevelPolicyOnly ContainmentLevel = "PolicyOnly"
)

// FreezeMethod is how processes were stopped.
// +kubebuilder:validation:Enum=CgroupV2;RuntimePause;None
type FreezeMethod string

// Freeze methods.
const (
	FreezeCgroupV2     FreezeMethod = "CgroupV2"
	FreezeRuntimePause FreezeMethod = "RuntimePause"
	FreezeNone         FreezeMethod = "None"
)

// Containment is what holds the pod.
type Containment struct {
	// level reached: that of the worst part.
	// +required
	Level ContainmentLevel `json:"level"`
	// containedAt is set only after the drop was verified.
	// +optional
	ContainedAt *metav1.MicroTime `json:"containedAt,omitempty"`
	// hooks that drop packets.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=64
	Hooks []Hook `json:"hooks,omitempty"`
	// freezeMethod used.
	// +required
	FreezeMethod FreezeMethod `json:"freezeMethod"`
	// containers frozen and held.
	// +optional
	// +listType=map
	// +listMapKey=containerID
	// +kubebuilder:validation:MaxItems=128
	Containers []ContainerFreeze `json:"containers,omitempty"`
	// escapedProcesses found outside the pod's cgroups.
	// +optional
	EscapedProcesses int32 `json:"escapedProcesses,omitempty"`
	// flowsObject lists dropped flows; addresses stay out of the API server.
	// +optional
	FlowsObject *StoredObject `json:"flowsObject,omitempty"`
}

// HookProgram is the kind of attach point.
// +kubebuilder:validation:Enum=CgroupSkb;Tcx;Clsact
type HookProgram string

// Hook programs.
const (
	HookCgroupSkb HookProgram = "CgroupSkb"
	HookTcx       HookProgram = "Tcx"
	HookClsact    HookProgram = "Clsact"
)

// HookDirection is the direction as seen by the device or cgroup that the hook sits on.
// +kubebuilder:validation:Enum=Ingress;Egress
type HookDirection string

// Hook directions.
const (
	HookIngress HookDirection = "Ingress"
	HookEgress  HookDirection = "Egress"
)

// Hook is one attached eBPF program.
type Hook struct {
	// id of the hook within the containment, such as cgroup-egress or tcx-ingress-veth12.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ID string `json:"id"`
	// program kind.
	// +required
	Program HookProgram `json:"program"`
	// direction at the attach point.
	// +required
	Direction HookDirection `json:"direction"`
	// device or cgroup path it is attached to.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	Device string `json:"device"`
	// netnsInode of the pod's network namespace.
	// +optional
	NetnsInode int64 `json:"netnsInode,omitempty"`
	// packets dropped.
	// +optional
	Packets int64 `json:"packets,omitempty"`
	// bytes dropped.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`
	// verified means that the kernel listed this link with our program on this target after attaching.
	// +required
	Verified bool `json:"verified"`
	// attachedAt is when the attach call returned.
	// +optional
	AttachedAt *metav1.MicroTime `json:"attachedAt,omitempty"`
	// firstDrop is when the first packet was dropped.
	// +optional
	FirstDrop *metav1.MicroTime `json:"firstDrop,omitempty"`
	// lastDrop is when the last packet was dropped.
	// +optional
	LastDrop *metav1.MicroTime `json:"lastDrop,omitempty"`
}

// ContainerFreeze is what was done to one container.
type ContainerFreeze struct {
	// containerID in the runtime.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ContainerID string `json:"containerID"`
	// name in the pod.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// frozenAt is when the freeze was confirmed.
	// +optional
	FrozenAt *metav1.MicroTime `json:"frozenAt,omitempty"`
	// heldAt is when the snapshot was held.
	// +optional
	HeldAt *metav1.MicroTime `json:"heldAt,omitempty"`
	// probeKillExpectedAt is when a probe of this container will have it killed.
	// +optional
	ProbeKillExpectedAt *metav1.MicroTime `json:"probeKillExpectedAt,omitempty"`
	// thawedAt is when the thaw was confirmed.
	// +optional
	ThawedAt *metav1.MicroTime `json:"thawedAt,omitempty"`
}

// Progress of a running capture, written at most every 5 s.
type Progress struct {
	// currentArtifact being read.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	CurrentArtifact string `json:"currentArtifact,omitempty"`
	// files read.
	// +optional
	Files int64 `json:"files,omitempty"`
	// bytesRead of content.
	// +optional
	BytesRead int64 `json:"bytesRead,omitempty"`
	// bytesStored after compression.
	// +optional
	BytesStored int64 `json:"bytesStored,omitempty"`
}

// ArtifactKind is what an artifact holds.
// +kubebuilder:validation:Enum=RootFilesystem;Manifest
type ArtifactKind string

// Artifact kinds.
const (
	ArtifactRootFilesystem ArtifactKind = "RootFilesystem"
	ArtifactManifest       ArtifactKind = "Manifest"
)

// Artifact is one stream of evidence, stored as a sequence of locked objects.
type Artifact struct {
	// name within the response, such as web/rootfs.tar.zst.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Name string `json:"name"`
	// kind of evidence.
	// +required
	Kind ArtifactKind `json:"kind"`
	// container it comes from.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Container string `json:"container,omitempty"`
	// mediaType of the stream.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	MediaType string `json:"mediaType"`
	// segments that, concatenated, are the stream; each was locked when it was complete.
	// +required
	// +listType=map
	// +listMapKey=index
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	Segments []StoredObject `json:"segments"`
	// size of the stream in bytes.
	// +required
	// +kubebuilder:validation:Minimum=0
	Size int64 `json:"size"`
	// sha256 of the stream as the executor asserts it.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256"`
	// merkleRoot over the entries of an archive.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	MerkleRoot string `json:"merkleRoot,omitempty"`
	// entries in an archive.
	// +optional
	Entries int64 `json:"entries,omitempty"`
	// frozenThroughout is whether the container was frozen from the first byte read to the last.
	// +optional
	FrozenThroughout bool `json:"frozenThroughout,omitempty"`
	// truncated is whether a limit cut the stream short.
	// +optional
	Truncated bool `json:"truncated,omitempty"`
}

// GapCount is how often evidence is missing for one reason.
type GapCount struct {
	// reason, a CamelCase word.
	// +required
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`
	// message for people, with the first path concerned.
	// +required
	// +kubebuilder:validation:MaxLength=2048
	Message string `json:"message"`
	// count of gaps.
	// +required
	// +kubebuilder:validation:Minimum=1
	Count int64 `json:"count"`
}

// EventResponse is one step of an incident: the order to act and the record of the act.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=er
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.completedAt) || (has(self.status) && self.status == oldSelf.status)",fieldPath=".status",message="status is immutable once completedAt is set"
// +kubebuilder:selectablefield:JSONPath=`.spec.nodeName`
// +kubebuilder:selectablefield:JSONPath=`.spec.incidentUID`
// +kubebuilder:printcolumn:name="Step",type=string,JSONPath=`.metadata.labels.ugallu\.io/step`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.podRef.name`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.nodeName`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type EventResponse struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the order, which never changes.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec is immutable: an order is never changed, a new attempt is a new response"
	Spec EventResponseSpec `json:"spec"`
	// status is the record.
	// +optional
	Status EventResponseStatus `json:"status,omitempty"`
}

// EventResponseList is a list of responses.
// +kubebuilder:object:root=true
type EventResponseList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EventResponse `json:"items"`
}
