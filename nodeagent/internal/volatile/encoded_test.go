package volatile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
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

func TestDescriptorsWithLongPathsAreKeptToTheirLimit(t *testing.T) {
	h := withTables(t, nil)
	folder := fmt.Sprintf("/proc/self/fd/%d/", h.fd)
	must(t, errors.Join(os.Mkdir(folder+"fd", 0o700), os.Mkdir(folder+"fdinfo", 0o700)))
	const number = 1000
	for i := range number {
		name := strconv.Itoa(i)
		must(t, os.Symlink(strings.Repeat("/"+strings.Repeat("\x01", 200), 20)+deletedMark, folder+"fd/"+name))
		must(t, os.WriteFile(folder+"fdinfo/"+name, []byte("pos:\t7\n"+strings.Repeat("tfd: <>\n", 64)), 0o600))
	}
	var found findings
	d, err := readDescriptors(h, Limits{}.withDefaults(), nil, &found)
	must(t, err)
	size := 0
	for _, descriptor := range d.list {
		raw, err := json.Marshal(descriptor)
		must(t, err)
		size += len(raw)
		if descriptor.Offset != 7 || !strings.HasPrefix(string(descriptor.Target), "/\x01") {
			t.Fatalf("descriptor %+v", descriptor)
		}
	}
	if len(d.list) != number || size > maxEncoded+number*(minPath+128) {
		t.Errorf("%d descriptors take %d bytes", len(d.list), size)
	}
	if len(found) != 1 || found[0].reason != GapLimit || !strings.Contains(found[0].cause.Error(), "descriptors is cut") {
		t.Errorf("found %+v", found)
	}
}

func TestTextOfNothingButEndsIsKeptToItsLimit(t *testing.T) {
	stat, err := os.ReadFile("/proc/self/stat")
	must(t, err)
	ends := strings.Repeat("\x00", 1<<20)
	h := withTables(t, map[string]string{"stat": string(stat), "cmdline": ends, "environ": ends})
	var found findings
	got, err := readText(h, mapping{argsAnonymous: true, environAnonymous: true}, Options{Limits: Limits{}.withDefaults()}, &found)
	must(t, err)
	arguments, err := json.Marshal(got.argv)
	must(t, err)
	variables, err := json.Marshal(got.environment)
	must(t, err)
	if len(arguments) > maxEncoded || len(variables) > maxEncoded || len(got.argv) == 0 || len(got.environment) == 0 {
		t.Errorf("%d bytes of arguments, %d of variables", len(arguments), len(variables))
	}
	if len(found) != 2 || found[0].part != "argv" || found[1].part != "environment" || found[0].reason != GapLimit || found[1].reason != GapLimit {
		t.Errorf("found %+v", found)
	}
}

func TestALongArgumentIsCutAndALongVariableLeftOut(t *testing.T) {
	long := strings.Repeat("\x01", maxEncoded/4)
	argv, cut := splitArguments("first\x00" + long + "\x00last\x00")
	if len(argv) < 2 || argv[0] != "first" || !strings.HasPrefix(long, string(argv[1])) || len(argv[1]) < maxEncoded/7 || cut != 2 {
		t.Errorf("%d arguments, %d are cut", len(argv), cut)
	}
	variables, left := splitEnvironment("A=first\x00B="+long+"\x00C=last\x00", Options{})
	if len(variables) != 2 || variables[0].Name != "A" || variables[1].Name != "C" || *variables[1].Value != "last" || left != 1 {
		t.Errorf("variables %+v, %d are left out", variables, left)
	}
}

// allocated is how much memory was ever asked for.
func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}
