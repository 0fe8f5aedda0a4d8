package evidence

// Reasons of gaps that more than one package has to do with.
const (
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
