package archive

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// folderEntry writes the entry of a folder, without its content.
func (w *walker) folderEntry(o *object, source attributeSource) error {
	h, err := w.header(o, flagDirectory, source)
	if err != nil {
		return err
	}
	h.name += "/"
	return w.commit(o, h, entryOf(o, h))
}

// symlink writes a link with its target; what it points to is not looked at.
func (w *walker) symlink(o *object) error {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(o.folder, o.name, target)
	if err != nil {
		return w.gaps.add(o.path, GapUnreadable, fmt.Errorf("read link: %w", err), entryOf(o, nil))
	}
	h, err := w.header(o, flagSymlink, attributesAt(o.folder, o.name))
	if err != nil {
		return err
	}
	h.link = string(target[:n])
	if err := w.commit(o, h, entryOf(o, h)); err != nil {
		return err
	}
	return w.remember(o)
}

// special writes a device or a fifo, which is never opened.
func (w *walker) special(o *object, flag byte) error {
	h, err := w.header(o, flag, attributesAt(o.folder, o.name))
	if err != nil {
		return err
	}
	if err := w.commit(o, h, entryOf(o, h)); err != nil {
		return err
	}
	return w.remember(o)
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
	h := plainHeader(o, flagHardLink)
	h.link = first.path
	return true, w.commit(o, h, entryOf(o, h))
}

// remember keeps the name of an archived object that has more names.
func (w *walker) remember(o *object) error {
	if o.stat.Nlink < 2 {
		return nil
	}
	if len(w.links) >= maxLinks || len(o.path) > w.linkRoom {
		cause := fmt.Errorf("more than %d objects or %d bytes of names wait for their other names", maxLinks, maxLinkNames)
		return w.gaps.add(o.path, GapHardLink, cause, nil)
	}
	w.linkRoom -= len(o.path)
	w.links[identity(o)] = &firstName{path: o.path, left: o.stat.Nlink - 1}
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
	if err != nil {
		return h, w.gaps.add(o.path, GapAttributes, err, nil)
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
		modified: o.stat.Mtime,
		accessed: o.stat.Atime,
		changed:  o.stat.Ctime,
	}
	if o.stat.Mask&unix.STATX_BTIME != 0 {
		h.born = &o.stat.Btime
	}
	if flag == flagCharacter || flag == flagBlock {
		h.major, h.minor = o.stat.Rdev_major, o.stat.Rdev_minor
	}
	return h
}

// commit writes the header of an entry without data, and its leaf.
func (w *walker) commit(o *object, h *header, entry *evidence.Entry) error {
	if err := w.tar.writeHeader(h); err != nil {
		return fmt.Errorf("write header of %q: %w", o.path, err)
	}
	return w.count(entry)
}

// count adds a finished entry to the tree.
func (w *walker) count(entry *evidence.Entry) error {
	if err := w.tree.Add(entry); err != nil {
		return err
	}
	w.entries++
	w.progress()
	return nil
}

func (w *walker) progress() {
	if w.options.Progress != nil {
		w.options.Progress(Progress{
			Entries: w.entries, BytesRead: w.bytesRead, BytesWritten: w.compressor.written.Load(),
		})
	}
}

// entryOf is the leaf of an object; without a header only of what the kernel said.
func entryOf(o *object, h *header) *evidence.Entry {
	entry := &evidence.Entry{
		Path:    o.path,
		Type:    typeOf(o),
		Mode:    uint32(o.stat.Mode &^ unix.S_IFMT),
		UID:     o.stat.Uid,
		GID:     o.stat.Gid,
		ModTime: stamp(o.stat.Mtime),
	}
	if !utf8.ValidString(o.path) {
		entry.PathBytes = []byte(o.path)
	}
	if h == nil {
		return entry
	}
	entry.Major, entry.Minor = h.major, h.minor
	if h.flag == flagHardLink {
		entry.Type = evidence.EntryHardLink
	}
	if entry.Link = h.link; !utf8.ValidString(h.link) {
		entry.LinkBytes = []byte(h.link)
	}
	for _, attribute := range h.xattrs {
		if entry.XAttrs == nil {
			entry.XAttrs = map[string][]byte{}
		}
		entry.XAttrs[attribute.key()] = attribute.value
	}
	return entry
}

func typeOf(o *object) evidence.EntryType {
	switch o.kind() {
	case unix.S_IFDIR:
		return evidence.EntryDirectory
	case unix.S_IFLNK:
		return evidence.EntrySymlink
	case unix.S_IFCHR:
		return evidence.EntryCharacter
	case unix.S_IFBLK:
		return evidence.EntryBlock
	case unix.S_IFIFO:
		return evidence.EntryFIFO
	case unix.S_IFSOCK:
		return evidence.EntrySocket
	}
	return evidence.EntryFile
}

// errReplaced means that a name stood for something else when it was opened than when it was looked at.
var errReplaced = errors.New("replaced between looking at it and opening it")
