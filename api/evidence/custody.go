package evidence

import (
	"fmt"
	"strings"
	"time"
)

const (
	// PredicateTypeIncident is that of the statement over a custody record.
	PredicateTypeIncident = "https://ugallu.io/attestation/incident/v1"
	// MediaTypeCustody is that of a custody record.
	MediaTypeCustody = "application/vnd.ugallu.forensics.custody.v1+json"
	// CustodyVersion is the version of the record's shape.
	CustodyVersion = "v1"
)

// The two custody records of an incident.
const (
	// CustodyCaptured is made when the statement about the Completed or Failed event is sealed.
	CustodyCaptured = 1
	// CustodyReleased is made when the statement about the last podunfreeze is sealed.
	CustodyReleased = 2
)

// Modes in which a statement is signed: with a certificate that binds a short-lived key to an identity, or with a key of
// its own.
const (
	ModeKeyless = "fulcio-keyless"
	ModeTransit = "openbao-transit"
)

// GapModeWithdrawn is the reason of the gap of a statement that was begun in more modes than it is sealed in.
const GapModeWithdrawn = "SigningModeWithdrawn"

// StatementKind is the kind of object that a statement is about.
type StatementKind string

// Kinds of statements. StatementIncident is the statement over the custody record before this one.
const (
	StatementSecurityEvent StatementKind = "SecurityEvent"
	StatementEventResponse StatementKind = "EventResponse"
	StatementIncident      StatementKind = "Incident"
)

// ObjectRole is what a stored object is to its incident.
type ObjectRole string

// Roles of stored objects.
const (
	// RoleSegment, RoleIndex and RoleTimeline belong to the artifact that CustodyObject names.
	RoleSegment  ObjectRole = "Segment"
	RoleIndex    ObjectRole = "Index"
	RoleTimeline ObjectRole = "Timeline"
	// RoleAttachment is a list of gaps or of dropped flows.
	RoleAttachment ObjectRole = "Attachment"
	RoleManifest   ObjectRole = "Manifest"
	// RoleClusterState is what the API server knew of the pod, of a capture that failed: no manifest names it, and it
	// was not read back.
	RoleClusterState ObjectRole = "ClusterState"
	// RoleTrust is an entry of what the attestor trusted: trusted root, public keys and identities. It is kept for
	// people; a verifier brings its own.
	RoleTrust ObjectRole = "Trust"
)

// Custody lists everything that an incident left behind, each version with its digest, so that any changed byte counts.
// It is stored as canonical JSON under CustodyKey, and the statement over it under CustodyBundleKey.
type Custody struct {
	Version string `json:"version"`
	// Number is CustodyCaptured or CustodyReleased. The second lists anew what the first does.
	Number   int       `json:"number"`
	Incident Reference `json:"incident"`
	Trigger  Reference `json:"trigger"`
	Pod      Pod       `json:"pod"`
	// RetainUntil is the date before which the store deletes no version that is listed here.
	RetainUntil time.Time `json:"retainUntil"`
	LockMode    string    `json:"lockMode"`
	// Previous is the record before this one; absent in the first.
	Previous *StoredVersion `json:"previous,omitempty"`
	// Statements in the order of what they are about: the trigger; the responses, each after its parent; the Completed or
	// Failed event; the statement over the previous record; the responses that released the pod.
	Statements []CustodyStatement `json:"statements"`
	// Objects are all others, ordered by key, then by version.
	Objects []CustodyObject `json:"objects"`
	// CountersignedIn are the modes in which the statement over this record is signed once more, beside the bundle under
	// CustodyBundleKey: nothing but the record itself can say that those bundles are there.
	CountersignedIn []string `json:"countersignedIn,omitempty"`
	// Gaps are of what no response could name: of a capture that failed, the cluster state; and the modes that a statement
	// was to be signed in and is not.
	Gaps []Gap `json:"gaps,omitempty"`
}

// StoredVersion is one locked version of an object.
type StoredVersion struct {
	Key         string    `json:"key"`
	VersionID   string    `json:"versionId"`
	Size        int64     `json:"size"`
	SHA256      string    `json:"sha256"`
	RetainUntil time.Time `json:"retainUntil"`
}

// CustodyStatement is one sealed statement.
type CustodyStatement struct {
	Kind StatementKind `json:"kind"`
	// Subject is the object that the statement is about.
	Subject Reference `json:"subject"`
	// Step of a response; empty otherwise.
	Step string `json:"step,omitempty"`
	// PayloadSHA256 is over the bytes that were signed: the statement in canonical JSON.
	PayloadSHA256 string `json:"payloadSha256"`
	// Bundle is the whole Sigstore bundle, of which a verifier of bundles does not read every byte.
	Bundle StoredVersion `json:"bundle"`
	// Countersignatures are bundles over the same bytes, signed in further modes.
	Countersignatures []Countersignature `json:"countersignatures,omitempty"`
}

// Countersignature is a Sigstore bundle beside the first one over the same statement.
type Countersignature struct {
	// Mode is ModeKeyless or ModeTransit.
	Mode string `json:"mode"`
	StoredVersion
}

// CustodyObject is one stored object that is no bundle and no custody record.
type CustodyObject struct {
	StoredVersion
	Role ObjectRole `json:"role"`
	// Artifact is the name of the artifact that a segment, an index or a timeline belongs to.
	Artifact string `json:"artifact,omitempty"`
}

// IncidentPredicate is what a bundle says about a custody record; its one subject is the record itself, by file name.
type IncidentPredicate struct {
	Incident Reference `json:"incident"`
	// Number of the record.
	Number int `json:"number"`
	// PreviousCustody is the sha256 of the record before; empty in the first.
	PreviousCustody string `json:"previousCustody,omitempty"`
	// Previous is the sha256 of the payload of the last statement that the record lists.
	Previous string   `json:"previous"`
	Attestor Attestor `json:"attestor"`
}

// CustodyKey is where a record with this digest lies under an incident's prefix.
func CustodyKey(prefix string, number int, sha256 string) string {
	return fmt.Sprintf("%s/custody-%d-%s.json", prefix, number, sha256)
}

// CustodyBundleKey is where the statement over a record lies.
func CustodyBundleKey(custodyKey string) string {
	return strings.TrimSuffix(custodyKey, ".json") + ".sigstore.json"
}

// CountersignatureKey is where the bundle lies that signs the statement of the bundle under another key in a further mode.
func CountersignatureKey(bundleKey, mode string) string {
	const suffix = ".sigstore.json"
	return strings.TrimSuffix(bundleKey, suffix) + "." + mode + suffix
}

// TrustKey is where an entry of the attestor's trust is archived under an incident's prefix.
func TrustKey(prefix, sha256, entry string) string {
	return fmt.Sprintf("%s/trust/%s/%s", prefix, sha256, entry)
}

// TriggerBundleKey is where the bundle of an event that belongs to no incident lies, such as a trigger.
func TriggerBundleKey(eventUID string) string { return "attestations/" + eventUID + ".sigstore.json" }
