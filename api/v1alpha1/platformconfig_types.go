package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// WORMConfigSpec says which write-once store the cluster uses. Credentials are files that each workload mounts.
// +kubebuilder:validation:XValidation:rule="(has(self.encryption) && self.encryption == 'SSEKMS') == has(self.kmsKeyID)",message="kmsKeyID is required for encryption SSEKMS, and forbidden otherwise"
// +kubebuilder:validation:XValidation:rule="(has(self.encryption) && self.encryption == 'Age') == has(self.ageRecipients)",message="ageRecipients are required for encryption Age, and forbidden otherwise"
// +kubebuilder:validation:XValidation:rule="self.endpoint.startsWith('https://') || (has(self.insecureAllowHTTP) && self.insecureAllowHTTP)",message="endpoint must be https:// unless insecureAllowHTTP is true"
type WORMConfigSpec struct {
	// endpoint of the S3 API, with scheme.
	// +required
	// +kubebuilder:validation:Pattern=`^https?://[^/]+$`
	// +kubebuilder:validation:MaxLength=512
	Endpoint string `json:"endpoint"`
	// region of the bucket.
	// +optional
	// +kubebuilder:default=us-east-1
	// +kubebuilder:validation:MaxLength=64
	Region string `json:"region,omitempty"`
	// bucket with Object Lock.
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=63
	Bucket string `json:"bucket"`
	// objectLock mode.
	// +optional
	// +kubebuilder:default=COMPLIANCE
	ObjectLock LockMode `json:"objectLock,omitempty"`
	// retainDays of what belongs to no incident.
	// +optional
	// +kubebuilder:default=365
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=36500
	RetainDays int32 `json:"retainDays,omitempty"`
	// caBundle that the endpoint's certificate must chain to, PEM; public authorities when empty.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	CABundle string `json:"caBundle,omitempty"`
	// insecureAllowHTTP lets evidence travel unencrypted.
	// +optional
	InsecureAllowHTTP bool `json:"insecureAllowHTTP,omitempty"`
	// encryption of the evidence that the nodes store.
	// +optional
	// +kubebuilder:default=None
	Encryption Encryption `json:"encryption,omitempty"`
	// kmsKeyID of the key that the store encrypts with, for encryption SSEKMS.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	KMSKeyID string `json:"kmsKeyID,omitempty"`
	// ageRecipients that can each open what the nodes encrypt, for encryption Age.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Pattern=`^age1[0-9a-z]+$`
	// +kubebuilder:validation:items:MaxLength=2100
	AgeRecipients []string `json:"ageRecipients,omitempty"`
}

// PlatformStatus is the status of WORMConfig, AttestorConfig and TTLConfig.
type PlatformStatus struct {
	// conditions: Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// observedGeneration of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// WORMConfig is the cluster's one write-once store; its name is default.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default'",message="metadata.name must be default: there is one WORMConfig"
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.spec.endpoint`
// +kubebuilder:printcolumn:name="Bucket",type=string,JSONPath=`.spec.bucket`
type WORMConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec as the operator wants it.
	// +required
	Spec WORMConfigSpec `json:"spec"`
	// status as the controller found it.
	// +optional
	Status PlatformStatus `json:"status,omitempty"`
}

// WORMConfigList is a list of configurations.
// +kubebuilder:object:root=true
type WORMConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []WORMConfig `json:"items"`
}

// SigningMode is where signatures come from.
// +kubebuilder:validation:Enum=fulcio-keyless;openbao-transit
type SigningMode string

// Signing modes.
const (
	SigningFulcioKeyless  SigningMode = "fulcio-keyless"
	SigningOpenBaoTransit SigningMode = "openbao-transit"
)

// TransitConfig is a key in a transit engine.
type TransitConfig struct {
	// address of the engine, with scheme.
	// +required
	// +kubebuilder:validation:Pattern=`^https?://[^/]+$`
	// +kubebuilder:validation:MaxLength=512
	Address string `json:"address"`
	// key name.
	// +required
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._-]+$`
	// +kubebuilder:validation:MaxLength=128
	Key string `json:"key"`
	// mount path of the engine.
	// +optional
	// +kubebuilder:default=transit
	// +kubebuilder:validation:MaxLength=128
	Mount string `json:"mount,omitempty"`
	// kubernetesAuth logs in with the attestor's ServiceAccount token; without it, the attestor's Secret holds the
	// engine's own token.
	// +optional
	KubernetesAuth *TransitKubernetesAuth `json:"kubernetesAuth,omitempty"`
}

// TransitKubernetesAuth is how the attestor logs in to a transit engine with its ServiceAccount token, which has the
// audience openbao.
type TransitKubernetesAuth struct {
	// role to log in as.
	// +required
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._-]+$`
	// +kubebuilder:validation:MaxLength=128
	Role string `json:"role"`
	// mount path of the authentication method.
	// +optional
	// +kubebuilder:default=kubernetes
	// +kubebuilder:validation:MaxLength=128
	Mount string `json:"mount,omitempty"`
}

// FulcioConfig is a certificate authority for keyless signatures.
// +kubebuilder:validation:XValidation:rule="self.url.startsWith('https://') || (has(self.insecureAllowHTTP) && self.insecureAllowHTTP)",message="url must be https:// unless insecureAllowHTTP is true"
type FulcioConfig struct {
	// url of the authority.
	// +required
	// +kubebuilder:validation:Pattern=`^https?://[^/]+`
	// +kubebuilder:validation:MaxLength=512
	URL string `json:"url"`
	// audience of the ServiceAccount token: the authority's client-id for the cluster's issuer, and the audience of the
	// token that the attestor's Deployment mounts. A token for any other audience is not sent.
	// +optional
	// +kubebuilder:default=sigstore
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Audience string `json:"audience,omitempty"`
	// insecureAllowHTTP lets the token travel unencrypted.
	// +optional
	InsecureAllowHTTP bool `json:"insecureAllowHTTP,omitempty"`
}

// AttestorConfigSpec says how statements are signed, logged and time-stamped.
// +kubebuilder:validation:XValidation:rule="!('fulcio-keyless' in self.signingModes) || has(self.fulcio)",message="fulcio is required for the signing mode fulcio-keyless"
// +kubebuilder:validation:XValidation:rule="!('openbao-transit' in self.signingModes) || has(self.transit)",message="transit is required for the signing mode openbao-transit"
type AttestorConfigSpec struct {
	// signingModes that each statement is sealed in, one or both: with both there are two bundles over the same bytes, and
	// nothing is sealed by one of them alone. The first listed signs first. A statement is finished in the modes that it was
	// begun in as long as the servers for them are configured here. What was sealed in another mode before stays valid as
	// long as the trusted root says so.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	SigningModes []SigningMode `json:"signingModes"`
	// transit engine for openbao-transit.
	// +optional
	Transit *TransitConfig `json:"transit,omitempty"`
	// fulcio certificate authority for fulcio-keyless.
	// +optional
	Fulcio *FulcioConfig `json:"fulcio,omitempty"`
	// rekorURL of the transparency log (Rekor v2).
	// +required
	// +kubebuilder:validation:Pattern=`^https?://[^/]+`
	// +kubebuilder:validation:MaxLength=512
	RekorURL string `json:"rekorURL"`
	// timestampURL of the RFC 3161 time-stamping authority.
	// +required
	// +kubebuilder:validation:Pattern=`^https?://[^/]+`
	// +kubebuilder:validation:MaxLength=512
	TimestampURL string `json:"timestampURL"`
	// caBundle that the certificates of all these servers must chain to, PEM; public authorities when empty.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	CABundle string `json:"caBundle,omitempty"`
	// trustedRootConfigMap in the same namespace holds trusted_root.json, <key>.pub for each trusted version of a signing
	// key, and <name>.identity for each identity whose certificates count. The workloads that verify may read this one
	// ConfigMap and no other.
	// +optional
	// +kubebuilder:default=ugallu-trusted-root
	// +kubebuilder:validation:Enum=ugallu-trusted-root
	TrustedRootConfigMap string `json:"trustedRootConfigMap,omitempty"`
}

// AttestorConfig is the cluster's one configuration of the attestor; its name is default.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default'",message="metadata.name must be default: there is one AttestorConfig"
// +kubebuilder:printcolumn:name="Modes",type=string,JSONPath=`.spec.signingModes`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
type AttestorConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec as the operator wants it.
	// +required
	Spec AttestorConfigSpec `json:"spec"`
	// status as the attestor found it.
	// +optional
	Status PlatformStatus `json:"status,omitempty"`
}

// AttestorConfigList is a list of configurations.
// +kubebuilder:object:root=true
type AttestorConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AttestorConfig `json:"items"`
}

// TTLConfigSpec says how long objects stay in the cluster after their incident ended.
type TTLConfigSpec struct {
	// retainAfterRelease of incidents, their responses, events and bundles.
	// +optional
	// +kubebuilder:default="168h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="retainAfterRelease must not be negative"
	RetainAfterRelease *metav1.Duration `json:"retainAfterRelease,omitempty"`
	// archiveSnapshotEnabled writes an archive to the write-once store before deletion.
	// +optional
	// +kubebuilder:default=true
	ArchiveSnapshotEnabled *bool `json:"archiveSnapshotEnabled,omitempty"`
}

// TTLConfig is the cluster's one configuration of expiry; its name is default.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default'",message="metadata.name must be default: there is one TTLConfig"
type TTLConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec as the operator wants it.
	// +required
	Spec TTLConfigSpec `json:"spec"`
	// status as the controller found it.
	// +optional
	Status PlatformStatus `json:"status,omitempty"`
}

// TTLConfigList is a list of configurations.
// +kubebuilder:object:root=true
type TTLConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TTLConfig `json:"items"`
}
