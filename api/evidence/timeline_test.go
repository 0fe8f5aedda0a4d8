package evidence_test

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"ugallu.io/forensics/api/evidence"
)

func TestAppendBodyWritesTheBodyFormat(t *testing.T) {
	times := evidence.Entry{AccessTime: "1.900000000", ModTime: "-1.500000000", ChangeTime: "-0.100000000"}
	entry := func(edit func(*evidence.Entry)) evidence.Entry {
		changed := times
		edit(&changed)
		return changed
	}
	tests := map[string]struct {
		entry evidence.Entry
		want  string
	}{
		"file": {
			entry(func(e *evidence.Entry) {
				e.Path, e.Type, e.Mode, e.Size = "bin/su", evidence.EntryFile, 0o4755, 7
				e.UID, e.GID, e.Inode, e.BirthTime = 1, 2, 3, "4.000000000"
			}),
			"0|/bin/su|3|r/rrwsr-xr-x|1|2|7|1|-2|-1|4\n",
		},
		"root": {
			entry(func(e *evidence.Entry) { e.Path, e.Type, e.Mode = ".", evidence.EntryDirectory, 0o1777 }),
			"0|/|0|d/drwxrwxrwt|0|0|0|1|-2|-1|0\n",
		},
		"link": {
			entry(func(e *evidence.Entry) {
				e.Path, e.Type, e.Link, e.Mode = "a|b", evidence.EntrySymlink, "c\n%41", 0o777
			}),
			`0|/a\x7cb -> c\x0a\x2541|0|l/lrwxrwxrwx|0|0|0|1|-2|-1|0` + "\n",
		},
		"raw": {
			entry(func(e *evidence.Entry) {
				e.Path, e.PathBytes, e.Type, e.Mode = "\ufffd", []byte("\xff é\u202e\\\ufffd"), evidence.EntryFIFO, 0o7000
			}),
			`0|/\xff é\xe2\x80\xae\x5c` + "\ufffd|0|p/p--S--S--T|0|0|0|1|-2|-1|0\n",
		},
		"whiteout": {
			entry(func(e *evidence.Entry) {
				e.Path, e.Type, e.Overlay = "gone", evidence.EntryCharacter, &evidence.Overlay{Whiteout: true}
			}),
			"0|/gone (deleted)|0|w/w---------|0|0|0|1|-2|-1|0\n",
		},
		"no times": {evidence.Entry{Path: "a", Type: evidence.EntryUnknown}, ""},
	}
	for name, test := range tests {
		if got := string(test.entry.AppendBody(nil)); got != test.want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, test.want)
		}
	}
}

var bodyLine = regexp.MustCompile(`^0\|(/[^|]*)\|\d+\|(./.[r-][w-][xsS-][r-][w-][xsS-][r-][w-][xtT-])(\|-?\d+){7}$`)

// parseBody reads a timeline as strictly as its format allows and returns the names with their escapes undone.
func parseBody(body []byte) ([]string, error) {
	var names []string
	for line := range bytes.Lines(body) {
		text, ended := strings.CutSuffix(string(line), "\n")
		fields := bodyLine.FindStringSubmatch(text)
		if !ended || fields == nil {
			return nil, fmt.Errorf("malformed line %q", line)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.Contains(text, "%") {
			return nil, fmt.Errorf("line %q is not plain text", line)
		}
		name, err := unescape(fields[1])
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

func unescape(text string) (string, error) {
	var name []byte
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			name = append(name, text[i])
			continue
		}
		if len(text) < i+4 || text[i+1] != 'x' {
			return "", errors.New("malformed escape")
		}
		b, err := strconv.ParseUint(text[i+2:i+4], 16, 8)
		if err != nil {
			return "", err
		}
		name = append(name, byte(b))
		i += 3
	}
	return string(name), nil
}

func FuzzTimeline(f *testing.F) {
	f.Add("etc/passwd", "target", "1.000000000", uint32(0o644))
	f.Add("a|b\n0|/forged|1|r/rrwxrwxrwx|0|0|0|1|1|1|1", "\xff%0A", "-1.5", uint32(0o7777))
	f.Add("\\x41\\", "\u202e\u0085\u2028\u00a0", "9223372036854775807.999999999", uint32(1<<31))
	f.Fuzz(func(t *testing.T, path, link, at string, mode uint32) {
		entries := []evidence.Entry{
			{Path: path, PathBytes: evidence.RawBytes(path), Type: evidence.EntryFile, ModTime: at, Mode: mode, Inode: uint64(mode)},
			{Path: "l", Type: evidence.EntrySymlink, Link: link, LinkBytes: evidence.RawBytes(link), ModTime: "1.0", AccessTime: at},
		}
		var index []byte
		for i := range entries {
			index = append(entries[i].AppendCanonical(index), '\n')
		}
		var body bytes.Buffer
		if err := evidence.WriteTimeline(&body, bytes.NewReader(index)); err != nil {
			t.Fatal(err)
		}
		names, err := parseBody(body.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"/" + path, "/l -> " + link}
		if path == "." {
			want[0] = "/"
		}
		if at == "" {
			want = want[1:]
		}
		if len(names) != len(want) || names[0] != want[0] || names[len(names)-1] != want[len(want)-1] {
			t.Errorf("names %q, want %q", names, want)
		}
	})
}
