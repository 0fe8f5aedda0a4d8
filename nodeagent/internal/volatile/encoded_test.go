package volatile

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

func TestTextTakesNoMoreRoomThanItsSize(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "plain": "/usr/lib/libc.so.6", "quotes": `"\"\`, "delete": "\x7f\x7f", "markup": "<a>&<b>",
		"control": "\x00\x01\x08\t\n\r\x1f", "letters": "äß漢字🙂", "lines": "a\u2028b\u2029", "no UTF-8": "\xff\x01<\"", "half": "漢"[:2],
		"replaced": "\ufffd",
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(evidence.Text(text))
			must(t, err)
			if size := encodedSize(text); size < len(raw) || size > 6*len(text)+16 {
				t.Errorf("%s takes %d bytes, said are %d", raw, len(raw), size)
			}
			for _, room := range []int{-1, 0, 1, 2, 5, 8, 12, 20, 1000} {
				kept := beginning(text, room)
				if !strings.HasPrefix(text, kept) || (kept != "" && encodedSize(kept) > room) {
					t.Errorf("%q is kept in %d bytes", kept, room)
				}
			}
			if beginning(text, encodedSize(text)) != text {
				t.Error("it is cut though there is room")
			}
		})
	}
}

// withTables is a process whose tables are ours.
func withTables(t *testing.T, tables map[string]string) *handle {
	t.Helper()
	folder := t.TempDir()
	for name, content := range tables {
		must(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
	}
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	h := &handle{shared: share(fd), patience: time.Minute}
	t.Cleanup(h.release)
	return h
}

func TestARecordOfHostilePathsIsNoLongerThanItsLimits(t *testing.T) {
	stat, err := os.ReadFile("/proc/self/stat")
	must(t, err)
	for name, char := range map[string]string{"control": "\x01", "markup": "<", "no UTF-8": "\xff", "plain": "p", "escaped": `\134`} {
		t.Run(name, func(t *testing.T) {
			path := strings.Repeat(char, 60_000/len(char))
			var areas, mounts strings.Builder
			for i := range 300 {
				_, _ = fmt.Fprintf(&areas, "%x-%x r--p 00000000 08:01 123   /%s\n", i<<12, (i+1)<<12, path)
				_, _ = fmt.Fprintf(&mounts, "%d 35 98:0 / /%s rw - ext4 /dev/root rw\n", i, path)
			}
			h := withTables(t, map[string]string{"stat": string(stat), "maps": areas.String(), "mountinfo": mounts.String()})
			c, err := newCollector(io.Discard, Options{})
			must(t, err)
			r := &reading{handle: h, collector: c, ctx: t.Context(), record: &evidence.VolatileProcess{}}
			r.memory()
			r.mounts()
			before := allocated()
			must(t, c.write(r.record))
			if c.bytes > 2*maxEncoded+300<<10 || len(r.record.Mounts) == 0 || len(r.record.Maps) != 300 {
				t.Errorf("%d bytes of %d mounts and %d mappings", c.bytes, len(r.record.Mounts), len(r.record.Maps))
			}
			// All that was asked for, most of which is garbage before the record is written.
			if made := allocated() - before; made > 128<<20 {
				t.Errorf("a record of %d bytes takes %d to write", c.bytes, made)
			}
		})
	}
}

// allocated is how much memory was ever asked for.
func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}
