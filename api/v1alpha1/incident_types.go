package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Trigger is the event that opened an incident.
type Trigger struct {
	Ref `json:",inline"`
	// type of the event.
	// +required
	// +kubebuilder:validation:MaxLength=128
	Type string `json:"type"`
	// severity of the event.
	// +required
	Severity Severity `json:"severity"`
	// specSHA256 of the event's spec in canonical JSON.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SpecSHA256 string `json:"specSHA256"`
}

// SubjectUID says where the pod's uid came from.
// +kubebuilder:validation:Enum=Declared;Resolved
type SubjectUID string

// Values of SubjectUID: the event named the uid, or the controller looked it up by name.
const (
	SubjectDeclared SubjectUID = "Declared"
	SubjectResolved SubjectUID = "Resolved"
)

// OnFailure says what happens to the pod when its capture fails.
// +kubebuilder:validation:Enum=Hold;Release
type OnFailure string

// Values of OnFailure.
const (
	OnFailureHold    OnFailure = "Hold"
	OnFailureRelease OnFailure = "Release"
)

// IncidentSpec is fixed at opening: later changes of the configuration do not alter a running incident.
type IncidentSpec struct {
	// trigger that opened the incident.
	// +required
	Trigger Trigger `json:"trigger"`
	// pod that is contained.
	// +required
	Pod PodRef `json:"pod"`
	// subjectUID says whether the event declared the pod's uid or the controller resolved it.
	// +required
	SubjectUID SubjectUID `json:"subjectUID"`
	// freeze to order.
	// +required
	Freeze PodFreezeAction `json:"freeze"`
	// snapshot to order.
	// +required
	Snapshot FilesystemSnapshotAction `json:"snapshot"`
	// autoUnfreezeAfter the Completed or Failed event; 0 is never.
	// +required
	AutoUnfreezeAfter metav1.Duration `json:"autoUnfreezeAfter"`
	// onFailure of the capture.
	// +required
	OnFailure OnFailure `json:"onFailure"`
	// disposition of the pod at release.
	// +required
	Disposition Disposition `json:"disposition"`
	// requiredAcknowledgements before a release.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2
	RequiredAcknowledgements int32 `json:"requiredAcknowledgements"`
	// dryRun records what would be done and does nothing.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
	// configGeneration of the ForensicsConfig that applied.
	// +required
	ConfigGeneration int64 `json:"configGeneration"`
}

// IncidentState is computed from the incident's conditions.
// +kubebuilder:validation:Enum=Containing;Capturing;Held;Releasing;Released;Failed
type IncidentState string

// Incident states.
const (
	IncidentContaining IncidentState = "Containing"
	IncidentCapturing  IncidentState = "Capturing"
	IncidentHeld       IncidentState = "Held"
	IncidentReleasing  IncidentState = "Releasing"
	IncidentReleased   IncidentState = "Released"
	IncidentFailed     IncidentState = "Failed"
)

// FreezeBackend is the kind of network policy that the cluster's CNI enforces best.
// +kubebuilder:validation:Enum=Cilium;CoreV1
type FreezeBackend string

// Freeze backends.
const (
	BackendCilium FreezeBackend = "Cilium"
	BackendCoreV1 FreezeBackend = "CoreV1"
)

// AppliedPolicy is the deny-all policy of an incident.
type AppliedPolicy struct {
	// backend used.
	// +required
	Backend FreezeBackend `json:"backend"`
	// ref of the policy object, in the pod's namespace.
	// +required
	Ref Ref `json:"ref"`
	// appliedAt is when the API server took it.
	// +required
	AppliedAt metav1.MicroTime `json:"appliedAt"`
	// reapplied counts how often it had been edited or deleted.
	// +optional
	Reapplied int32 `json:"reapplied,omitempty"`
	// others are policies that selected the pod as well.
	// +optional
	// +listType=map
	// +listMapKey=uid
	// +kubebuilder:validation:MaxItems=128
	Others []PolicyRef `json:"others,omitempty"`
	// othersOmitted counts those that others had no room for, and one more for each kind of policy of which not all
	// were read.
	// +optional
	// +kubebuilder:validation:Minimum=1
	OthersOmitted int32 `json:"othersOmitted,omitempty"`
}

// MaxOthers is how many policies an AppliedPolicy can name beside its own.
const MaxOthers = 128

// PolicyRef binds to a network policy of any kind by uid.
type PolicyRef struct {
	// kind of the policy, such as NetworkPolicy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`

	Ref `json:",inline"`
}

// Extension moves the release later.
type Extension struct {
	// by whom.
	// +required
	// +kubebuilder:validation:MaxLength=512
	By string `json:"by"`
	// at which time it was admitted.
	// +required
	At metav1.MicroTime `json:"at"`
	// until when the pod stays held.
	// +required
	Until metav1.Time `json:"until"`
}

// ClusterState is what the API server knew of the pod when the incident opened.
type ClusterState struct {
	// takenAt is when it was read.
	// +optional
	TakenAt *metav1.MicroTime `json:"takenAt,omitempty"`
	// object in the write-once store; absent as long as it could not be stored.
	// +optional
	Object *StoredObject `json:"object,omitempty"`
	// documents in the object.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Documents int64 `json:"documents,omitempty"`
	// gaps counted by reason.
	// +optional
	// +listType=map
	// +listMapKey=reason
	// +kubebuilder:validation:MaxItems=8
	Gaps []GapCount `json:"gaps,omitempty"`
	// reason why it is not stored yet, as of a condition; empty once it is.
	// +optional
	// +kubebuilder:validation:Pattern=`^([A-Z][A-Za-z0-9]*)?$`
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// message for people that goes with reason.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Message string `json:"message,omitempty"`
}

// IncidentStatus is the durable program counter of an incident.
type IncidentStatus struct {
	// conditions: Contained is a state; Captured, Uploaded, Attested, Acknowledged, Released and Failed are milestones.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// state computed from the conditions.
	// +optional
	State IncidentState `json:"state,omitempty"`
	// policy applied to the pod.
	// +optional
	Policy *AppliedPolicy `json:"policy,omitempty"`
	// clusterState of the pod at opening.
	// +optional
	ClusterState *ClusterState `json:"clusterState,omitempty"`
	// responses ordered, in order.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	Responses []Ref `json:"responses,omitempty"`
	// completionEvent is the Completed or Failed event.
	// +optional
	CompletionEvent *Ref `json:"completionEvent,omitempty"`
	// manifest in the write-once store.
	// +optional
	Manifest *StoredObject `json:"manifest,omitempty"`
	// custody records, by number: 1 after the capture, 2 after the release. Each is set once the statement over it is sealed.
	// +optional
	// +listType=map
	// +listMapKey=index
	// +kubebuilder:validation:MaxItems=2
	Custody []StoredObject `json:"custody,omitempty"`
	// acknowledgements admitted so far, with a valid stamp.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	Acknowledgements []Acknowledgement `json:"acknowledgements,omitempty"`
	// unfreezeAt is when the pod goes free by itself; the completion event says the same.
	// +optional
	UnfreezeAt *metav1.Time `json:"unfreezeAt,omitempty"`
	// extensions of unfreezeAt.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Extensions []Extension `json:"extensions,omitempty"`
}

// Incident is one trigger's way from containment to release.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=inc
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.pod.namespace`
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.pod.name`
// +kubebuilder:printcolumn:name="Trigger",type=string,JSONPath=`.spec.trigger.type`
// +kubebuilder:printcolumn:name="Unfreeze-At",type=string,JSONPath=`.status.unfreezeAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Incident struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is fixed at opening.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec is immutable: an incident keeps the configuration it was opened with"
	Spec IncidentSpec `json:"spec"`
	// status is how far it came.
	// +optional
	Status IncidentStatus `json:"status,omitempty"`
}

// IncidentList is a list of incidents.
// +kubebuilder:object:root=true
type IncidentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Incident `json:"items"`
}
