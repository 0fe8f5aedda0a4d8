package evidence

import (
	"encoding/json"
	"time"
)

// MediaTypePodFiles is that of an object with one PodRecord a line, zstd-compressed.
const MediaTypePodFiles = "application/vnd.ugallu.forensics.podfiles.v1.ndjson+zstd"

// PodFilesVersion is the version of the records' shape.
const PodFilesVersion = "v1"

// PodRecordKind says which member of a PodRecord is set.
type PodRecordKind string

// Kinds of records, in the order of a stream: one header, sources, memory mounts, volumes and their files, containers,
// gaps and one trailer. Without a trailer the stream is not complete.
const (
	PodRecordHeader    PodRecordKind = "header"
	PodRecordSource    PodRecordKind = "source"
	PodRecordMount     PodRecordKind = "mount"
	PodRecordVolume    PodRecordKind = "volume"
	PodRecordFile      PodRecordKind = "file"
	PodRecordContainer PodRecordKind = "container"
	PodRecordGap       PodRecordKind = "gap"
	PodRecordTrailer   PodRecordKind = "trailer"
)

// PodRecord is one line of what a pod has on its node beside processes and root filesystems.
type PodRecord struct {
	Kind      PodRecordKind         `json:"kind"`
	Header    *PodFilesHeader       `json:"header,omitempty"`
	Source    *PodSource            `json:"source,omitempty"`
	Mount     *PodMemoryMount       `json:"mount,omitempty"`
	Volume    *PodVolume            `json:"volume,omitempty"`
	File      *PodFile              `json:"file,omitempty"`
	Container *ContainerDescription `json:"container,omitempty"`
	Gap       *PodGap               `json:"gap,omitempty"`
	Trailer   *PodFilesTrailer      `json:"trailer,omitempty"`
}

// PodFilesHeader is the first line.
type PodFilesHeader struct {
	Version   string    `json:"version"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       string    `json:"uid"`
	At        time.Time `json:"at"`
	// SecretsHashed says whether the files of Secrets and projected volumes carry a sha256.
	SecretsHashed bool `json:"secretsHashed"`
	// EnvironmentRedacted says whether values of environment variables are replaced by their sha256.
	EnvironmentRedacted bool `json:"environmentRedacted"`
}

// PodFilesTrailer is the last line.
type PodFilesTrailer struct {
	Records int64 `json:"records"`
	Gaps    int64 `json:"gaps"`
}

// PodSourceKind is what a source is.
type PodSourceKind string

// Kinds of sources, the most volatile first.
const (
	// PodSourceSharedMemory is /dev/shm.
	PodSourceSharedMemory PodSourceKind = "SharedMemory"
	// PodSourceMemoryMount is memory that something mounted elsewhere in a container, /dev for one.
	PodSourceMemoryMount PodSourceKind = "MemoryMount"
	// PodSourceMemoryVolume is an emptyDir volume in memory.
	PodSourceMemoryVolume PodSourceKind = "MemoryVolume"
	// PodSourceLogs are the logs of all containers, rotated and previous ones as well.
	PodSourceLogs PodSourceKind = "Logs"
	// PodSourceTermination are the termination messages of all containers.
	PodSourceTermination PodSourceKind = "Termination"
	// PodSourceVolume is an emptyDir volume on disk.
	PodSourceVolume PodSourceKind = "Volume"
)

// PodSource is a folder that is archived.
type PodSource struct {
	// Name of its artifact, without an extension.
	Name string        `json:"name"`
	Kind PodSourceKind `json:"kind"`
	// Path on the node, or from the root of the mount namespace when that is given.
	Path Text `json:"path"`
	// Volume is the name of the volume.
	Volume string `json:"volume,omitempty"`
	// MountNamespaces in which it is mounted, by inode.
	MountNamespaces []uint64 `json:"mountNamespaces,omitempty"`
	// Memory says whether its content is in memory only.
	Memory bool `json:"memory"`
	// Filesystem type and device number, major:minor.
	Filesystem string `json:"filesystem,omitempty"`
	Device     string `json:"device"`
	// UsedBytes and Files as the file system counts them; absent on disk, where they count the whole disk.
	UsedBytes int64 `json:"usedBytes,omitempty"`
	Files     int64 `json:"files,omitempty"`
}

// PodMemoryMount is a file system in memory that a mount namespace of the pod has.
type PodMemoryMount struct {
	MountNamespace uint64 `json:"mountNamespace"`
	MountID        int    `json:"mountId"`
	Path           Text   `json:"path"`
	// Root is the folder of the file system that is mounted there.
	Root       Text   `json:"root"`
	Filesystem string `json:"filesystem"`
	Device     string `json:"device"`
	ReadOnly   bool   `json:"readOnly"`
	// Source names the source that holds it; empty when none does.
	Source string `json:"source,omitempty"`
	// Why no source holds it: Empty, Node (the node has it too: a volume, a Secret), or the reason of a gap.
	Why string `json:"why,omitempty"`
}

// PodVolume is a volume of the pod.
type PodVolume struct {
	// Name in the pod, or the name of its folder on the node when only that is known.
	Name string `json:"name"`
	// Kind is the member of the pod's spec, such as hostPath, or the plugin whose folder it is, such as kubernetes.io~csi.
	Kind string `json:"kind"`
	// Source names the source that holds it; empty for one that is not archived.
	Source string `json:"source,omitempty"`
	// Described is set when its files are listed one by one, without their content.
	Described bool `json:"described,omitempty"`
	// Spec is what the pod's spec says of it.
	Spec json.RawMessage `json:"spec,omitempty"`
	// Driver and Handle of a CSI volume, as the kubelet wrote them down.
	Driver string `json:"driver,omitempty"`
	Handle string `json:"handle,omitempty"`
}

// PodFile is one file that is described beside the archives: of a Secret, a configMap, a projected or a downwardAPI
// volume, never with its content, or the pod's /etc/hosts, with it.
type PodFile struct {
	Volume string    `json:"volume,omitempty"`
	Path   Text      `json:"path"`
	Type   EntryType `json:"type"`
	Mode   uint32    `json:"mode"`
	UID    uint32    `json:"uid"`
	GID    uint32    `json:"gid"`
	Size   int64     `json:"size"`
	// Link is the target of a symbolic link.
	Link Text `json:"link,omitempty"`
	// Times as entries have them: seconds since 1970, a point, and nine digits.
	AccessTime string `json:"accessTime"`
	ModTime    string `json:"modTime"`
	ChangeTime string `json:"changeTime"`
	BirthTime  string `json:"birthTime,omitempty"`
	SHA256     string `json:"sha256,omitempty"`
	// Content of /etc/hosts, at most its first MiB.
	Content []byte `json:"content,omitempty"`
}

// PodGap is something that is not captured.
type PodGap struct {
	Path    Text   `json:"path"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// ContainerDescription is what the runtime knows of a container and its image.
type ContainerDescription struct {
	ID string `json:"id"`
	// Image is the reference that the container was created with.
	Image       string            `json:"image,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Runtime     string            `json:"runtime,omitempty"`
	SandboxID   string            `json:"sandboxId,omitempty"`
	CreatedAt   time.Time         `json:"createdAt,omitzero"`
	UpdatedAt   time.Time         `json:"updatedAt,omitzero"`
	Snapshotter string            `json:"snapshotter,omitempty"`
	// Snapshots from the container's own, or the one that holds its files, down to the image's first layer.
	Snapshots []ContainerSnapshot `json:"snapshots,omitempty"`
	// Spec is the runtime's specification of the container.
	Spec json.RawMessage `json:"spec,omitempty"`
	// Target is the blob that the image's reference names: a manifest, or an index of manifests.
	Target *ContainerBlob `json:"target,omitempty"`
	// Manifest is the one of this platform, absent when it is Target.
	Manifest *ContainerBlob `json:"manifest,omitempty"`
	// Config of the image. Its digest is what Kubernetes calls the image's id.
	Config *ContainerBlob `json:"config,omitempty"`
	// Layers as the manifest lists them.
	Layers []ContainerLayer `json:"layers,omitempty"`
	// DiffIDs are the digests of the uncompressed layers, ChainID that of their sequence.
	DiffIDs []string `json:"diffIds,omitempty"`
	ChainID string   `json:"chainId,omitempty"`
	// Missing names what could not be told, and why.
	Missing []string `json:"missing,omitempty"`
}

// ContainerSnapshot is a snapshot and what its snapshotter says of it.
type ContainerSnapshot struct {
	Name      string            `json:"name"`
	Parent    string            `json:"parent,omitempty"`
	Kind      string            `json:"kind"`
	Labels    map[string]string `json:"labels,omitempty"`
	CreatedAt time.Time         `json:"createdAt"`
	UpdatedAt time.Time         `json:"updatedAt"`
}

// ContainerBlob is a blob of the content store whose content was checked against its digest.
type ContainerBlob struct {
	MediaType string `json:"mediaType,omitempty"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	// Content is the blob; base64, because its digest is over these very bytes.
	Content []byte `json:"content,omitempty"`
}

// ContainerLayer is a layer as the manifest lists it.
type ContainerLayer struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	// Present is whether the content store has the compressed layer; often it is discarded once unpacked.
	Present bool `json:"present"`
}
