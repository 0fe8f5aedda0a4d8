package corpus

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// changingSize of each file that changes: many reads of the archive.
const changingSize = 4 << 20

// Changing are files that change while they are read.
type Changing struct {
	// Root of the tree in which they are changed.
	Root string
	next int
}

// Names of the files, in the order in which they are reached: before everything else in the tree.
func (c *Changing) Names() []string {
	return []string{
		"0-changing/a-grows", "0-changing/b-replaced", "0-changing/c-shrinks", "0-changing/d-truncated", "0-changing/e-rewritten",
	}
}

func (c *Changing) plant(t testing.TB, at func(string) string) {
	t.Helper()
	for _, name := range c.Names() {
		WriteFile(t, at(name), strings.Repeat(filepath.Base(name)[:1], changingSize))
	}
}

// Change is called with the progress, and changes each file in the middle of its being read.
func (c *Changing) Change(t testing.TB, read int64) {
	t.Helper()
	names := c.Names()
	if c.next == len(names) || read < int64(c.next)*changingSize+changingSize/2 {
		return
	}
	path := filepath.Join(c.Root, names[c.next])
	c.next++
	switch filepath.Base(path)[0] {
	case 'a':
		file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = file.Write(make([]byte, changingSize))
		must(t, errors.Join(err, file.Close()))
	case 'b':
		must(t, os.WriteFile(path+".new", []byte("another file"), 0o600))
		must(t, os.Rename(path+".new", path))
	case 'c':
		must(t, os.Truncate(path, changingSize-1))
	case 'd':
		must(t, os.Truncate(path, 0))
	case 'e':
		must(t, os.WriteFile(path, bytes.Repeat([]byte("E"), changingSize), 0o600))
	}
}
