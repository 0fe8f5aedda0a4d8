package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ResponsePhase is computed from a response's conditions.
// +kubebuilder:validation:Enum=Pending;Running;Succeeded;Partial;Failed
type ResponsePhase string

// Response phases.
const (
	ResponsePending   ResponsePhase = "Pending"
	ResponseRunning   ResponsePhase = "Running"
	ResponseSucceeded ResponsePhase = "Succeeded"
	ResponsePartial   ResponsePhase = "Partial"
	ResponseFailed    ResponsePhase = "Failed"
)

// EventResponseStatus is the record of the act, written by the executor alone and final once completedAt is set.
type EventResponseStatus struct {
	// conditions: Complete, and while it runs the executor's steps.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// phase computed from the conditions.
	// +optional
	Phase ResponsePhase `json:"phase,omitempty"`
	// reporter asserts what stands here.
	// +optional
	Reporter *Reporter `json:"reporter,omitempty"`
	// attempts counts the starts of the executor on this order.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`
	// startedAt is when the executor first took the order.
	// +optional
	StartedAt *metav1.MicroTime `json:"startedAt,omitempty"`
	// completedAt closes the record.
	// +optional
	CompletedAt *metav1.MicroTime `json:"completedAt,omitempty"`
	// containment reached (podfreeze) or given up (podunfreeze).
	// +optional
	Containment *Containment `json:"containment,omitempty"`
	// progress of a running capture.
	// +optional
	Progress *Progress `json:"progress,omitempty"`
	// storing is the artifact that is being stored: what of it is locked already is not stored again after a restart.
	// +optional
	Storing *Storing `json:"storing,omitempty"`
	// begun are the artifacts that were begun, or come next, and are not stored. What an agent stored of them before it was
	// killed is looked for after a restart, also where the pod has them no more.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=512
	Begun []string `json:"begun,omitempty"`
	// artifacts stored.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=256
	Artifacts []Artifact `json:"artifacts,omitempty"`
	// gaps counted by reason.
	// +optional
	// +listType=map
	// +listMapKey=reason
	// +kubebuilder:validation:MaxItems=64
	Gaps []GapCount `json:"gaps,omitempty"`
	// gapsObject names every path that is missing, in the write-once store.
	// +optional
	GapsObject *StoredObject `json:"gapsObject,omitempty"`
}

// Reporter is who asserts, and what its clocks said.
type Reporter struct {
	// account of the reporter.
	// +required
	// +kubebuilder:validation:MaxLength=512
	Account string `json:"account"`
	// podUID of the reporter.
	// +required
	// +kubebuilder:validation:MaxLength=64
	PodUID string `json:"podUID"`
	// nodeName of the reporter.
	// +required
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName"`
	// bootID of the reporter's node.
	// +required
	// +kubebuilder:validation:MaxLength=64
	BootID string `json:"bootID"`
	// imageDigest of the reporter, or its version.
	// +required
	// +kubebuilder:validation:MaxLength=512
	ImageDigest string `json:"imageDigest"`
	// realtime is CLOCK_REALTIME when the order was taken.
	// +required
	Realtime metav1.MicroTime `json:"realtime"`
	// boottimeNanos is CLOCK_BOOTTIME at the same moment.
	// +required
	BoottimeNanos int64 `json:"boottimeNanos"`
	// maxErrorMicros is the kernel's bound on the error of realtime.
	// +required
	MaxErrorMicros int64 `json:"maxErrorMicros"`
	// clockSynchronized is whether the kernel says that a time source steers it.
	// +required
	ClockSynchronized bool `json:"clockSynchronized"`
	// apiServerDate is the Date header of the API server nearest to that moment.
	// +optional
	APIServerDate *metav1.Time `json:"apiServerDate,omitempty"`
}

// ContainmentLevel is the worst part of a containment.
// +kubebuilder:validation:Enum=Full;Partial;PolicyOnly
type ContainmentLevel string

// Containment levels.
const (
	LevelFull       ContainmentLevel = "Full"
	LevelPartial    ContainmentLevel = "Partial"
	LevelPolicyOnly ContainmentLevel = "PolicyOnly"
)

// FreezeMethod is how processes were stopped: the freezer of which cgroup tree.
// +kubebuilder:validation:Enum=CgroupV2;CgroupV1;None
type FreezeMethod string

// Freeze methods.
const (
	FreezeCgroupV2 FreezeMethod = "CgroupV2"
	FreezeCgroupV1 FreezeMethod = "CgroupV1"
	FreezeNone     FreezeMethod = "None"
)

// MaxHooks is how many hooks a Containment can name.
const MaxHooks = 64

// Containment is what holds the pod.
type Containment struct {
	// level reached: that of the worst part.
	// +required
	Level ContainmentLevel `json:"level"`
	// containedAt is set only after the drop was verified.
	// +optional
	ContainedAt *metav1.MicroTime `json:"containedAt,omitempty"`
	// hooks that drop packets.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=64
	Hooks []Hook `json:"hooks,omitempty"`
	// freezeMethod used.
	// +required
	FreezeMethod FreezeMethod `json:"freezeMethod"`
	// containers frozen and held.
	// +optional
	// +listType=map
	// +listMapKey=containerID
	// +kubebuilder:validation:MaxItems=128
	Containers []ContainerFreeze `json:"containers,omitempty"`
	// escapedProcesses found outside the pod's cgroups.
	// +optional
	EscapedProcesses int32 `json:"escapedProcesses,omitempty"`
	// stoppedProcesses of those that escaped.
	// +optional
	StoppedProcesses int32 `json:"stoppedProcesses,omitempty"`
	// socketsBefore are the pod's sockets as the order was taken; absent for a pod in the node's network.
	// +optional
	SocketsBefore *SocketSample `json:"socketsBefore,omitempty"`
	// socketsAfter are the pod's sockets after the drop was verified and the pod was frozen.
	// +optional
	SocketsAfter *SocketSample `json:"socketsAfter,omitempty"`
	// flows of which packets were dropped.
	// +optional
	Flows *FlowCounts `json:"flows,omitempty"`
	// flowsObject lists dropped flows; addresses stay out of the API server.
	// +optional
	FlowsObject *StoredObject `json:"flowsObject,omitempty"`
}

// SocketSample is what the kernel says of a pod's sockets at one moment.
type SocketSample struct {
	// at is when the sample was begun.
	// +required
	At metav1.MicroTime `json:"at"`
	// tcpEstablished connections.
	// +optional
	TCPEstablished int32 `json:"tcpEstablished,omitempty"`
	// tcpListening sockets.
	// +optional
	TCPListening int32 `json:"tcpListening,omitempty"`
	// tcpOther sockets: opening, closing or closed.
	// +optional
	TCPOther int32 `json:"tcpOther,omitempty"`
	// udp sockets.
	// +optional
	UDP int32 `json:"udp,omitempty"`
	// bytesAcknowledged by the peers of the TCP connections that are there.
	// +optional
	BytesAcknowledged int64 `json:"bytesAcknowledged,omitempty"`
	// bytesReceived on them.
	// +optional
	BytesReceived int64 `json:"bytesReceived,omitempty"`
}

// FlowCounts says how many flows packets were dropped of.
type FlowCounts struct {
	// listed flows: the first 1,024 and of the later ones those that are still known.
	// +required
	Listed int64 `json:"listed"`
	// evicted flows: they came later and gave way to others.
	// +optional
	Evicted int64 `json:"evicted,omitempty"`
	// uncountedPackets whose flow could not be counted.
	// +optional
	UncountedPackets int64 `json:"uncountedPackets,omitempty"`
}

// HookProgram is the kind of attach point.
// +kubebuilder:validation:Enum=CgroupSkb;Tcx;Clsact
type HookProgram string

// Hook programs.
const (
	HookCgroupSkb HookProgram = "CgroupSkb"
	HookTcx       HookProgram = "Tcx"
	HookClsact    HookProgram = "Clsact"
)

// HookDirection is the direction as seen by the device or cgroup that the hook sits on.
// +kubebuilder:validation:Enum=Ingress;Egress
type HookDirection string

// Hook directions.
const (
	HookIngress HookDirection = "Ingress"
	HookEgress  HookDirection = "Egress"
)

// Hook is one attached eBPF program.
type Hook struct {
	// id of the hook within the containment, such as cgroup-egress or tcx-ingress-veth12.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ID string `json:"id"`
	// program kind.
	// +required
	Program HookProgram `json:"program"`
	// direction at the attach point.
	// +required
	Direction HookDirection `json:"direction"`
	// device or cgroup path it is attached to.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	Device string `json:"device"`
	// netnsInode of the pod's network namespace.
	// +optional
	NetnsInode int64 `json:"netnsInode,omitempty"`
	// packets dropped.
	// +optional
	Packets int64 `json:"packets,omitempty"`
	// bytes dropped.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`
	// verified means that the kernel listed this link with our program on this target after attaching.
	// +required
	Verified bool `json:"verified"`
	// probedAt is when a packet that the reporter sent to the pod was seen counted here.
	// +optional
	ProbedAt *metav1.MicroTime `json:"probedAt,omitempty"`
	// attachedAt is when the attach call returned.
	// +optional
	AttachedAt *metav1.MicroTime `json:"attachedAt,omitempty"`
	// firstDrop is when the first packet was dropped.
	// +optional
	FirstDrop *metav1.MicroTime `json:"firstDrop,omitempty"`
	// lastDrop is when the last packet was dropped.
	// +optional
	LastDrop *metav1.MicroTime `json:"lastDrop,omitempty"`
}

// ContainerFreeze is what was done to one container.
type ContainerFreeze struct {
	// containerID in the runtime.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ContainerID string `json:"containerID"`
	// name in the pod.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// frozenAt is when the freeze was confirmed.
	// +optional
	FrozenAt *metav1.MicroTime `json:"frozenAt,omitempty"`
	// heldAt is when the snapshot was held.
	// +optional
	HeldAt *metav1.MicroTime `json:"heldAt,omitempty"`
	// probeKillExpectedAt is when a probe of this container, or the pod's activeDeadlineSeconds, will have it killed: the earlier
	// of both.
	// +optional
	ProbeKillExpectedAt *metav1.MicroTime `json:"probeKillExpectedAt,omitempty"`
	// probeKill says which of them has it killed, or by which probe it may be where probeKillExpectedAt is absent.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	ProbeKill string `json:"probeKill,omitempty"`
	// thawedAt is when the thaw was confirmed.
	// +optional
	ThawedAt *metav1.MicroTime `json:"thawedAt,omitempty"`
}

// Progress of a running capture, written at most every 5 s.
type Progress struct {
	// currentArtifact being read.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	CurrentArtifact string `json:"currentArtifact,omitempty"`
	// files read.
	// +optional
	Files int64 `json:"files,omitempty"`
	// bytesRead of content.
	// +optional
	BytesRead int64 `json:"bytesRead,omitempty"`
	// bytesStored after compression.
	// +optional
	BytesStored int64 `json:"bytesStored,omitempty"`
}

// MaxGaps is how many reasons of gaps a response can name, MaxGapMessage how long the message of one can be.
const (
	MaxGaps       = 64
	MaxGapMessage = 2048
)

// GapCount is how often evidence is missing for one reason.
type GapCount struct {
	// reason, a CamelCase word.
	// +required
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`
	// message for people, with the first path concerned.
	// +required
	// +kubebuilder:validation:MaxLength=2048
	Message string `json:"message"`
	// count of gaps.
	// +required
	// +kubebuilder:validation:Minimum=1
	Count int64 `json:"count"`
}
