package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Ref names another object of this group and binds to it by uid.
type Ref struct {
	// name of the object, for people.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// uid of the object, which is what the reference means.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid"`
}

// PodRef binds to one pod, on one node, by uid.
type PodRef struct {
	// namespace of the pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// name of the pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// uid of the pod: a later pod of the same name is another pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid"`
	// nodeName is the node that runs the pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName"`
}

// LockMode is the Object Lock mode that evidence is stored with.
// +kubebuilder:validation:Enum=COMPLIANCE;GOVERNANCE
type LockMode string

// Lock modes of S3 Object Lock.
const (
	LockCompliance LockMode = "COMPLIANCE"
	LockGovernance LockMode = "GOVERNANCE"
)

// Encryption says how evidence is encrypted before it is stored.
// +kubebuilder:validation:Enum=None;SSEKMS;Age
type Encryption string

// Encryption values.
const (
	// EncryptionNone stores what was captured as it is; the store may encrypt by itself.
	EncryptionNone Encryption = "None"
	// EncryptionSSEKMS has the store encrypt with a named key of its key management.
	EncryptionSSEKMS Encryption = "SSEKMS"
	// EncryptionAge has the node encrypt to age recipients before anything leaves it.
	EncryptionAge Encryption = "Age"
)

// Destination is where in the write-once store an incident's evidence goes.
// +kubebuilder:validation:XValidation:rule="(has(self.encryption) && self.encryption == 'SSEKMS') == has(self.kmsKeyID)",message="kmsKeyID is required for encryption SSEKMS, and forbidden otherwise"
// +kubebuilder:validation:XValidation:rule="(has(self.encryption) && self.encryption == 'Age') == has(self.ageRecipients)",message="ageRecipients are required for encryption Age, and forbidden otherwise"
type Destination struct {
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
	// encryption of the evidence.
	// +optional
	// +kubebuilder:default=None
	Encryption Encryption `json:"encryption,omitempty"`
	// kmsKeyID of the key that the store encrypts with.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	KMSKeyID string `json:"kmsKeyID,omitempty"`
	// ageRecipients that can each open what the node encrypts.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Pattern=`^age1[0-9a-z]+$`
	// +kubebuilder:validation:items:MaxLength=2100
	AgeRecipients []string `json:"ageRecipients,omitempty"`
}

// PlainContent describes bytes before they were encrypted.
type PlainContent struct {
	// size in bytes.
	// +required
	// +kubebuilder:validation:Minimum=0
	Size int64 `json:"size"`
	// sha256 of the bytes, lower-case hex.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256"`
}

// StoredObject is one locked version in the write-once store.
type StoredObject struct {
	// index of the object among its siblings: the segments of an artifact, from 0.
	// +required
	// +kubebuilder:validation:Minimum=0
	Index int32 `json:"index"`
	// key of the object in the bucket.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Key string `json:"key"`
	// versionId of the stored version: the key alone does not identify what was stored.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	VersionID string `json:"versionId"`
	// sha256 of the bytes, lower-case hex.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256"`
	// size in bytes.
	// +required
	// +kubebuilder:validation:Minimum=0
	Size int64 `json:"size"`
	// retainUntil is the date until which the store refuses to delete this version.
	// +required
	RetainUntil metav1.Time `json:"retainUntil"`
	// plain is what the node encrypted into the object, on its word; absent where the object is the plain bytes.
	// +optional
	Plain *PlainContent `json:"plain,omitempty"`
}

// Acknowledgement is one authorised account's word that an incident may be released.
type Acknowledgement struct {
	// username as the API server authenticated it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Username string `json:"username"`
	// eventUID of the acknowledged IncidentCaptureCompleted or IncidentCaptureFailed event.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	EventUID string `json:"eventUID"`
	// manifestSHA256 is the manifest that was acknowledged; empty when the capture failed before one was written.
	// +optional
	// +kubebuilder:validation:Pattern=`^([0-9a-f]{64})?$`
	ManifestSHA256 string `json:"manifestSHA256,omitempty"`
	// mac over the other fields by the admission webhook, lower-case hex of HMAC-SHA-256.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	MAC string `json:"mac"`
	// at is when the webhook admitted the acknowledgement.
	// +required
	At metav1.MicroTime `json:"at"`
}
