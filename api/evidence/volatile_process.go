package evidence

import "time"

// VolatileProcess is one process.
type VolatileProcess struct {
	Kind        VolatileKind `json:"kind"`
	PID         int          `json:"pid"`
	ContainerID string       `json:"containerId,omitempty"`
	ReadAt      time.Time    `json:"readAt"`
	// Ended is whether the process was gone before it was read to the end; what was read until then is here. A process id
	// that was given to another process counts as ended.
	Ended  bool `json:"ended,omitempty"`
	Parent int  `json:"parent,omitempty"`
	// NamespacePIDs from the node's pid namespace to the innermost.
	NamespacePIDs []int `json:"namespacePids,omitempty"`
	ProcessGroup  int   `json:"processGroup,omitempty"`
	Session       int   `json:"session,omitempty"`
	// StartTicks since boot: with the process id it names this process and no later one.
	StartTicks uint64     `json:"startTicks,string,omitempty"`
	StartedAt  *time.Time `json:"startedAt,omitempty"`
	// State is the kernel's letter: R, S, D, T, t, Z, X, I.
	State string `json:"state,omitempty"`
	Comm  Text   `json:"comm,omitempty"`
	// ReadThrough is the thread whose files were read where the main thread has ended before the others.
	ReadThrough  int                  `json:"readThrough,omitempty"`
	TracerPID    int                  `json:"tracerPid,omitempty"`
	Argv         []Text               `json:"argv,omitempty"`
	Environment  []VolatileVariable   `json:"environment,omitempty"`
	Executable   *VolatileObject      `json:"executable,omitempty"`
	Directory    *VolatileObject      `json:"directory,omitempty"`
	Root         *VolatileObject      `json:"root,omitempty"`
	Maps         []VolatileMapping    `json:"maps,omitempty"`
	MapsTotal    int                  `json:"mapsTotal"`
	Memory       *VolatileMemory      `json:"memory,omitempty"`
	Descriptors  []VolatileDescriptor `json:"descriptors,omitempty"`
	Credentials  *VolatileCredentials `json:"credentials,omitempty"`
	Namespaces   *VolatileNamespaces  `json:"namespaces,omitempty"`
	UIDMap       []VolatileIDMapping  `json:"uidMap,omitempty"`
	GIDMap       []VolatileIDMapping  `json:"gidMap,omitempty"`
	Mounts       []VolatileMount      `json:"mounts,omitempty"`
	MountsSameAs int                  `json:"mountsSameAs,omitempty"`
	// Cgroups are the lines of /proc/PID/cgroup.
	Cgroups        []Text `json:"cgroups,omitempty"`
	OOMScore       int    `json:"oomScore"`
	OOMScoreAdjust int    `json:"oomScoreAdjust"`
	// Label of the security module; absent without one.
	Label        Text             `json:"label,omitempty"`
	Threads      []VolatileThread `json:"threads,omitempty"`
	ThreadsTotal int              `json:"threadsTotal"`
	// Missing names what is absent above.
	Missing []VolatileMissing `json:"missing,omitempty"`
}

// VolatileVariable is one entry of the environment.
type VolatileVariable struct {
	// Name is empty for an entry without '='.
	Name Text `json:"name"`
	// Value is absent when it is redacted, and when the record had no room for it.
	Value *Text `json:"value,omitempty"`
	// SHA256 of the value.
	SHA256   string `json:"sha256"`
	Redacted bool   `json:"redacted,omitempty"`
}

// VolatileObject is a file or folder that a link of the process leads to.
type VolatileObject struct {
	// Path as the process's own root shows it.
	Path Text `json:"path"`
	// Deleted is whether this name is gone.
	Deleted bool `json:"deleted,omitempty"`
	// Device as major:minor.
	Device string `json:"device,omitempty"`
	Inode  uint64 `json:"inode,string,omitempty"`
	Links  uint32 `json:"links,omitempty"`
	Mode   uint32 `json:"mode,omitempty"`
	Size   uint64 `json:"size,string,omitempty"`
	UID    uint32 `json:"uid,omitempty"`
	GID    uint32 `json:"gid,omitempty"`
	// SHA256 of an executable's content.
	SHA256 string `json:"sha256,omitempty"`
}

// VolatileMapping is a line of /proc/PID/maps. The kernel writes a newline in a path as \012.
type VolatileMapping struct {
	// Start and End are hexadecimal.
	Start       string `json:"start"`
	End         string `json:"end"`
	Permissions string `json:"permissions"`
	Offset      string `json:"offset"`
	Device      string `json:"device"`
	Inode       uint64 `json:"inode,string"`
	Path        Text   `json:"path,omitempty"`
}

// VolatileMemory is the sum over all mappings, in bytes.
type VolatileMemory struct {
	Resident     int64 `json:"resident"`
	Proportional int64 `json:"proportional"`
	SharedClean  int64 `json:"sharedClean"`
	SharedDirty  int64 `json:"sharedDirty"`
	PrivateClean int64 `json:"privateClean"`
	PrivateDirty int64 `json:"privateDirty"`
	Anonymous    int64 `json:"anonymous"`
	Swapped      int64 `json:"swapped"`
	Locked       int64 `json:"locked"`
}

// VolatileDescriptorKind is what a descriptor refers to.
type VolatileDescriptorKind string

// Kinds of descriptors.
const (
	DescriptorFile      VolatileDescriptorKind = "file"
	DescriptorMemfd     VolatileDescriptorKind = "memfd"
	DescriptorDirectory VolatileDescriptorKind = "directory"
	DescriptorCharacter VolatileDescriptorKind = "character"
	DescriptorBlock     VolatileDescriptorKind = "block"
	DescriptorFIFO      VolatileDescriptorKind = "fifo"
	DescriptorSocket    VolatileDescriptorKind = "socket"
	DescriptorSymlink   VolatileDescriptorKind = "symlink"
	// DescriptorAnonymous has no file type: eventfd, epoll, pidfd, bpf and the like; the target says which.
	DescriptorAnonymous VolatileDescriptorKind = "anonymous"
	// DescriptorUnknown could not be looked at.
	DescriptorUnknown VolatileDescriptorKind = "unknown"
)

// VolatileDescriptor is one open descriptor.
type VolatileDescriptor struct {
	Number int `json:"number"`
	// Thread is set on descriptors of a thread that has a table of its own.
	Thread  int                    `json:"thread,omitempty"`
	Kind    VolatileDescriptorKind `json:"kind"`
	Target  Text                   `json:"target"`
	Deleted bool                   `json:"deleted,omitempty"`
	Device  string                 `json:"device,omitempty"`
	Inode   uint64                 `json:"inode,string,omitempty"`
	Size    uint64                 `json:"size,string,omitempty"`
	Mode    uint32                 `json:"mode,omitempty"`
	// Flags of open, octal.
	Flags   string `json:"flags,omitempty"`
	Offset  int64  `json:"offset,string"`
	MountID int64  `json:"mountId,omitempty"`
	// Details are the other lines of fdinfo.
	Details []Text `json:"details,omitempty"`
	// Protocol of a socket that no table of a network namespace lists.
	Protocol string `json:"protocol,omitempty"`
	// Socket as the table of its network namespace lists it.
	Socket *VolatileSocket `json:"socket,omitempty"`
}

// VolatileCredentials are those of the main thread.
type VolatileCredentials struct {
	UIDs   VolatileIDs `json:"uids"`
	GIDs   VolatileIDs `json:"gids"`
	Groups []uint32    `json:"groups"`
	// Capabilities are hexadecimal masks.
	Capabilities   VolatileCapabilities `json:"capabilities"`
	NoNewPrivs     bool                 `json:"noNewPrivs"`
	SeccompMode    int                  `json:"seccompMode"`
	SeccompFilters int                  `json:"seccompFilters"`
}

// VolatileIDs are the four ids of a process.
type VolatileIDs struct {
	Real       uint32 `json:"real"`
	Effective  uint32 `json:"effective"`
	Saved      uint32 `json:"saved"`
	Filesystem uint32 `json:"filesystem"`
}

// VolatileCapabilities are the five sets.
type VolatileCapabilities struct {
	Inheritable string `json:"inheritable"`
	Permitted   string `json:"permitted"`
	Effective   string `json:"effective"`
	Bounding    string `json:"bounding"`
	Ambient     string `json:"ambient"`
}

// VolatileNamespaces are inodes of the nsfs filesystem.
type VolatileNamespaces struct {
	Cgroup          uint64 `json:"cgroup,string,omitempty"`
	IPC             uint64 `json:"ipc,string,omitempty"`
	Mount           uint64 `json:"mount,string,omitempty"`
	Network         uint64 `json:"network,string,omitempty"`
	PID             uint64 `json:"pid,string,omitempty"`
	PIDForChildren  uint64 `json:"pidForChildren,string,omitempty"`
	Time            uint64 `json:"time,string,omitempty"`
	TimeForChildren uint64 `json:"timeForChildren,string,omitempty"`
	User            uint64 `json:"user,string,omitempty"`
	UTS             uint64 `json:"uts,string,omitempty"`
}

// VolatileIDMapping is a line of uid_map or gid_map.
type VolatileIDMapping struct {
	Inside  uint32 `json:"inside"`
	Outside uint32 `json:"outside"`
	Count   uint32 `json:"count"`
}

// VolatileMount is a line of mountinfo.
type VolatileMount struct {
	ID           int    `json:"id"`
	Parent       int    `json:"parent"`
	Device       string `json:"device"`
	Root         Text   `json:"root"`
	Point        Text   `json:"point"`
	Options      Text   `json:"options"`
	Propagation  Text   `json:"propagation,omitempty"`
	Type         Text   `json:"type"`
	Source       Text   `json:"source"`
	SuperOptions Text   `json:"superOptions"`
	// CoveredBy is the id of the mount that hides this one: it lies on it, or on a folder above it.
	CoveredBy int `json:"coveredBy,omitempty"`
}

// VolatileThread is one thread.
type VolatileThread struct {
	TID        int    `json:"tid"`
	State      string `json:"state"`
	Comm       Text   `json:"comm"`
	StartTicks uint64 `json:"startTicks,string"`
	// Wait is the kernel function that it sleeps in; empty when it runs.
	Wait string `json:"wait,omitempty"`
	// Syscall as /proc/PID/syscall shows it: number, six arguments, stack pointer, program counter.
	Syscall string   `json:"syscall,omitempty"`
	Stack   []string `json:"stack,omitempty"`
	// Network is set when it is another namespace than the main thread's.
	Network uint64 `json:"network,string,omitempty"`
	// OwnDescriptors is whether the thread is the first with a table of descriptors that is not the main thread's.
	OwnDescriptors bool `json:"ownDescriptors,omitempty"`
}

// VolatileFile is a line of the index of memory-backed and deleted files.
type VolatileFile struct {
	// Name in the archive.
	Name string `json:"name"`
	// Path that the kernel shows for it.
	Path    Text                `json:"path"`
	Device  string              `json:"device"`
	Inode   uint64              `json:"inode,string"`
	Links   uint32              `json:"links"`
	Mode    uint32              `json:"mode"`
	UID     uint32              `json:"uid"`
	GID     uint32              `json:"gid"`
	Size    uint64              `json:"size,string"`
	ModTime string              `json:"modTime"`
	Sources []VolatileReference `json:"sources"`
	// Runs are the file's data; what lies between them is holes.
	Runs      []VolatileRun `json:"runs"`
	Truncated bool          `json:"truncated,omitempty"`
}

// VolatileReference says where a process holds a file: Link is exe, fd/N or map_files/RANGE.
type VolatileReference struct {
	PID  int    `json:"pid"`
	Link string `json:"link"`
}

// VolatileRun is a member of the archive.
type VolatileRun struct {
	Member string `json:"member"`
	Offset int64  `json:"offset,string"`
	Length int64  `json:"length,string"`
	SHA256 string `json:"sha256"`
}
