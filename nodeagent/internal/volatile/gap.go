package volatile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// Reasons why something of the processes is not, or not exactly, in the stream.
const (
	// GapUnreadable: the kernel did not let it be read.
	GapUnreadable = "Unreadable"
	// GapBlocked: the kernel did not answer in time.
	GapBlocked = "Blocked"
	// GapNotAnonymous: the arguments or the environment lie in memory that reading could wait for; they were not read.
	GapNotAnonymous = "TextNotInAnonymousMemory"
	// GapFilesystem: the file lies on a filesystem that a server answers for, which could wait for ever; it was not read.
	GapFilesystem = "FilesystemNotRead"
	// GapEnded: the process ended before its memory or its files were read.
	GapEnded = "ProcessEnded"
	// GapLimit: there is more than the limit.
	GapLimit = "LimitReached"
	// GapMaxDuration: the time was over.
	GapMaxDuration = "MaxDurationReached"
	// GapUnlisted: a socket is in no table that could be read.
	GapUnlisted = "SocketNotListed"
	// GapForgeable: names of unix sockets come from a text table, in which a name can look like a line.
	GapForgeable = "TableForgeable"
	// GapChanged: it changed while it was read; what was seen is stored.
	GapChanged = "ChangedWhileRead"
	// GapReadError: reading stopped in the middle; the rest is zeros.
	GapReadError = "ReadError"
	// GapSwapped: pages are in swap and not in memory.
	GapSwapped = "PageSwappedOut"
	// GapSecret: memory that the kernel shows to nobody else (memfd_secret).
	GapSecret = "SecretMemory"
)

// Gap is one line of the gaps stream.
type Gap struct {
	Artifact string `json:"artifact,omitempty"`
	Path     string `json:"path"`
	// PathBytes is the raw path, set only when it is not UTF-8.
	PathBytes []byte `json:"pathBytes,omitempty"`
	Reason    string `json:"reason"`
	Message   string `json:"message"`
}

var (
	errBlocked  = errors.New("the kernel did not answer in time")
	errLate     = errors.New("the time for this is over")
	errEnded    = errors.New("the process has ended")
	errReplaced = errors.New("the process id belongs to another process now")
)

// gone says that a process or one of its files is not there any more.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

func limited(have string, limit int64) error {
	return fmt.Errorf("%s, the limit is %d", have, limit)
}

// reasonOf an error that kept something from being read.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, errBlocked):
		return GapBlocked
	case errors.Is(err, errLate):
		return GapMaxDuration
	case errors.Is(err, errEnded), errors.Is(err, errReplaced), gone(err):
		return GapEnded
	default:
		return GapUnreadable
	}
}

// truncates says whether a gap is a limit's doing.
func truncates(reason string) bool { return reason == GapLimit || reason == GapMaxDuration }

// finding is a gap that was found where no gap can be written.
type finding struct {
	part, reason string
	cause        error
}

// findings of one piece of work.
type findings []finding

func (f *findings) add(part, reason string, cause error) {
	*f = append(*f, finding{part, reason, cause})
}

// gapLog counts gaps by reason and writes each as one line of JSON.
type gapLog struct {
	artifact  string
	lines     io.Writer
	counts    map[string]*evidence.Gap
	truncated bool
}

func newGapLog(options Options) *gapLog {
	return &gapLog{artifact: options.Artifact, lines: options.Gaps, counts: map[string]*evidence.Gap{}}
}

func (g *gapLog) add(path, reason string, cause error) error {
	return g.addMany(path, reason, cause, 1)
}

func (g *gapLog) addMany(path, reason string, cause error, times int64) error {
	g.truncated = g.truncated || truncates(reason)
	count, ok := g.counts[reason]
	if !ok {
		count = &evidence.Gap{Reason: reason, Message: fmt.Sprintf("first at %q: %v", path, cause)}
		g.counts[reason] = count
	}
	count.Count += times
	if g.lines == nil {
		return nil
	}
	gap := Gap{Artifact: g.artifact, Path: path, Reason: reason, Message: cause.Error()}
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
