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

// FilesystemSnapshotAction captures the pod; the limits hold for each artifact.
// +kubebuilder:validation:XValidation:rule="!has(self.maxBandwidth) || quantity(self.maxBandwidth).isGreaterThan(quantity('0'))",message="maxBandwidth must be positive"
// +kubebuilder:validation:XValidation:rule="(has(self.redactEnvironment) && self.redactEnvironment == 'Matching') == has(self.redactNames)",message="redactNames is required for redactEnvironment Matching, and forbidden otherwise"
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
	// maxBandwidth in bytes a second that a node sends to the store; absent is no limit.
	// +optional
	MaxBandwidth *resource.Quantity `json:"maxBandwidth,omitempty"`
	// redactEnvironment says which values of environment variables are replaced by their sha256.
	// +optional
	// +kubebuilder:default=None
	RedactEnvironment Redaction `json:"redactEnvironment,omitempty"`
	// redactNames matches the names of variables for redactEnvironment Matching.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	RedactNames string `json:"redactNames,omitempty"`
}

// Redaction says which values of environment variables are replaced by their sha256.
// +kubebuilder:validation:Enum=None;Matching;All
type Redaction string

// Redactions.
const (
	RedactNone     Redaction = "None"
	RedactMatching Redaction = "Matching"
	RedactAll      Redaction = "All"
)

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

// EventResponse is one step of an incident: the order to act and the record of the act.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=er
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.completedAt) || (has(self.status) && self.status == oldSelf.status)",fieldPath=".status",message="status is immutable once completedAt is set"
// +kubebuilder:validation:XValidation:rule="self.spec.action.type == 'EvidenceUpload' || !has(self.status) || !has(self.status.artifacts) || !self.status.artifacts.exists(artifact, artifact.kind in ['ClusterState', 'Manifest'])",fieldPath=".status.artifacts",message="status.artifacts: the kinds ClusterState and Manifest belong to responses of spec.action.type EvidenceUpload"
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
