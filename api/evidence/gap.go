package evidence

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

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
	// GapDropInterrupted: hooks, or their counts, ended or began anew after the containment was recorded.
	GapDropInterrupted = "DropInterrupted"
	// GapClusterStateMissing: the pod's objects of the API server were not stored.
	GapClusterStateMissing = "ClusterStateMissing"
)

// Gap counts evidence that is missing for one reason.
type Gap struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Count   int64  `json:"count"`
}

// GapLine is one line of a list of gaps.
type GapLine struct {
	Artifact string `json:"artifact,omitempty"`
	Path     string `json:"path"`
	// PathBytes is the raw path, set only when it is not UTF-8.
	PathBytes []byte `json:"pathBytes,omitempty"`
	Reason    string `json:"reason"`
	Message   string `json:"message"`
	// Entry is what is known of the object all the same.
	Entry *Entry `json:"entry,omitempty"`
}

// GapLog counts gaps by reason and writes each as one line of JSON.
type GapLog struct {
	artifact string
	lines    io.Writer
	counts   map[string]*Gap
}

// NewGapLog makes the log of an artifact. It writes each line in one call, and without a writer counts only.
func NewGapLog(artifact string, lines io.Writer) *GapLog {
	return &GapLog{artifact: artifact, lines: lines, counts: map[string]*Gap{}}
}

// Add counts a gap so many times and writes its line, with the artifact's name. It returns an error of the writer's.
func (g *GapLog) Add(line GapLine, times int64) error {
	g.Count(line, times)
	if g.lines == nil {
		return nil
	}
	line.Artifact, line.PathBytes = g.artifact, RawBytes(line.Path)
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("describe gap at %q: %w", line.Path, err)
	}
	if _, err := g.lines.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("record gap at %q: %w", line.Path, err)
	}
	return nil
}

// Count counts a gap so many times and writes nothing. The first of each reason becomes the message.
func (g *GapLog) Count(line GapLine, times int64) {
	count, ok := g.counts[line.Reason]
	if !ok {
		count = &Gap{Reason: line.Reason, Message: fmt.Sprintf("first at %q: %s", line.Path, line.Message)}
		g.counts[line.Reason] = count
	}
	count.Count += times
}

// Gaps are the counts in the order of their reasons.
func (g *GapLog) Gaps() []Gap {
	gaps := make([]Gap, 0, len(g.counts))
	for _, gap := range g.counts {
		gaps = append(gaps, *gap)
	}
	slices.SortFunc(gaps, func(a, b Gap) int { return cmp.Compare(a.Reason, b.Reason) })
	return gaps
}
