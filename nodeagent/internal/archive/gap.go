package archive

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Reasons why something of the root filesystem is not, or not exactly, in the archive.
const (
	// GapUnreadable: the object could not be opened or described.
	GapUnreadable = "Unreadable"
	// GapReadError: reading stopped in the middle; the rest of the file is zeros in the archive.
	GapReadError = "ReadError"
	// GapChangedWhileRead: the file was written to while it was read, or names came to the folder or went; the archive holds
	// what was seen.
	GapChangedWhileRead = "ChangedWhileRead"
	// GapMovedWhileRead: the object was met before, under another name that came into a folder while it was read, and is not
	// archived again.
	GapMovedWhileRead = "MovedWhileRead"
	// GapTooManyNewNames: more names came into folders while they were read than are looked at; of what came into one of
	// them nothing follows from here on.
	GapTooManyNewNames = "TooManyNewNames"
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

// whyClosed is the reason for the gap when open returned an error.
func whyClosed(err error) string {
	if errors.Is(err, unix.EXDEV) {
		return GapMountPoint
	}
	return GapUnreadable
}
