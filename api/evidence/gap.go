package evidence

// Reasons of gaps that more than one package has to do with.
const (
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
