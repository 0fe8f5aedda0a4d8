package volatile

import (
	"errors"
	"fmt"
	"io/fs"

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
	// GapDetached: a mount on which something is open is in no list that was read; what else lies on it was not read.
	GapDetached = "DetachedMount"
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

var (
	errBlocked = errors.New("the kernel did not answer in time")
	// errNotBegun is the errBlocked of what the kernel was not asked for.
	errNotBegun = fmt.Errorf("not begun: for too many others %w", errBlocked)
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
	var limit errLimit
	switch {
	case errors.As(err, &limit):
		return GapLimit
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

// gapLog knows besides whether a limit was reached.
type gapLog struct {
	*evidence.GapLog
	truncated bool
}

func newGapLog(options Options) *gapLog {
	return &gapLog{GapLog: evidence.NewGapLog(options.Artifact, options.Gaps)}
}

func (g *gapLog) add(path, reason string, cause error) error {
	return g.addMany(path, reason, cause, 1)
}

func (g *gapLog) addMany(path, reason string, cause error, times int64) error {
	g.truncated = g.truncated || truncates(reason)
	return g.Add(evidence.GapLine{Path: path, Reason: reason, Message: cause.Error()}, times)
}
