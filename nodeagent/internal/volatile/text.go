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
		t.argv = splitArguments(content)
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
	t.environment = splitEnvironment(content, options)
	return t, nil
}

func splitArguments(content string) []evidence.Text {
	if content == "" {
		return nil
	}
	var argv []evidence.Text
	for _, argument := range strings.Split(strings.TrimSuffix(content, "\x00"), "\x00") {
		argv = append(argv, evidence.Text(argument))
	}
	return argv
}

func splitEnvironment(content string, options Options) []evidence.VolatileVariable {
	if content == "" {
		return nil
	}
	var variables []evidence.VolatileVariable
	for _, entry := range strings.Split(strings.TrimSuffix(content, "\x00"), "\x00") {
		name, value, named := strings.Cut(entry, "=")
		if !named {
			name, value = "", entry
		}
		variable := evidence.VolatileVariable{Name: evidence.Text(name), SHA256: evidence.Digest([]byte(value))}
		if options.redacts(entry, name) {
			variable.Redacted = true
		} else {
			text := evidence.Text(value)
			variable.Value = &text
		}
		variables = append(variables, variable)
	}
	return variables
}
