package evidence

import "unicode/utf8"

// MediaTypeIndex is that of an object with one Entry a line, zstd-compressed.
const MediaTypeIndex = "application/vnd.ugallu.forensics.index.v1.ndjson+zstd"

// EntryType is the kind of a filesystem object in an archive.
type EntryType string

// Entry types. EntryUnknown is that of a name of which the kernel said nothing.
const (
	EntryFile      EntryType = "file"
	EntryDirectory EntryType = "directory"
	EntrySymlink   EntryType = "symlink"
	EntryHardLink  EntryType = "hardlink"
	EntryCharacter EntryType = "character"
	EntryBlock     EntryType = "block"
	EntryFIFO      EntryType = "fifo"
	EntrySocket    EntryType = "socket"
	EntryUnknown   EntryType = "unknown"
)

// The bits of st_mode that tell the type, as Linux has them on every architecture.
const (
	modeType      = 0o170000
	modeSocket    = 0o140000
	modeSymlink   = 0o120000
	modeFile      = 0o100000
	modeBlock     = 0o060000
	modeDirectory = 0o040000
	modeCharacter = 0o020000
	modeFIFO      = 0o010000
)

// TypeOfMode is the type of an object with this st_mode.
func TypeOfMode(mode uint16) EntryType {
	switch mode & modeType {
	case modeDirectory:
		return EntryDirectory
	case modeFile:
		return EntryFile
	case modeSymlink:
		return EntrySymlink
	case modeCharacter:
		return EntryCharacter
	case modeBlock:
		return EntryBlock
	case modeFIFO:
		return EntryFIFO
	case modeSocket:
		return EntrySocket
	}
	return EntryUnknown
}

// Layer is where an entry of a container's root filesystem comes from.
type Layer string

// Layers: the container's own changes, and the image below them.
const (
	LayerUpper Layer = "upper"
	LayerLower Layer = "lower"
)

// Flag is something about an entry that an examiner should look at. It accuses nobody.
type Flag string

// Flags. What they say of times holds for regular files, and not for those of the image: unpacking it makes every one of
// them look changed and born later than it was modified. "Later" is later by more than a minute.
const (
	// FlagChangedWhileRead: the file was written to while it was read; the archive holds what was seen.
	FlagChangedWhileRead Flag = "ChangedWhileRead"
	// FlagChangedAfterModified: the inode changed later than the content claims to have been modified. Owner, mode, names
	// or attributes were changed, or the modification time was set back.
	FlagChangedAfterModified Flag = "ChangedAfterModified"
	// FlagBornAfterModified: the file was created later than it claims to have been modified, and is no copy that overlayfs
	// made of a file of the image, as far as that is known. It was unpacked or copied with its times, or they were set back.
	FlagBornAfterModified Flag = "BornAfterModified"
	// FlagModifiedAfterChanged: the modification time lies after the change time, which writing cannot do.
	FlagModifiedAfterChanged Flag = "ModifiedAfterChanged"
	// FlagSameMetadataOtherContent: the layers below have a file of this path with the same size, modification time, mode
	// and owners (in a user namespace, the ids that the node has for them), and other content.
	FlagSameMetadataOtherContent Flag = "SameMetadataOtherContent"
	// FlagSameAsLower: the layers below have a file of this path with the same metadata and content; it was copied up all
	// the same, for its attributes were changed or it was opened for writing.
	FlagSameAsLower Flag = "SameAsLower"
	// FlagSparse: the archive holds the data and a map of the holes.
	FlagSparse Flag = "Sparse"
	// FlagHolesNotHashed: the holes are so large that only the data as it lies in the archive was hashed.
	FlagHolesNotHashed Flag = "HolesNotHashed"
	// FlagHardLinkStoredAsFile: the object has other names, which the archive does not tie to this one.
	FlagHardLinkStoredAsFile Flag = "HardLinkStoredAsFile"
	// FlagImmutable and FlagAppendOnly: attributes of the file that chattr sets.
	FlagImmutable  Flag = "Immutable"
	FlagAppendOnly Flag = "AppendOnly"
	// FlagWhiteoutName: the name begins as a whiteout of an OCI layer does, and is none.
	FlagWhiteoutName Flag = "WhiteoutName"
)

// Entry is one line of an archive's index: what was seen under one name.
//
// Numbers that can exceed 2^53 are strings, because numbers of canonical JSON are doubles. Times are seconds since 1970,
// a point, and nine digits.
type Entry struct {
	// Path is relative to the captured root, without a leading or trailing slash; the root itself is ".".
	Path string `json:"path"`
	// PathBytes is the raw path, set only when it is not UTF-8. Path then has U+FFFD for each byte that is none.
	PathBytes []byte    `json:"pathBytes,omitempty"`
	Type      EntryType `json:"type"`
	// LinkedType is the type of an object that a hard link names, unless it is a file.
	LinkedType EntryType `json:"linkedType,omitempty"`
	// Mode holds permissions, setuid, setgid and sticky: the lower twelve bits.
	Mode  uint32 `json:"mode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Inode uint64 `json:"inode,string"`
	// Links is how many names the kernel counts.
	Links uint32 `json:"links"`
	// Size of the content in bytes, holes included; that of the object on a hard link.
	Size int64 `json:"size,string"`
	// SHA256 over the content of a file, holes read as zeros. A hard link has that of its first name.
	SHA256 string `json:"sha256,omitempty"`
	// StoredSHA256 of a sparse file is over its data as it lies in the archive, map and padding included.
	StoredSHA256 string `json:"storedSha256,omitempty"`
	AccessTime   string `json:"accessTime,omitempty"`
	ModTime      string `json:"modTime,omitempty"`
	ChangeTime   string `json:"changeTime,omitempty"`
	BirthTime    string `json:"birthTime,omitempty"`
	Layer        Layer  `json:"layer,omitempty"`
	// Link is the target of a symbolic link, or the path of the first name of a hard link.
	Link string `json:"link,omitempty"`
	// LinkBytes is the raw target, set only when it is not UTF-8.
	LinkBytes []byte `json:"linkBytes,omitempty"`
	Major     uint32 `json:"major,omitempty"`
	Minor     uint32 `json:"minor,omitempty"`
	// XAttrs by name; '%', '=' and bytes that are not UTF-8 are percent-encoded in names, as in the archive.
	XAttrs map[string][]byte `json:"xattrs,omitempty"`
	// Overlay is what the entry means to overlayfs, where that is known.
	Overlay *Overlay `json:"overlay,omitempty"`
	// Position is absent when the archive does not hold the entry; Gaps then says why.
	Position *Position `json:"position,omitempty"`
	Flags    []Flag    `json:"flags,omitempty"`
	// Gaps are the reasons why the entry, or something of it, is not in the archive as it was on disk.
	Gaps []string `json:"gaps,omitempty"`
}

// Overlay is what an entry of an upper layer means to overlayfs.
type Overlay struct {
	// Whiteout: the name was deleted.
	Whiteout bool `json:"whiteout,omitempty"`
	// Opaque: nothing of the folder's content in the layers below is seen.
	Opaque bool `json:"opaque,omitempty"`
	// Redirect is where the layers below have this folder or file: a name in the same folder, or a path from the root of
	// the filesystem when it begins with a slash.
	Redirect string `json:"redirect,omitempty"`
	// RedirectBytes is the raw redirect, set only when it is not UTF-8.
	RedirectBytes []byte `json:"redirectBytes,omitempty"`
	// Metacopy: the entry has the metadata alone, the content is that of the layers below.
	Metacopy bool `json:"metacopy,omitempty"`
	// CopiedUp: overlayfs made it from an object of the layers below.
	CopiedUp bool `json:"copiedUp,omitempty"`
}

// Position is where an entry lies in a compressed archive. Decompressing from Frame on and skipping Offset bytes gives
// the entry's header. A frame begins at the header of an entry, or at a block boundary within the data of an entry that
// is larger than a frame.
type Position struct {
	// Frame is the offset in the compressed stream of the frame in which the entry begins, FrameSize its compressed size.
	Frame     int64 `json:"frame"`
	FrameSize int64 `json:"frameSize"`
	// Offset of the entry's first header in the decompressed frame.
	Offset int64 `json:"offset"`
	// Span is the compressed size of all frames that the entry lies in, from Frame on; absent when it is one.
	Span int64 `json:"span,omitempty"`
}

// RawPath is the path in the bytes of the filesystem.
func (e *Entry) RawPath() string { return raw(e.Path, e.PathBytes) }

// RawLink is the link in the bytes of the filesystem.
func (e *Entry) RawLink() string { return raw(e.Link, e.LinkBytes) }

func raw(text string, bytes []byte) string {
	if bytes != nil {
		return string(bytes)
	}
	return text
}

// RawBytes is what the fields with raw bytes hold for a name: nothing when it is UTF-8.
func RawBytes(name string) []byte {
	if utf8.ValidString(name) {
		return nil
	}
	return []byte(name)
}
