package archive

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"unicode/utf8"

	"ugallu.io/forensics/api/evidence"
)

// Reasons why something of the root filesystem is not, or not exactly, in the archive.
const (
	// GapUnreadable: the object could not be opened or described.
	GapUnreadable = "Unreadable"
	// GapReadError: reading stopped in the middle; the rest of the file is zeros in the archive.
	GapReadError = "ReadError"
	// GapChangedWhileRead: the file was written to while it was read; the archive holds what was seen.
	GapChangedWhileRead = "ChangedWhileRead"
	// GapAttributes: extended attributes are missing.
	GapAttributes = "AttributesNotArchived"
	// GapMountPoint: something is mounted here, which is not part of the filesystem.
	GapMountPoint = "MountPointNotEntered"
	// GapTooDeep: the folder lies deeper than any path can name in one call, or its path is longer than an archive can
	// hold.
	GapTooDeep = "FolderTooDeep"
	// GapLayer: another layer could not be looked into, so that the index does not say what comes from it or differs from it.
	GapLayer = "LayerUnknown"
	// GapMaxBytes: the content would have exceeded the limit on bytes; smaller files still went in.
	GapMaxBytes = "MaxBytesReached"
	// GapMaxEntries: the archive ends here because of the limit on entries.
	GapMaxEntries = "MaxEntriesReached"
	// GapMaxDuration: the archive ends here because of the limit on time.
	GapMaxDuration = "MaxDurationReached"
)

// Gap is one line of the gaps stream.
type Gap struct {
	Artifact string `json:"artifact,omitempty"`
	Path     string `json:"path"`
	// PathBytes is the raw path, set only when it is not UTF-8.
	PathBytes []byte `json:"pathBytes,omitempty"`
	Reason    string `json:"reason"`
	Message   string `json:"message"`
	// Entry is what is known of the object all the same.
	Entry *evidence.Entry `json:"entry,omitempty"`
}

// gapLog counts gaps by reason and writes each as one line of JSON.
type gapLog struct {
	artifact string
	lines    io.Writer
	counts   map[string]*evidence.Gap
}

func (g *gapLog) add(path, reason string, cause error, entry *evidence.Entry) error {
	count, ok := g.counts[reason]
	if !ok {
		count = &evidence.Gap{Reason: reason, Message: fmt.Sprintf("first at %q: %v", path, cause)}
		g.counts[reason] = count
	}
	count.Count++
	if g.lines == nil {
		return nil
	}
	gap := Gap{Artifact: g.artifact, Path: path, Reason: reason, Message: cause.Error(), Entry: entry}
	if !utf8.ValidString(path) {
		gap.PathBytes = []byte(path)
	}
	line, err := json.Marshal(gap)
	if err != nil {
		return fmt.Errorf("describe gap at %q: %w", path, err)
	}
	if _, err := g.lines.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("record gap at %q: %w", path, err)
	}
	return nil
}

// sorted returns the counts in the order of their reasons.
func (g *gapLog) sorted() []evidence.Gap {
	gaps := make([]evidence.Gap, 0, len(g.counts))
	for _, gap := range g.counts {
		gaps = append(gaps, *gap)
	}
	sort.Slice(gaps, func(i, j int) bool { return gaps[i].Reason < gaps[j].Reason })
	return gaps
}
