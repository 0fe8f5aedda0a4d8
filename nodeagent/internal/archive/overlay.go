package archive

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// marks are the attributes by which an overlay marks the entries of its upper layer.
type marks struct{ opaque, redirect, metacopy, origin, whiteout string }

func marksOf(options Options) marks {
	prefix := "trusted.overlay."
	if options.UserXAttrs {
		prefix = "user.overlay."
	}
	return marks{
		opaque: prefix + "opaque", redirect: prefix + "redirect", metacopy: prefix + "metacopy",
		origin: prefix + "origin", whiteout: prefix + "whiteout",
	}
}

const (
	// opaqueFully hides the folder's content in the layers below.
	opaqueFully = "y"
	// opaqueWhiteouts says that the folder may have files that are whiteouts by an attribute.
	opaqueWhiteouts = "x"
)

// explain says what an object of an upper layer means to overlayfs, nil when it is what it looks like.
func (m marks) explain(o *object, attributes []xattr) *evidence.Overlay {
	explained := evidence.Overlay{Whiteout: isWhiteout(&o.stat)}
	regular := o.kind() == unix.S_IFREG
	for _, attribute := range attributes {
		value := string(attribute.value)
		switch attribute.name {
		case m.opaque:
			explained.Opaque = o.kind() == unix.S_IFDIR && value == opaqueFully
		case m.redirect:
			explained.Redirect, explained.RedirectBytes = value, evidence.RawBytes(value)
		case m.metacopy:
			explained.Metacopy = regular
		case m.origin:
			explained.CopiedUp = true
		case m.whiteout:
			explained.Whiteout = explained.Whiteout || (o.xwhiteouts && regular && o.stat.Size == 0)
		}
	}
	if explained.Redirect == "" && explained.RedirectBytes == nil &&
		!explained.Whiteout && !explained.Opaque && !explained.Metacopy && !explained.CopiedUp {
		return nil
	}
	return &explained
}

// isWhiteout says whether an object is a whiteout by itself: a character device of number 0/0, which no driver has.
func isWhiteout(stat *unix.Statx_t) bool {
	return stat.Mode&unix.S_IFMT == unix.S_IFCHR && stat.Rdev_major == 0 && stat.Rdev_minor == 0
}

// hasWhiteoutFiles says whether an open folder of an upper layer can have whiteouts that are files.
func (m marks) hasWhiteoutFiles(folder int) bool {
	var value [1]byte
	n, err := unix.Fgetxattr(folder, m.opaque, value[:])
	return err == nil && string(value[:n]) == opaqueWhiteouts
}

// copiedUp looks up what the upper layer's markers say of a file of the whole filesystem, which does not show them.
func (m marks) copiedUp(upper int, name string) (*evidence.Overlay, error) {
	source := attributesAt(upper, name)
	origin, err := source.has(m.origin)
	if err != nil {
		return nil, err
	}
	metacopy, err := source.has(m.metacopy)
	if err != nil || (!origin && !metacopy) {
		return nil, err
	}
	return &evidence.Overlay{CopiedUp: origin, Metacopy: metacopy}, nil
}

// has says whether an object has an attribute.
func (s attributeSource) has(name string) (bool, error) {
	_, err := s.get(name, nil)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read attribute %q: %w", name, err)
	}
	return true, nil
}
