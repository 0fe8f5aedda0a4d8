package v1alpha1

// Storing is an artifact of which segments are locked and the end is not.
type Storing struct {
	// artifact by name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Artifact string `json:"artifact"`
	// segments from the first.
	// +required
	// +listType=map
	// +listMapKey=index
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	Segments []StoredObject `json:"segments"`
}

// MaxArtifacts is how many artifacts a response can name.
const MaxArtifacts = 256

// ArtifactKind is what an artifact holds.
// +kubebuilder:validation:Enum=DroppedFlows;VolatileState;ProcessFiles;ProcessMemory;MemoryFiles;UpperLayer;Logs;Volume;PodDescription;RootFilesystem;ClusterState;Manifest
type ArtifactKind string

// Artifact kinds, the most volatile first.
const (
	// ArtifactDroppedFlows lists the flows of which packets were dropped.
	ArtifactDroppedFlows ArtifactKind = "DroppedFlows"
	// ArtifactVolatileState has a record for each process and network namespace.
	ArtifactVolatileState ArtifactKind = "VolatileState"
	// ArtifactProcessFiles holds files of processes that no name leads to: deleted executables, memfds.
	ArtifactProcessFiles ArtifactKind = "ProcessFiles"
	// ArtifactProcessMemory is an ELF core file of one process.
	ArtifactProcessMemory ArtifactKind = "ProcessMemory"
	// ArtifactMemoryFiles is an archive of a file system in memory, such as /dev/shm.
	ArtifactMemoryFiles ArtifactKind = "MemoryFiles"
	// ArtifactUpperLayer is an archive of what a container changed, with the markers of the overlay as they lie there.
	ArtifactUpperLayer ArtifactKind = "UpperLayer"
	// ArtifactLogs is an archive of the containers' logs or termination messages.
	ArtifactLogs ArtifactKind = "Logs"
	// ArtifactVolume is an archive of a volume of the pod's own.
	ArtifactVolume ArtifactKind = "Volume"
	// ArtifactPodDescription has records of what the runtime and the node know of the pod.
	ArtifactPodDescription ArtifactKind = "PodDescription"
	// ArtifactRootFilesystem is an archive of everything that a container saw of its image and its changes.
	ArtifactRootFilesystem ArtifactKind = "RootFilesystem"
	// ArtifactClusterState holds the pod's objects of the API server, and is the controller's: the API server refuses it, as
	// it does a manifest, on what a node's agent carries out.
	ArtifactClusterState ArtifactKind = "ClusterState"
	// ArtifactManifest lists everything.
	ArtifactManifest ArtifactKind = "Manifest"
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
	// entries in an archive, records in a list.
	// +optional
	Entries int64 `json:"entries,omitempty"`
	// indexLines that merkleRoot is over.
	// +optional
	// +kubebuilder:validation:Minimum=0
	IndexLines int64 `json:"indexLines,omitempty"`
	// index of an archive: one line for every name that was seen.
	// +optional
	Index *StoredObject `json:"index,omitempty"`
	// timeline of an archive in the body format of The Sleuth Kit.
	// +optional
	Timeline *StoredObject `json:"timeline,omitempty"`
	// frozenThroughout is whether, at each look from before the first byte to after the last, the containers stood still and no
	// process of the pod ran outside of the freeze.
	// +optional
	FrozenThroughout bool `json:"frozenThroughout,omitempty"`
	// truncated is whether a limit cut the stream short.
	// +optional
	Truncated bool `json:"truncated,omitempty"`
}
