package evidence

import (
	"encoding/json"
	"fmt"
	"time"
)

// Media types of what is stored.
const (
	MediaTypeManifest = "application/vnd.ugallu.forensics.manifest.v1+json"
	MediaTypeTarZstd  = "application/vnd.ugallu.forensics.archive.v1.tar+zstd"
	MediaTypeTarGzip  = "application/vnd.ugallu.forensics.archive.v1.tar+gzip"
	MediaTypeBundle   = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// MediaTypeClusterState is that of YAML documents: one that says what follows, then the pod's objects.
	MediaTypeClusterState = "application/vnd.ugallu.forensics.cluster-state.v1+yaml"
)

// ManifestVersion is the version of the manifest's shape.
const ManifestVersion = "v1"

// Reference binds to an object of the cluster by uid.
type Reference struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Pod is the contained pod.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Node      string `json:"node"`
}

// Manifest lists everything that an incident captured, and what it could not.
type Manifest struct {
	Version     string            `json:"version"`
	Incident    Reference         `json:"incident"`
	Trigger     Reference         `json:"trigger"`
	Pod         Pod               `json:"pod"`
	RetainUntil time.Time         `json:"retainUntil"`
	Responses   []ResponseSummary `json:"responses"`
	// Containment is the podfreeze response's containment record as it stood when that response completed.
	Containment json.RawMessage `json:"containment,omitempty"`
	Artifacts   []Artifact      `json:"artifacts"`
	// ClusterStateAt is when the artifact of kind ClusterState was read from the API server. The response that stored the
	// manifest names that artifact, not one of Responses.
	ClusterStateAt *time.Time `json:"clusterStateAt,omitempty"`
	Gaps           []Gap      `json:"gaps"`
	Truncated      bool       `json:"truncated"`
}

// ResponseSummary names one response and its end.
type ResponseSummary struct {
	Reference
	Step        string    `json:"step"`
	Phase       string    `json:"phase"`
	CompletedAt time.Time `json:"completedAt"`
}

// Artifact is one stream of evidence with both accounts of it.
type Artifact struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Container string `json:"container,omitempty"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	Entries   int64  `json:"entries,omitempty"`
	// MerkleRoot is over the IndexLines lines of the index of an archive.
	MerkleRoot       string    `json:"merkleRoot,omitempty"`
	IndexLines       int64     `json:"indexLines,omitempty"`
	Index            *Segment  `json:"index,omitempty"`
	Timeline         *Segment  `json:"timeline,omitempty"`
	Asserted         Asserted  `json:"asserted"`
	Observed         *Observed `json:"observed,omitempty"`
	Segments         []Segment `json:"segments"`
	FrozenThroughout bool      `json:"frozenThroughout"`
	Truncated        bool      `json:"truncated"`
}

// Asserted is a digest on the word of the agent that made the stream.
type Asserted struct {
	By     string `json:"by"`
	Node   string `json:"node"`
	SHA256 string `json:"sha256"`
}

// Observed is a digest computed by a workload that read the stored versions back.
type Observed struct {
	By     string `json:"by"`
	SHA256 string `json:"sha256,omitempty"`
}

// Segment is one locked object; the concatenation of an artifact's segments is its stream.
type Segment struct {
	Index          int32     `json:"index"`
	Key            string    `json:"key"`
	VersionID      string    `json:"versionId"`
	Size           int64     `json:"size"`
	SHA256         string    `json:"sha256"`
	ObservedSHA256 string    `json:"observedSha256,omitempty"`
	RetainUntil    time.Time `json:"retainUntil"`
	// Plain is what the node encrypted into the object, on its word; absent where the object is the plain bytes.
	Plain *PlainContent `json:"plain,omitempty"`
}

// PlainContent describes bytes before they were encrypted.
type PlainContent struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// ManifestKey is where a manifest with this digest lies under an incident's prefix.
func ManifestKey(prefix, sha256 string) string {
	return fmt.Sprintf("%s/manifest-%s.json", prefix, sha256)
}
