package evidence

import (
	"path"
	"strings"
)

const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// OCIWhiteout is the name of the empty file by which a layer of an OCI image says what this entry of an upper layer says
// of the layers below: ".wh." before the name that was deleted, or ".wh..wh..opq" in a folder that hides them. The second
// result is false when the entry says nothing, and when OCI has no name for it: one that itself begins with ".wh.".
//
// The raw path is used. A redirect has no counterpart in OCI.
func (e *Entry) OCIWhiteout() (string, bool) {
	raw := e.RawPath()
	folder, base := path.Split(raw)
	switch {
	case e.Overlay == nil:
		return "", false
	case e.Overlay.Opaque:
		return path.Join(raw, whiteoutOpaque), true
	case e.Overlay.Whiteout && !IsWhiteoutName(raw):
		return folder + whiteoutPrefix + base, true
	}
	return "", false
}

// IsWhiteoutName says whether a path ends in a name that is a whiteout in a layer of an OCI image.
func IsWhiteoutName(name string) bool { return strings.HasPrefix(path.Base(name), whiteoutPrefix) }
