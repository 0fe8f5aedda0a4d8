package order

import (
	"slices"
	"strings"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// gapLate is the reason of a container that started after the pod was contained.
const gapLate = "StartedAfterContainment"

// complete tells the reasons of gaps that lack nothing: what could be read was stored, if otherwise than one would expect.
func complete(reason string) bool {
	switch reason {
	case gapLate, // it was frozen as it started; what it replaced was captured
		evidence.GapSocketNotArchived,     // an archive has no type for it; what the kernel says of it is in the gap
		evidence.GapHardLinkStoredAsFile,  // the content is there twice
		evidence.GapAttemptAbandoned,      // an earlier start's segments, stored again by a later one
		evidence.GapMemoryNotCaptured,     // the configuration does not ask for it
		evidence.GapRegistersNotRead,      // nobody reads them but a debugger, which the process would notice
		evidence.GapUpperLayerNotSeparate: // the root filesystem has what the container changed
		return true
	}
	return false
}

// nameUnheld says of the containers that were not captured by the deadline why they could not be held: nothing is held of
// them, or there was no time to look.
func (s *snapshotStep) nameUnheld() {
	if !s.seen.late || s.seen.unheld == nil {
		return
	}
	status := s.record.status()
	gaps := slices.Clone(status.Gaps)
	for _, reason := range []string{evidence.GapContainerNotCaptured, evidence.GapArtifactNotStored} {
		at := slices.IndexFunc(gaps, func(gap v1alpha1.GapCount) bool { return gap.Reason == reason })
		if at >= 0 {
			// First: what the capture says is long where much is missing.
			gaps[at].Message = cut(s.seen.unheld.Error()+"; "+gaps[at].Message, v1alpha1.MaxGapMessage)
			status.Gaps = gaps
			return
		}
	}
}

// nameMissing counts what is missing where a late order is closed without a capture that could tell.
func (s *snapshotStep) nameMissing() {
	s.record.lack(v1alpha1.GapCount{
		Reason: evidence.GapCaptureNotEnded, Count: 1, Message: "what of the pod is neither stored nor counted is not known",
	})
	names := s.record.status().WithoutRootFilesystem(s.wanted)
	if len(names) == 0 {
		return
	}
	s.record.lack(v1alpha1.GapCount{
		Reason: evidence.GapArtifactNotStored, Count: int64(len(names)),
		Message: cut("no whole root filesystem is stored of: "+strings.Join(names, ", "), v1alpha1.MaxGapMessage),
	})
}

func (s *snapshotStep) nameLate(late []v1alpha1.ContainerFreeze) {
	if len(late) == 0 {
		return
	}
	names := make([]string, len(late))
	for i, container := range late {
		names[i] = container.Name + " " + container.ContainerID
	}
	status := s.record.status()
	for i := range status.Gaps {
		if status.Gaps[i].Reason == gapLate {
			return
		}
	}
	status.Gaps = append(status.Gaps, v1alpha1.GapCount{
		Reason: gapLate, Count: int64(len(late)),
		Message: "started after the pod was contained, frozen and not captured: " + strings.Join(names[:min(len(names), 8)], ", "),
	})
}
