package v1alpha1

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AttestedKind is the kind of object that a bundle attests.
// +kubebuilder:validation:Enum=SecurityEvent;EventResponse;Incident
type AttestedKind string

// Attested kinds.
const (
	AttestedSecurityEvent AttestedKind = "SecurityEvent"
	AttestedEventResponse AttestedKind = "EventResponse"
	AttestedIncident      AttestedKind = "Incident"
)

// AttestedFor names the object that a bundle attests.
type AttestedFor struct {
	// kind of the object.
	// +required
	Kind AttestedKind `json:"kind"`
	Ref  `json:",inline"`
}

// AttestationBundleSpec says what is attested.
// +kubebuilder:validation:XValidation:rule="(self.attestedFor.kind == 'Incident') == has(self.number)",message="number is required for kind Incident, and forbidden otherwise"
type AttestationBundleSpec struct {
	// attestedFor names the object.
	// +required
	AttestedFor AttestedFor `json:"attestedFor"`
	// incidentUID of the object's incident; empty for a trigger.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	IncidentUID string `json:"incidentUID,omitempty"`
	// number of the custody record that a bundle of kind Incident attests: 1 after the capture, 2 after the release.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2
	Number int32 `json:"number,omitempty"`
	// countersigns names the bundle whose statement this one signs once more, in another mode.
	// +optional
	Countersigns *Countersigned `json:"countersigns,omitempty"`
}

// Countersigned is a bundle with a statement that is signed in several modes.
type Countersigned struct {
	// name of the bundle that holds the statement as it is signed in the first mode.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// mode of the countersignature.
	// +required
	Mode SigningMode `json:"mode"`
}

// CountersignatureName derives the name of the bundle that signs the statement of another bundle in a further mode.
func CountersignatureName(bundle string, mode SigningMode) string {
	return BundleName(bundle + "/" + string(mode))
}

// CustodyBundleName derives the name of the bundle that attests an incident's custody record of this number.
func CustodyBundleName(incidentUID string, number int32) string {
	return BundleName(fmt.Sprintf("%s/custody-%d", incidentUID, number))
}

// BundlePhase is how far the attestation came.
// +kubebuilder:validation:Enum=Pending;Signed;Logged;Sealed;Failed
type BundlePhase string

// Bundle phases.
const (
	BundlePending BundlePhase = "Pending"
	BundleSigned  BundlePhase = "Signed"
	BundleLogged  BundlePhase = "Logged"
	BundleSealed  BundlePhase = "Sealed"
	BundleFailed  BundlePhase = "Failed"
)

// MaxObserved is how many objects a bundle can name as observed: three for each of MaxArtifacts, and lists beside them.
// With keys of 143 bytes, which is an archive's with a name of 100, and the largest staged bundle it stays below the
// 1.5 MiB that the API server stores of an object.
const MaxObserved = 900

// ObservedObject is what the read-back workload found in the store.
type ObservedObject struct {
	// key read.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Key string `json:"key"`
	// versionId read.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	VersionID string `json:"versionId"`
	// sha256 of the bytes that came back.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256"`
	// size of the bytes that came back.
	// +required
	// +kubebuilder:validation:Minimum=0
	Size int64 `json:"size"`
	// retainUntil as the store reports it.
	// +required
	RetainUntil metav1.Time `json:"retainUntil"`
	// lockMode as the store reports it.
	// +required
	LockMode LockMode `json:"lockMode"`
}

// BundleDestination is where in the write-once store the evidence of a bundle's incident goes.
type BundleDestination struct {
	// bucket with Object Lock.
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=63
	Bucket string `json:"bucket"`
	// prefix of every key of the incident, without a trailing slash: forensics/<incident>.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Prefix string `json:"prefix"`
	// lockMode of every object.
	// +required
	LockMode LockMode `json:"lockMode"`
	// retainUntil is the one date until which every object of the incident is locked.
	// +required
	RetainUntil metav1.Time `json:"retainUntil"`
}

// AttestationBundleStatus records each stage before the next one acts.
type AttestationBundleStatus struct {
	// conditions: ReadBack, Signed, Logged, Sealed. The first bundle of a statement is Sealed when those that countersign
	// it are.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// phase computed from the conditions.
	// +optional
	Phase BundlePhase `json:"phase,omitempty"`
	// observed objects. Written by the read-back workload alone.
	// +optional
	// +listType=map
	// +listMapKey=key
	// +kubebuilder:validation:MaxItems=900
	Observed []ObservedObject `json:"observed,omitempty"`
	// signingModes that the statement is sealed in: this bundle is of the first, a bundle that countersigns it of each
	// other one. They are fixed when the statement is first signed, or its custody record made: a change of
	// AttestorConfig is about later statements. Absent where a bundle countersigns.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	SigningModes []SigningMode `json:"signingModes,omitempty"`
	// withdrawnModes were among signingModes until AttestorConfig had neither the mode nor the servers for it, before
	// they signed. The custody record has them as a gap.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	WithdrawnModes []SigningMode `json:"withdrawnModes,omitempty"`
	// destination of the bundle of what belongs to an incident, fixed when it is signed: the incident may be deleted before
	// the bundle is sealed. Absent where a bundle countersigns, which lies beside the first.
	// +optional
	Destination *BundleDestination `json:"destination,omitempty"`
	// record is the custody record that a bundle of kind Incident attests, in the write-once store.
	// +optional
	Record *StoredObject `json:"record,omitempty"`
	// staged, in gzip, is the custody record, persisted before it is stored; then the signed envelope, persisted before it
	// is logged; from then on the bundle, until it is sealed.
	// +optional
	// +kubebuilder:validation:MaxLength=786432
	Staged []byte `json:"staged,omitempty"`
	// statementDigest is the sha256 of the signed payload.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	StatementDigest string `json:"statementDigest,omitempty"`
	// signer is the certificate identity or the key id that signed.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Signer string `json:"signer,omitempty"`
	// logIndex in the transparency log.
	// +optional
	LogIndex *int64 `json:"logIndex,omitempty"`
	// timestamp by the time-stamping authority.
	// +optional
	Timestamp *metav1.Time `json:"timestamp,omitempty"`
	// object that holds the bundle in the write-once store. It is there before Sealed where others countersign.
	// +optional
	Object *StoredObject `json:"object,omitempty"`
}

// AttestationBundle is the signed record of one event or response, or the signature of one custody record. A statement
// that is signed in two modes has two: the second names the first in spec.countersigns.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ab
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.object) || (has(self.status) && has(self.status.object) && self.status.object == oldSelf.status.object)",fieldPath=".status",message="status.object is immutable once set: the first bundle stored wins"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.destination) || (has(self.status) && has(self.status.destination) && self.status.destination == oldSelf.status.destination)",fieldPath=".status",message="status.destination is immutable once set: a bundle goes where it was signed for"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.record) || (has(self.status) && has(self.status.record) && self.status.record == oldSelf.status.record)",fieldPath=".status",message="status.record is immutable once set: the first record stored wins"
// +kubebuilder:selectablefield:JSONPath=`.spec.incidentUID`
// +kubebuilder:printcolumn:name="Kind",type=string,JSONPath=`.spec.attestedFor.kind`
// +kubebuilder:printcolumn:name="For",type=string,JSONPath=`.spec.attestedFor.name`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Log-Index",type=integer,JSONPath=`.status.logIndex`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Countersigns",type=string,JSONPath=`.spec.countersigns.mode`,priority=1
type AttestationBundle struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what is attested.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec is immutable: a bundle attests one object"
	Spec AttestationBundleSpec `json:"spec"`
	// status is how far it came.
	// +optional
	Status AttestationBundleStatus `json:"status,omitempty"`
}

// AttestationBundleList is a list of bundles.
// +kubebuilder:object:root=true
type AttestationBundleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AttestationBundle `json:"items"`
}
