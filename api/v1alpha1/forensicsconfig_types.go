package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TriggerConfig is the predicate that opens incidents. An empty list of types matches nothing.
type TriggerConfig struct {
	// classes that may open an incident.
	// +optional
	// +listType=set
	// +kubebuilder:default={Detection,Anomaly}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Classes []EventClass `json:"classes,omitempty"`
	// minSeverities that open an incident: the lowest one listed, and every one above it.
	// +optional
	// +listType=set
	// +kubebuilder:default={high,critical}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=5
	MinSeverities []Severity `json:"minSeverities,omitempty"`
	// requireAttested opens an incident only for an event whose bundle is sealed and verifies.
	// +optional
	// +kubebuilder:default=true
	RequireAttested *bool `json:"requireAttested,omitempty"`
	// namespaceAllowlist of pods; empty allows every namespace.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	NamespaceAllowlist []string `json:"namespaceAllowlist,omitempty"`
	// whitelistedTypes of events; the union with spec.whitelistedTypes counts.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	WhitelistedTypes []string `json:"whitelistedTypes,omitempty"`
	// maxEventAge beyond which an event opens nothing.
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="maxEventAge must be positive"
	MaxEventAge *metav1.Duration `json:"maxEventAge,omitempty"`
	// protectedNamespaces are never frozen, besides kube-system, ugallu-system and ugallu-system-privileged.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	ProtectedNamespaces []string `json:"protectedNamespaces,omitempty"`
}

// CleanupConfig says when and how pods are let go.
type CleanupConfig struct {
	// autoUnfreezeAfter the Completed or Failed event; 0s is never.
	// +optional
	// +kubebuilder:default="4h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="autoUnfreezeAfter must not be negative; 0s is never"
	AutoUnfreezeAfter *metav1.Duration `json:"autoUnfreezeAfter,omitempty"`
	// acknowledgeAuthorizedSAs may acknowledge: namespace:name each.
	// +optional
	// +listType=set
	// +kubebuilder:default={"ugallu-system:ugallu-responder"}
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?:[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	AcknowledgeAuthorizedSAs []string `json:"acknowledgeAuthorizedSAs,omitempty"`
	// requiredAcknowledgements before a release.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2
	RequiredAcknowledgements *int32 `json:"requiredAcknowledgements,omitempty"`
	// onFailure of a capture: Hold the pod until it is acknowledged, or Release it.
	// +optional
	// +kubebuilder:default=Hold
	OnFailure OnFailure `json:"onFailure,omitempty"`
	// disposition of the pod at release.
	// +optional
	// +kubebuilder:default=Resume
	Disposition Disposition `json:"disposition,omitempty"`
}

// EvidenceConfig says where evidence goes; it wins over WORMConfig for incidents.
type EvidenceConfig struct {
	// bucket with Object Lock; the WORMConfig's when empty.
	// +optional
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=63
	Bucket string `json:"bucket,omitempty"`
	// objectLock mode.
	// +optional
	ObjectLock LockMode `json:"objectLock,omitempty"`
	// retainDays from the opening of the incident.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=36500
	RetainDays *int32 `json:"retainDays,omitempty"`
}

// FreezeConfig says what a freeze does to processes and memory.
type FreezeConfig struct {
	// processes stay frozen for how long.
	// +optional
	// +kubebuilder:default=UntilReleased
	Processes FreezeProcesses `json:"processes,omitempty"`
	// memory capture.
	// +optional
	// +kubebuilder:default=Auto
	Memory MemoryCapture `json:"memory,omitempty"`
}

// SnapshotConfig limits each artifact; a limit hit truncates the artifact and says so.
// +kubebuilder:validation:XValidation:rule="!has(self.maxBandwidth) || quantity(self.maxBandwidth).isGreaterThan(quantity('0'))",message="maxBandwidth must be positive"
// +kubebuilder:validation:XValidation:rule="(has(self.redactEnvironment) && self.redactEnvironment == 'Matching') == has(self.redactNames)",message="redactNames is required for redactEnvironment Matching, and forbidden otherwise"
type SnapshotConfig struct {
	// compression of archives.
	// +optional
	// +kubebuilder:default=Zstd
	Compression Compression `json:"compression,omitempty"`
	// maxBytes of uncompressed content.
	// +optional
	// +kubebuilder:default="100Gi"
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`
	// maxEntries in an archive.
	// +optional
	// +kubebuilder:default=5000000
	// +kubebuilder:validation:Minimum=1
	MaxEntries *int64 `json:"maxEntries,omitempty"`
	// maxDuration of one artifact.
	// +optional
	// +kubebuilder:default="30m"
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="maxDuration must be positive"
	MaxDuration *metav1.Duration `json:"maxDuration,omitempty"`
	// maxBandwidth in bytes a second that a node sends to the store; absent is no limit.
	// +optional
	MaxBandwidth *resource.Quantity `json:"maxBandwidth,omitempty"`
	// redactEnvironment says which values of environment variables are replaced by their sha256.
	// +optional
	// +kubebuilder:default=None
	RedactEnvironment Redaction `json:"redactEnvironment,omitempty"`
	// redactNames is a regular expression (RE2) for the names of variables, with redactEnvironment Matching.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	RedactNames string `json:"redactNames,omitempty"`
}

// ForensicsConfigSpec says which events open incidents and what an incident does.
type ForensicsConfigSpec struct {
	// trigger predicate.
	// +optional
	// +kubebuilder:default={}
	Trigger TriggerConfig `json:"trigger,omitempty"`
	// whitelistedTypes of events; the union with spec.trigger.whitelistedTypes counts. Empty matches nothing.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	WhitelistedTypes []string `json:"whitelistedTypes,omitempty"`
	// cleanup after the capture.
	// +optional
	// +kubebuilder:default={}
	Cleanup CleanupConfig `json:"cleanup,omitempty"`
	// evidence destination.
	// +optional
	// +kubebuilder:default={}
	Evidence EvidenceConfig `json:"evidence,omitempty"`
	// freeze options.
	// +optional
	// +kubebuilder:default={}
	Freeze FreezeConfig `json:"freeze,omitempty"`
	// snapshot limits.
	// +optional
	// +kubebuilder:default={}
	Snapshot SnapshotConfig `json:"snapshot,omitempty"`
	// maxConcurrentIncidents bounds captures that run at once; containment is never queued.
	// +optional
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxConcurrentIncidents *int32 `json:"maxConcurrentIncidents,omitempty"`
	// dryRun records what would be done and does nothing.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
}

// ForensicsConfigStatus says whether incidents can be handled.
type ForensicsConfigStatus struct {
	// conditions: Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// freezeBackend found in this cluster.
	// +optional
	FreezeBackend FreezeBackend `json:"freezeBackend,omitempty"`
	// inFlightIncidents not yet released.
	// +optional
	InFlightIncidents int32 `json:"inFlightIncidents,omitempty"`
	// observedGeneration of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// ForensicsConfig is the cluster's one configuration of forensic capture; its name is default.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=fc
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default'",message="metadata.name must be default: there is one ForensicsConfig"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.status.freezeBackend`
// +kubebuilder:printcolumn:name="In-Flight",type=integer,JSONPath=`.status.inFlightIncidents`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ForensicsConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec as the operator wants it.
	// +required
	Spec ForensicsConfigSpec `json:"spec"`
	// status as the controller found it.
	// +optional
	Status ForensicsConfigStatus `json:"status,omitempty"`
}

// ForensicsConfigList is a list of configurations.
// +kubebuilder:object:root=true
type ForensicsConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ForensicsConfig `json:"items"`
}
