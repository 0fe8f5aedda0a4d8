package podfiles

import "ugallu.io/forensics/api/evidence"

// Reasons why something of the pod is not captured.
const (
	// GapUnreadable: it could not be looked at.
	GapUnreadable = "Unreadable"
	// GapVolume: a volume of a kind that is not captured.
	GapVolume = "VolumeNotCaptured"
	// GapVolumesUnknown: without the pod's spec, volumes that have no folder on the node cannot be named.
	GapVolumesUnknown = "VolumesNotKnown"
	// GapMemoryVolume: an emptyDir volume in memory of which this process sees only the empty folder below it.
	GapMemoryVolume = "MemoryVolumeNotVisible"
	// GapSharedMemory: /dev/shm is something else than memory of the pod's own.
	GapSharedMemory = "SharedMemoryNotCaptured"
	// GapHidden: a file system in memory is covered by another mount, and no path leads to it.
	GapHidden = "MemoryMountHidden"
	// GapNodeNamespace: a process of the pod is in the node's mount namespace, whose files are not the pod's.
	GapNodeNamespace = "ProcessInNodeNamespace"
	// GapUntrusted: the way there leads through a file system that somebody may serve, and who looks there may hang.
	GapUntrusted = "UntrustedFilesystem"
	// GapMountPoint: something is mounted inside of a volume, which is not part of it.
	GapMountPoint = "MountPointNotEntered"
	// GapTooMany: there is more of it than is listed.
	GapTooMany = "TooManyToList"
	// GapPathTooLong: a path has more bytes or folders than are read. Path is its beginning.
	GapPathTooLong = "PathTooLong"
	// GapTimeUsedUp: the time to look for memory in mount namespaces was used up before.
	GapTimeUsedUp = "LookTimeUsedUp"
	// GapChanged: it was another one when it was opened than when it was found.
	GapChanged = "ChangedWhileRead"
	// GapTruncated: only the beginning of a file is recorded.
	GapTruncated = "FileTruncated"
	// GapDescription: a container's description lacks something.
	GapDescription = "DescriptionIncomplete"
)

// gaps collects what is not captured.
type gaps []evidence.PodGap

func (g *gaps) add(path, reason string, cause error) {
	*g = append(*g, evidence.PodGap{Path: evidence.Text(path), Reason: reason, Message: cause.Error()})
}

// Count sums gaps up by reason, in the order of the reasons.
func Count(list []evidence.PodGap) []evidence.Gap {
	sums := evidence.NewGapLog("", nil)
	for _, gap := range list {
		sums.Count(evidence.GapLine{Path: string(gap.Path), Reason: gap.Reason, Message: gap.Message}, 1)
	}
	return sums.Gaps()
}
