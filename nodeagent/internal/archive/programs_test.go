package archive_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/archive"
)

// needProgram skips where a program that is not ours is missing.
func needProgram(t testing.TB, name string) {
	t.Helper()
	_, err := exec.LookPath(name)
	testneeds.That(t, err == nil, fmt.Sprint(err))
}

// feed runs a program on data and returns what it says; it must succeed.
func feed(t testing.TB, data []byte, name string, args ...string) []byte {
	t.Helper()
	needProgram(t, name)
	command := exec.Command(name, args...)
	command.Stdin = bytes.NewReader(data)
	command.Env = append(os.Environ(), "LC_ALL=C")
	var said bytes.Buffer
	command.Stderr = &said
	output, err := command.Output()
	if err != nil || said.Len() > 0 {
		t.Fatalf("%s %q: %v\n%.2000s", name, args, err, said.Bytes())
	}
	return output
}

// demandReadable demands that the usual programs read everything that was written, entry by entry.
func (c *captured) demandReadable(t testing.TB, format archive.Format) {
	t.Helper()
	feed(t, c.data, string(format), "--test", "--quiet")
	listed := feed(t, c.data, "tar", "--list", "--"+string(format), "--quoting-style=escape", "--warning=no-unknown-keyword", "--file=-")
	if lines := int64(bytes.Count(listed, []byte("\n"))); lines != c.result.Entries {
		t.Errorf("tar lists %d entries of %d", lines, c.result.Entries)
	}
	want := map[string]bool{}
	for line := range strings.Lines(string(c.timeline)) {
		want[strings.Split(line, "|")[1]] = true
	}
	if int64(len(want)) != c.result.IndexLines {
		t.Errorf("%d names in the timeline, %d lines in the index", len(want), c.result.IndexLines)
	}
	rows, err := csv.NewReader(bytes.NewReader(feed(t, c.timeline, "mactime", "-d", "-y"))).ReadAll()
	must(t, err)
	got := map[string]bool{}
	for _, row := range rows[1:] {
		got[row[7]] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-timeline +mactime):\n%s", diff)
	}
}

func TestZstdGzipTarAndMactimeReadWhatWeWrite(t *testing.T) {
	for _, format := range []archive.Format{archive.Zstd, archive.Gzip} {
		t.Run(string(format), func(t *testing.T) {
			capture(t, makeTree(t), archive.Options{Format: format}).demandReadable(t, format)
		})
	}
}

func TestZstdAndTarRefuseAnArchiveThatWasCut(t *testing.T) {
	data := capture(t, makeTree(t), archive.Options{}).data
	for _, command := range [][]string{{"zstd", "--test", "--quiet"}, {"tar", "--list", "--zstd", "--file=-"}} {
		needProgram(t, command[0])
		run := exec.Command(command[0], command[1:]...)
		run.Stdin = bytes.NewReader(data[:len(data)-1])
		if err := run.Run(); err == nil {
			t.Errorf("%q accepts an archive without its last byte", command)
		}
	}
}
