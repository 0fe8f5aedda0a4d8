package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EventClass sorts events by what they are about.
// +kubebuilder:validation:Enum=Detection;Anomaly;Audit;PolicyViolation;Compliance;Forensic
type EventClass string

// Event classes. Forensic is reserved for the controller's own events.
const (
	ClassDetection       EventClass = "Detection"
	ClassAnomaly         EventClass = "Anomaly"
	ClassAudit           EventClass = "Audit"
	ClassPolicyViolation EventClass = "PolicyViolation"
	ClassCompliance      EventClass = "Compliance"
	ClassForensic        EventClass = "Forensic"
)

// Severity of an event, from info to critical.
// +kubebuilder:validation:Enum=info;low;medium;high;critical
type Severity string

// Severities.
const (
	SeverityInfo     Severity = "info"
	SeverityLow      Severity = "low"
	SeverityMedium   Severity = "medium"
	SeverityHigh     Severity = "high"
	SeverityCritical Severity = "critical"
)

// EventPhase is computed from the event's attestation.
// +kubebuilder:validation:Enum=Pending;Attested
type EventPhase string

// Event phases.
const (
	EventPending  EventPhase = "Pending"
	EventAttested EventPhase = "Attested"
)

// SecurityEventSpec is an immutable fact.
// +kubebuilder:validation:XValidation:rule="self.class != 'Forensic' || has(self.incident)",message="spec.incident is required when spec.class is Forensic"
// +kubebuilder:validation:XValidation:rule="self.class == 'Forensic' || (!has(self.incident) && !has(self.trigger) && !has(self.evidence))",message="spec.incident, spec.trigger and spec.evidence belong to events of spec.class Forensic"
// +kubebuilder:validation:XValidation:rule="self.class == 'Forensic' || !(self.type in ['IncidentCaptureCompleted', 'IncidentCaptureFailed'])",message="spec.type IncidentCaptureCompleted and IncidentCaptureFailed belong to events of spec.class Forensic"
type SecurityEventSpec struct {
	// class of the event.
	// +required
	Class EventClass `json:"class"`
	// type of the event, such as HoneypotTriggered.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9._-]*$`
	Type string `json:"type"`
	// severity of the event.
	// +required
	Severity Severity `json:"severity"`
	// source is who says so.
	// +required
	Source EventSource `json:"source"`
	// subject is what the event is about.
	// +required
	Subject EventSubject `json:"subject"`
	// description for people.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Description string `json:"description,omitempty"`
	// detectedAt is when the source saw what it reports; the creation time is used when it is absent.
	// +optional
	DetectedAt *metav1.MicroTime `json:"detectedAt,omitempty"`
	// signals are the raw observations behind the event.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Signals []Signal `json:"signals,omitempty"`
	// incident that a Forensic event belongs to.
	// +optional
	Incident *IncidentRef `json:"incident,omitempty"`
	// trigger of that incident.
	// +optional
	Trigger *Ref `json:"trigger,omitempty"`
	// evidence that a Forensic event announces.
	// +optional
	Evidence *EvidenceRef `json:"evidence,omitempty"`
}

// EventSource is who reports an event.
type EventSource struct {
	// operator is the program that reports.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Operator string `json:"operator"`
	// cluster the event was seen in.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Cluster string `json:"cluster,omitempty"`
}

// EventSubject is what an event is about.
type EventSubject struct {
	// kind of the subject, such as Pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// namespace of the subject, when it has one.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// name of the subject.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// uid of the subject. Without it the pod must be older than the event.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
}

// Signal is one raw observation.
type Signal struct {
	// name of the observation.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`
	// value observed.
	// +required
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value"`
}

// IncidentRef binds to an incident.
type IncidentRef struct {
	// uid of the incident.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid"`
}

// EvidenceRef names the manifest of an incident in the write-once store.
type EvidenceRef struct {
	// url of the manifest: s3://bucket/key.
	// +required
	// +kubebuilder:validation:Pattern=`^s3://.+/.+$`
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url"`
	// sha256 of the manifest, lower-case hex.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256"`
	// versionId of the manifest in the bucket.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	VersionID string `json:"versionId"`
	// size of the manifest in bytes.
	// +required
	// +kubebuilder:validation:Minimum=0
	Size int64 `json:"size"`
	// mediaType of the manifest.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	MediaType string `json:"mediaType"`
}

// SecurityEventStatus says what became of the event.
type SecurityEventStatus struct {
	// phase is Attested once the event's bundle is sealed. Written by the attestor.
	// +optional
	Phase EventPhase `json:"phase,omitempty"`
	// bundleRef names the AttestationBundle. Written by the attestor.
	// +optional
	BundleRef *Ref `json:"bundleRef,omitempty"`
	// statementDigest is the sha256 of the signed statement. Written by the attestor.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	StatementDigest string `json:"statementDigest,omitempty"`
	// unfreezeAt on a Completed or Failed event is when the pod goes free without an acknowledgement. Written once by the incident controller.
	// +optional
	UnfreezeAt *metav1.Time `json:"unfreezeAt,omitempty"`
	// conditions: Matched (incident opened or why not), AttestationOverdue.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// SecurityEvent is an immutable fact about something that happened in the cluster.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=se
// +kubebuilder:selectablefield:JSONPath=`.spec.type`
// +kubebuilder:selectablefield:JSONPath=`.spec.class`
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Class",type=string,JSONPath=`.spec.class`
// +kubebuilder:printcolumn:name="Severity",type=string,JSONPath=`.spec.severity`
// +kubebuilder:printcolumn:name="Subject",type=string,JSONPath=`.spec.subject.name`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.spec.class == 'Forensic' || !self.metadata.name.matches('^se-[0-9a-f]{16}-(completed|failed)$')",message="metadata.name: this form of name belongs to events of spec.class Forensic"
type SecurityEvent struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the fact, which never changes.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec is immutable: an event is a fact, create a new one"
	Spec SecurityEventSpec `json:"spec"`
	// status says what became of the event.
	// +optional
	Status SecurityEventStatus `json:"status,omitempty"`
}

// SecurityEventList is a list of events.
// +kubebuilder:object:root=true
type SecurityEventList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SecurityEvent `json:"items"`
}
