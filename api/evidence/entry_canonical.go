package evidence

import (
	"cmp"
	"encoding/base64"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// AppendCanonical appends the canonical JSON of the entry, without a newline: the bytes that Canonical returns, at a
// fraction of the time.
func (e *Entry) AppendCanonical(line []byte) []byte {
	o := object{line: append(line, '{')}
	o.optional("accessTime", e.AccessTime)
	o.optional("birthTime", e.BirthTime)
	o.optional("changeTime", e.ChangeTime)
	list(&o, "flags", e.Flags)
	list(&o, "gaps", e.Gaps)
	o.number("gid", int64(e.GID))
	o.text("inode", strconv.FormatUint(e.Inode, 10))
	o.optional("layer", string(e.Layer))
	o.optional("link", e.Link)
	o.bytes("linkBytes", e.LinkBytes)
	o.optional("linkedType", string(e.LinkedType))
	o.number("links", int64(e.Links))
	o.positive("major", int64(e.Major))
	o.positive("minor", int64(e.Minor))
	o.optional("modTime", e.ModTime)
	o.number("mode", int64(e.Mode))
	e.Overlay.append(&o)
	o.text("path", e.Path)
	o.bytes("pathBytes", e.PathBytes)
	e.Position.append(&o)
	o.optional("sha256", e.SHA256)
	o.text("size", strconv.FormatInt(e.Size, 10))
	o.optional("storedSha256", e.StoredSHA256)
	o.text("type", string(e.Type))
	o.number("uid", int64(e.UID))
	e.appendAttributes(&o)
	return append(o.line, '}')
}

func (v *Overlay) append(o *object) {
	if v == nil {
		return
	}
	o.begin("overlay")
	o.truth("copiedUp", v.CopiedUp)
	o.truth("metacopy", v.Metacopy)
	o.truth("opaque", v.Opaque)
	o.optional("redirect", v.Redirect)
	o.bytes("redirectBytes", v.RedirectBytes)
	o.truth("whiteout", v.Whiteout)
	o.end()
}

func (p *Position) append(o *object) {
	if p == nil {
		return
	}
	o.begin("position")
	o.number("frame", p.Frame)
	o.number("frameSize", p.FrameSize)
	o.number("offset", p.Offset)
	o.positive("span", p.Span)
	o.end()
}

func (e *Entry) appendAttributes(o *object) {
	if len(e.XAttrs) == 0 {
		return
	}
	names := make([]string, 0, len(e.XAttrs))
	for name := range e.XAttrs {
		names = append(names, name)
	}
	slices.SortFunc(names, compareUTF16)
	o.begin("xattrs")
	for _, name := range names {
		o.key(name)
		if e.XAttrs[name] == nil {
			o.line = append(o.line, "null"...)
			continue
		}
		o.line = appendBase64(o.line, e.XAttrs[name])
	}
	o.end()
}

// compareUTF16 orders keys as RFC 8785 does: by their UTF-16 code units. Code points above the surrogates and below
// U+10000 are all that bytes order otherwise.
func compareUTF16(a, b string) int {
	for len(a) > 0 && len(b) > 0 {
		x, sizeX := utf8.DecodeRuneInString(a)
		y, sizeY := utf8.DecodeRuneInString(b)
		if x != y {
			return cmp.Compare(firstUnit(x), firstUnit(y))*2 + cmp.Compare(x, y)
		}
		a, b = a[sizeX:], b[sizeY:]
	}
	return cmp.Compare(len(a), len(b))
}

func firstUnit(r rune) rune {
	if high, _ := utf16.EncodeRune(r); high != utf8.RuneError {
		return high
	}
	return r
}

// object appends the members of one JSON object after another; the caller keeps the keys in order.
type object struct{ line []byte }

func (o *object) key(name string) {
	if last := o.line[len(o.line)-1]; last != '{' {
		o.line = append(o.line, ',')
	}
	o.line = append(appendString(o.line, name), ':')
}

func (o *object) begin(name string) {
	o.key(name)
	o.line = append(o.line, '{')
}

func (o *object) end() { o.line = append(o.line, '}') }

func (o *object) text(name, value string) {
	o.key(name)
	o.line = appendString(o.line, value)
}

func (o *object) optional(name, value string) {
	if value != "" {
		o.text(name, value)
	}
}

func (o *object) bytes(name string, value []byte) {
	if len(value) > 0 {
		o.key(name)
		o.line = appendBase64(o.line, value)
	}
}

func (o *object) number(name string, value int64) {
	o.key(name)
	o.line = strconv.AppendInt(o.line, value, 10)
}

func (o *object) positive(name string, value int64) {
	if value != 0 {
		o.number(name, value)
	}
}

func (o *object) truth(name string, value bool) {
	if value {
		o.key(name)
		o.line = append(o.line, "true"...)
	}
}

func list[T ~string](o *object, name string, values []T) {
	if len(values) == 0 {
		return
	}
	o.key(name)
	o.line = append(o.line, '[')
	for i, value := range values {
		if i > 0 {
			o.line = append(o.line, ',')
		}
		o.line = appendString(o.line, string(value))
	}
	o.line = append(o.line, ']')
}

func appendBase64(line, value []byte) []byte {
	line = append(line, '"')
	line = base64.StdEncoding.AppendEncode(line, value)
	return append(line, '"')
}

// appendString quotes as RFC 8785 does: only quotes, backslashes and control characters are escaped. A byte that is not
// UTF-8 becomes U+FFFD.
func appendString(line []byte, text string) []byte {
	line = append(line, '"')
	for i := 0; i < len(text); {
		b := text[i]
		if b < utf8.RuneSelf {
			line = appendASCII(line, b)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		line = utf8.AppendRune(line, r)
		i += size
	}
	return append(line, '"')
}

func appendASCII(line []byte, b byte) []byte {
	const hex = "0123456789abcdef"
	switch {
	case b == '"' || b == '\\':
		return append(line, '\\', b)
	case b >= ' ':
		return append(line, b)
	case b == '\b':
		return append(line, '\\', 'b')
	case b == '\t':
		return append(line, '\\', 't')
	case b == '\n':
		return append(line, '\\', 'n')
	case b == '\f':
		return append(line, '\\', 'f')
	case b == '\r':
		return append(line, '\\', 'r')
	}
	return append(line, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
}
