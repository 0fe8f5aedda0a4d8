package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// object is what is known of a name, and where it is.
type object struct {
	folder int
	name   string
	path   string
	stat   unix.Statx_t
	// beside are the folders of other layers that correspond to folder.
	beside layers
	// xwhiteouts says that files with an attribute can be whiteouts in folder.
	xwhiteouts bool

	layer   evidence.Layer
	overlay *evidence.Overlay
	flags   []evidence.Flag
	gaps    []string
	// sha256 and stored are digests in hex: of the content, and of a sparse file's data as it is stored.
	sha256, stored string
}

func (o *object) kind() uint16 { return o.stat.Mode & unix.S_IFMT }

func (o *object) size() int64 {
	return int64(o.stat.Size) // #nosec G115 -- the kernel bounds sizes to 63 bits
}

func (o *object) flag(flag evidence.Flag) { o.flags = append(o.flags, flag) }

// errReplaced means that a name stood for something else when it was opened than when it was looked at.
var errReplaced = errors.New("replaced between looking at it and opening it")

// lack counts a gap and writes its line, with what is known of the object.
func (w *walker) lack(path, reason string, cause error, known *evidence.Entry) error {
	return w.gaps.Add(evidence.GapLine{Path: path, Reason: reason, Message: cause.Error(), Entry: known}, 1)
}

// gap names what is missing of an object that has a line in the index still to come.
func (w *walker) gap(o *object, reason string, cause error) error {
	o.gaps = append(o.gaps, reason)
	return w.lack(o.path, reason, cause, nil)
}

// missing names an object that is not in the archive.
func (w *walker) missing(o *object, reason string, cause error) error {
	o.gaps = append(o.gaps, reason)
	entry := w.entryOf(o, nil)
	var known *evidence.Entry
	if entry.Type != evidence.EntryUnknown {
		known = entry
	}
	if err := w.lack(o.path, reason, cause, known); err != nil {
		return err
	}
	return w.compressor.line(line{entry: entry})
}

// folderEntry writes the entry of a folder, without its content.
func (w *walker) folderEntry(o *object, source attributeSource) error {
	h, err := w.header(o, flagDirectory, source)
	if err != nil {
		return err
	}
	return w.commit(o, h)
}

// symlink writes a link with its target; what it points to is not looked at.
func (w *walker) symlink(o *object) error {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(o.folder, o.name, target)
	if err != nil {
		return w.missing(o, GapUnreadable, fmt.Errorf("read link: %w", err))
	}
	h, err := w.header(o, flagSymlink, attributesAt(o.folder, o.name))
	if err != nil {
		return err
	}
	h.link = string(target[:n])
	if err := w.remember(o); err != nil {
		return err
	}
	return w.commit(o, h)
}

// special writes a device or a fifo, which is never opened.
func (w *walker) special(o *object, flag byte) error {
	h, err := w.header(o, flag, attributesAt(o.folder, o.name))
	if err != nil {
		return err
	}
	if err := w.remember(o); err != nil {
		return err
	}
	return w.commit(o, h)
}

// hardLink writes a further name of an object that is in the archive already, and says whether it did.
func (w *walker) hardLink(o *object) (bool, error) {
	if o.stat.Nlink < 2 {
		return false, nil
	}
	id := identity(o)
	first, ok := w.links[id]
	if !ok {
		return false, nil
	}
	if first.left--; first.left == 0 {
		delete(w.links, id)
		w.linkRoom += len(first.path)
	}
	if err := w.explainLink(o); err != nil {
		return true, err
	}
	h := plainHeader(o, flagHardLink)
	h.link = first.path
	if first.hashed {
		o.sha256 = hex.EncodeToString(first.sum[:])
	}
	return true, w.commit(o, h)
}

// explainLink explains the markers of a further name: overlayfs links its whiteouts to one another.
func (w *walker) explainLink(o *object) error {
	if !w.options.UpperLayer {
		return nil
	}
	attributes, err := attributesAt(o.folder, o.name).read(w.attributes, maxRecords)
	o.overlay = w.marks.explain(o, attributes)
	if err != nil {
		return w.gap(o, GapAttributes, err)
	}
	return nil
}

// remember keeps the name of an object that has more names, and is about to be archived.
func (w *walker) remember(o *object) error {
	if o.stat.Nlink < 2 {
		return nil
	}
	if len(w.links) >= maxLinks || len(o.path) > w.linkRoom {
		o.flag(evidence.FlagHardLinkStoredAsFile)
		cause := fmt.Errorf("more than %d objects or %d bytes of names wait for their other names", maxLinks, maxLinkNames)
		return w.gap(o, evidence.GapHardLinkStoredAsFile, cause)
	}
	w.linkRoom -= len(o.path)
	first := &firstName{path: o.path, left: o.stat.Nlink - 1}
	if n, err := hex.Decode(first.sum[:], []byte(o.sha256)); err == nil && n == sha256.Size {
		first.hashed = true
	}
	w.links[identity(o)] = first
	return nil
}

func identity(o *object) inode {
	return inode{major: o.stat.Dev_major, minor: o.stat.Dev_minor, number: o.stat.Ino}
}

// header describes an object with its attributes; attributes that cannot be read are a gap.
func (w *walker) header(o *object, flag byte, source attributeSource) (*header, error) {
	h := plainHeader(o, flag)
	attributes, err := source.read(w.attributes, maxRecords-len(o.path))
	h.xattrs = attributes
	if w.options.UpperLayer {
		o.overlay = w.marks.explain(o, attributes)
	}
	if err != nil {
		return h, w.gap(o, GapAttributes, err)
	}
	return h, nil
}

func plainHeader(o *object, flag byte) *header {
	h := &header{
		name:     o.path,
		flag:     flag,
		mode:     uint32(o.stat.Mode &^ unix.S_IFMT),
		uid:      o.stat.Uid,
		gid:      o.stat.Gid,
		modified: o.stat.Mtime.Sec,
		times:    timesOf(&o.stat),
	}
	if flag == flagCharacter || flag == flagBlock {
		h.major, h.minor = o.stat.Rdev_major, o.stat.Rdev_minor
	}
	return h
}

// start writes the header of an entry, where a frame may begin.
func (w *walker) start(o *object, h *header) error {
	encoded := w.tar.header(h)
	place, offset, err := w.compressor.begin(int64(len(encoded)), int64(len(encoded))+h.size+padding(h.size))
	if err == nil {
		w.at, w.offset = place, offset
		_, err = w.compressor.Write(encoded)
	}
	if err != nil {
		return fmt.Errorf("write header of %q: %w", o.path, err)
	}
	return nil
}

// commit writes an entry without data.
func (w *walker) commit(o *object, h *header) error {
	if err := w.start(o, h); err != nil {
		return err
	}
	return w.count(o, h)
}

// count ends an entry: all of it is written.
func (w *walker) count(o *object, h *header) error {
	w.entries++
	w.progress()
	return w.compressor.line(line{entry: w.entryOf(o, h), start: w.at, offset: w.offset})
}

func (w *walker) progress() {
	if w.options.Progress != nil {
		w.options.Progress(Progress{
			Entries: w.entries, BytesRead: w.bytesRead, BytesWritten: w.compressor.written.Load(),
		})
	}
}

// end writes the end of the archive.
func (w *walker) end() error {
	if _, _, err := w.compressor.begin(int64(len(zeros)), int64(len(zeros))); err != nil {
		return err
	}
	_, err := w.compressor.Write(zeros[:])
	return err
}

// entryOf is the index's entry of an object; without a header only what the kernel said.
func (w *walker) entryOf(o *object, h *header) *evidence.Entry {
	entry := &evidence.Entry{
		Path: o.path, PathBytes: evidence.RawBytes(o.path), Type: evidence.TypeOfMode(o.stat.Mode),
		Mode: uint32(o.stat.Mode &^ unix.S_IFMT), UID: o.stat.Uid, GID: o.stat.Gid,
		Inode: o.stat.Ino, Links: o.stat.Nlink,
		SHA256: o.sha256, StoredSHA256: o.stored,
		Layer: o.layer, Overlay: o.overlay, Gaps: o.gaps,
	}
	if entry.Type == evidence.EntryUnknown {
		return entry
	}
	entry.Flags = append(o.flags, flagsOf(o)...)
	var at times
	if h != nil {
		at = h.times
	} else {
		at = timesOf(&o.stat)
	}
	entry.AccessTime, entry.ModTime, entry.ChangeTime, entry.BirthTime = at.accessed, at.modified, at.changed, at.born
	switch entry.Type {
	case evidence.EntryFile:
		entry.Size = o.size()
	case evidence.EntryCharacter, evidence.EntryBlock:
		entry.Major, entry.Minor = o.stat.Rdev_major, o.stat.Rdev_minor
	default: // the others have neither
	}
	if h == nil {
		return entry
	}
	if h.flag == flagHardLink {
		if entry.Type != evidence.EntryFile {
			entry.LinkedType = entry.Type
		}
		entry.Type = evidence.EntryHardLink
	}
	entry.Link, entry.LinkBytes = h.link, evidence.RawBytes(h.link)
	for _, attribute := range h.xattrs {
		if entry.XAttrs == nil {
			entry.XAttrs = map[string][]byte{}
		}
		entry.XAttrs[attribute.key()] = attribute.value
	}
	return entry
}
