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
		content, more, err := h.read(h.through+"cmdline", limit)
		if err != nil {
			return t, err
		}
		if more {
			found.add("argv", GapLimit, limited("more text", int64(limit)))
		}
		var cut int
		if t.argv, cut = splitArguments(content); cut > 0 {
			found.add("argv", GapLimit, fmt.Errorf("%d arguments are cut: %w", cut, errEncoded))
		}
	} else {
		found.add("argv", GapNotAnonymous, errNotAnonymous)
	}
	if !maps.environAnonymous {
		found.add("environment", GapNotAnonymous, errNotAnonymous)
		return t, nil
	}
	content, more, err := h.read(h.through+"environ", limit)
	if err != nil {
		return t, err
	}
	if more {
		// The last entry is cut somewhere: its sha256 would be that of nothing.
		content = content[:strings.LastIndexByte(content, 0)+1]
		cause := fmt.Errorf("entries after %d bytes are left out: %w", len(content), limited("more text", int64(limit)))
		found.add("environment", GapLimit, cause)
	}
	var left int
	if t.environment, left = splitEnvironment(content, options); left > 0 {
		found.add("environment", GapLimit, fmt.Errorf("%d entries are left out: %w", left, errEncoded))
	}
	return t, nil
}

var errEncoded = limited("more text as JSON", maxEncoded)

// splitArguments returns those that there is room for, and how many are cut or left out.
func splitArguments(content string) (argv []evidence.Text, cut int) {
	if content == "" {
		return nil, 0
	}
	room := maxEncoded - len("[]")
	for argument := range strings.SplitSeq(strings.TrimSuffix(content, "\x00"), "\x00") {
		kept := beginning(argument, room-len(","))
		size := encodedSize(kept) + len(",")
		if len(kept) < len(argument) || size > room {
			cut++
		}
		if size <= room {
			argv = append(argv, evidence.Text(kept))
			room -= size
		}
	}
	return argv, cut
}

// sizeOfVariable is that of an entry's sha256 as JSON, and of the names of its fields.
const sizeOfVariable = 128

// splitEnvironment returns the entries that there is room for, and how many are left out: of what is cut the sha256 would be
// that of nothing.
func splitEnvironment(content string, options Options) (variables []evidence.VolatileVariable, left int) {
	if content == "" {
		return nil, 0
	}
	room := maxEncoded
	for entry := range strings.SplitSeq(strings.TrimSuffix(content, "\x00"), "\x00") {
		name, value, named := strings.Cut(entry, "=")
		if !named {
			name, value = "", entry
		}
		size := sizeOfVariable + encodedSize(name) + encodedSize(value)
		if size > room {
			left++
			continue
		}
		room -= size
		variable := evidence.VolatileVariable{Name: evidence.Text(name), SHA256: evidence.Digest([]byte(value))}
		if options.redacts(entry, name) {
			variable.Redacted = true
		} else {
			text := evidence.Text(value)
			variable.Value = &text
		}
		variables = append(variables, variable)
	}
	return variables, left
}
