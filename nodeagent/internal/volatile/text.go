package volatile

import (
	"errors"
	"fmt"
	"strings"

	"ugallu.io/forensics/api/evidence"
)

var errNotAnonymous = errors.New("lies in a mapping of a file or in none that is known")

// text is what a process's memory says of its start. The process can write into both.
type text struct {
	argv        []evidence.Text
	environment []evidence.VolatileVariable
}

// readText reads arguments and environment. The kernel reads them from the process's memory; where that is a mapping of a
// file, it could wait for the filesystem's server, and then for ever: such text is named and not read.
func readText(h *handle, maps mapping, options Options, found *findings) (text, error) {
	var t text
	limit := options.Limits.Text
	if maps.argsAnonymous {
		content, more, err := readStrings(h, "cmdline", limit)
		if err != nil {
			return t, err
		}
		if more {
			last := strings.Count(content, "\x00")
			cause := fmt.Errorf("the text ends in or before argument %d: %w", last, limited("more text", int64(limit)))
			found.add("argv", GapLimit, cause)
		}
		var cut error
		if t.argv, cut = splitArguments(content); cut != nil {
			found.add("argv", GapLimit, cut)
		}
	} else {
		found.add("argv", GapNotAnonymous, errNotAnonymous)
	}
	if !maps.environAnonymous {
		found.add("environment", GapNotAnonymous, errNotAnonymous)
		return t, nil
	}
	content, more, err := readStrings(h, "environ", limit)
	if err != nil {
		return t, err
	}
	if more {
		// The last entry is cut somewhere: its sha256 would be that of nothing.
		content = content[:strings.LastIndexByte(content, 0)+1]
		cause := fmt.Errorf("entries after %d bytes are left out: %w", len(content), limited("more text", int64(limit)))
		found.add("environment", GapLimit, cause)
	}
	var cut error
	if t.environment, cut = splitEnvironment(content, options); cut != nil {
		found.add("environment", GapLimit, cut)
	}
	return t, nil
}

// readStrings reads what ends in a NUL as a rule, which counts for nothing.
func readStrings(h *handle, name string, limit int) (content string, more bool, err error) {
	content, more, err = h.read(h.through+name, limit+1)
	if len(content) > limit && content[limit] != 0 {
		return content[:limit], true, err
	}
	return content, more, err
}

var errEncoded = limited("more text as JSON", maxEncoded)

// splitArguments returns those that there is room for. The error names the one that is cut, counted from 0, and counts those that
// are left out.
func splitArguments(content string) ([]evidence.Text, error) {
	if content == "" {
		return nil, nil
	}
	content = strings.TrimSuffix(content, "\x00")
	total, room := strings.Count(content, "\x00")+1, maxEncoded-len("[]")
	var argv []evidence.Text
	for argument := range strings.SplitSeq(content, "\x00") {
		kept := beginning(argument, room-len(","))
		size := encodedSize(kept) + len(",")
		if size > room || (kept == "" && argument != "") {
			return argv, fmt.Errorf("%d of the arguments read are left out: %w", total-len(argv), errEncoded)
		}
		argv = append(argv, evidence.Text(kept))
		room -= size
		if kept != argument {
			return argv, fmt.Errorf("argument %d is cut, %d more of those read are left out: %w", len(argv)-1, total-len(argv), errEncoded)
		}
	}
	return argv, nil
}

// sizeOfVariable is that of an entry's sha256 as JSON, and of the names of its fields.
const sizeOfVariable = 128

// splitEnvironment returns the entries that there is room for. What there is no room for is left out, and not cut, since its
// sha256 would be that of nothing: of an entry the value alone, where its name has room. The error counts them.
func splitEnvironment(content string, options Options) ([]evidence.VolatileVariable, error) {
	if content == "" {
		return nil, nil
	}
	var variables []evidence.VolatileVariable
	room, left, without := maxEncoded, 0, 0
	for entry := range strings.SplitSeq(strings.TrimSuffix(content, "\x00"), "\x00") {
		name, value, named := strings.Cut(entry, "=")
		if !named {
			name, value = "", entry
		}
		size := sizeOfVariable + encodedSize(name)
		if size > room {
			left++
			continue
		}
		room -= size
		variable := evidence.VolatileVariable{
			Name: evidence.Text(name), SHA256: evidence.Digest([]byte(value)), Redacted: options.redacts(entry, name),
		}
		switch size := encodedSize(value); {
		case variable.Redacted:
		case size > room:
			without++
		default:
			room -= size
			text := evidence.Text(value)
			variable.Value = &text
		}
		variables = append(variables, variable)
	}
	if left+without > 0 {
		return variables, fmt.Errorf("of the entries read %d are left out, and the values of %d others: %w", left, without, errEncoded)
	}
	return variables, nil
}
