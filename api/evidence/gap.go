package evidence

// Reasons of gaps that more than one package has to do with.
const (
	// GapAttemptAbandoned: an earlier try, or a stranger, took a key that no artifact has.
	GapAttemptAbandoned = "AttemptAbandoned"
	// GapContainerNotCaptured: a container of which nothing is held.
	GapContainerNotCaptured = "ContainerNotCaptured"
	// GapUpperLayerNotSeparate: the snapshotter does not keep a container's changes apart; the root filesystem has them.
	GapUpperLayerNotSeparate = "UpperLayerNotSeparate"
	// GapMemoryNotCaptured: the memory of processes was not asked for.
	GapMemoryNotCaptured = "MemoryNotCaptured"
	// GapRegistersNotRead: a thread's registers are unknown or known in part, since it was not stopped for a debugger.
	GapRegistersNotRead = "RegistersNotRead"
	// GapSocketNotArchived: tar has no type for sockets; the gap holds what the kernel says of it.
	GapSocketNotArchived = "SocketNotArchived"
	// GapHardLinkStoredAsFile: too many hard links to remember; the content is stored once more under this name.
	GapHardLinkStoredAsFile = "HardLinkStoredAsFile"
	// GapArtifactNotStored: a part failed at every try, or was not captured when the order's time was up.
	GapArtifactNotStored = "ArtifactNotStored"
	// GapArtifactNotCompleted: segments of an artifact are stored and the archive, its index or its timeline is not complete,
	// because what it was made from was gone after a restart or time was up.
	GapArtifactNotCompleted = "ArtifactNotCompleted"
	// GapCaptureNotEnded: nobody came to name what of the pod is missing.
	GapCaptureNotEnded = "CaptureNotEnded"
	// GapFlowsNotRead: the kernel did not give the list of dropped flows.
	GapFlowsNotRead = "FlowsNotRead"
	// GapFlowsNotStored: dropped flows were listed at the release, and the list was not stored.
	GapFlowsNotStored = "FlowsNotStored"
	// GapDropCountsNotRead: what the drop had counted by the release is not known.
	GapDropCountsNotRead = "DropCountsNotRead"
)

// Gap counts evidence that is missing for one reason.
type Gap struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Count   int64  `json:"count"`
}
