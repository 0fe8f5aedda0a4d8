package evidence

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MediaTypeTimeline is that of a timeline in the body format of The Sleuth Kit, zstd-compressed.
const MediaTypeTimeline = "application/vnd.ugallu.forensics.timeline.v1.body+zstd"

// WriteTimeline writes the timeline of a decompressed index: one line for each entry that has times, in the order of the
// index.
func WriteTimeline(out io.Writer, index io.Reader) error {
	buffered := bufio.NewWriter(out)
	var line []byte
	for reader := NewIndexReader(index); ; {
		entry, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("write timeline: %w", err)
		}
		line = entry.AppendBody(line[:0])
		if _, err := buffered.Write(line); err != nil {
			return fmt.Errorf("write timeline: %w", err)
		}
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write timeline: %w", err)
	}
	return nil
}

// AppendBody appends the entry as one line of The Sleuth Kit's body format, version 3:
//
//	MD5|name|inode|mode_as_string|UID|GID|size|atime|mtime|ctime|crtime
//
// MD5 is 0, which stands for unknown, as it does for a time. Times are cut to the second before. The name begins with a
// slash, a link's is followed by " -> " and its target, a whiteout's by " (deleted)".
//
// A byte of a name that is a control character, invisible, '|', '%', a backslash or not UTF-8 is written as a backslash,
// an 'x' and two hexadecimal digits: mactime reads a percent sign as an escape of its own and prints what it stands for.
// An entry without any time is left out, as mactime would.
func (e *Entry) AppendBody(line []byte) []byte {
	times := [...]string{e.AccessTime, e.ModTime, e.ChangeTime, e.BirthTime}
	if times == [4]string{} {
		return line
	}
	line = append(line, "0|/"...)
	if path := e.RawPath(); path != "." {
		line = appendName(line, path)
	}
	switch {
	case e.Type == EntrySymlink:
		line = appendName(append(line, " -> "...), e.RawLink())
	case e.isWhiteout():
		line = append(line, " (deleted)"...)
	}
	line = append(line, '|')
	line = strconv.AppendUint(line, e.Inode, 10)
	line = append(line, '|')
	line = e.appendMode(line)
	for _, number := range [...]int64{int64(e.UID), int64(e.GID), e.Size} {
		line = strconv.AppendInt(append(line, '|'), number, 10)
	}
	for _, at := range times {
		line = strconv.AppendInt(append(line, '|'), seconds(at), 10)
	}
	return append(line, '\n')
}

func (e *Entry) isWhiteout() bool { return e.Overlay != nil && e.Overlay.Whiteout }

// appendName keeps every name apart from every other, and from the line that it stands in.
func appendName(line []byte, name string) []byte {
	const hex = "0123456789abcdef"
	for len(name) > 0 {
		r, size := utf8.DecodeRuneInString(name)
		plain := unicode.IsPrint(r) && (r != utf8.RuneError || size > 1) && !strings.ContainsRune(`|%\`, r)
		for i := range size {
			if plain {
				line = append(line, name[i])
			} else {
				line = append(line, '\\', 'x', hex[name[i]>>4], hex[name[i]&15])
			}
		}
		name = name[size:]
	}
	return line
}

// appendMode writes type and permissions as fls does.
func (e *Entry) appendMode(line []byte) []byte {
	letter := e.letter()
	line = append(line, letter, '/', letter)
	const permissions = "rwxrwxrwx"
	mode := []byte(permissions)
	for i := range mode {
		if e.Mode>>(len(permissions)-1-i)&1 == 0 {
			mode[i] = '-'
		}
	}
	for _, special := range [...]struct {
		bit      uint32
		at       int
		set, not byte
	}{{0o4000, 2, 's', 'S'}, {0o2000, 5, 's', 'S'}, {0o1000, 8, 't', 'T'}} {
		switch {
		case e.Mode&special.bit == 0:
		case mode[special.at] == 'x':
			mode[special.at] = special.set
		default:
			mode[special.at] = special.not
		}
	}
	return append(line, mode...)
}

func (e *Entry) letter() byte {
	if e.isWhiteout() {
		return 'w'
	}
	kind := e.Type
	if kind == EntryHardLink {
		if kind = e.LinkedType; kind == "" {
			kind = EntryFile
		}
	}
	switch kind {
	case EntryFile:
		return 'r'
	case EntryDirectory:
		return 'd'
	case EntrySymlink:
		return 'l'
	case EntryCharacter:
		return 'c'
	case EntryBlock:
		return 'b'
	case EntryFIFO:
		return 'p'
	case EntrySocket:
		return 'h'
	default:
		return '-'
	}
}

// seconds is the second that a time lies in; 0 for none.
func seconds(at string) int64 {
	whole, fraction, _ := strings.Cut(at, ".")
	second, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return 0
	}
	if strings.HasPrefix(whole, "-") && strings.Trim(fraction, "0") != "" {
		second--
	}
	return second
}
