package volatile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// playDeep mounts memory as often and as deep as it is told, maps a file there as often, and holds a memfd and a file on a
// mount that it took away.
func playDeep(arguments string) (told, error) {
	var folder string
	var depth, times int
	if _, err := fmt.Sscan(arguments, &folder, &depth, &times); err != nil {
		return told{}, err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return told{}, err
	}
	lazy := folder + "/lazy"
	if err := memoryWith(lazy); err != nil {
		return told{}, err
	}
	if _, err := unix.Open(lazy+"/lazy-open", unix.O_RDONLY, 0); err != nil {
		return told{}, err
	}
	if err := unix.Unmount(lazy, unix.MNT_DETACH); err != nil {
		return told{}, err
	}
	if err := descend(folder+"/deep", depth); err != nil {
		return told{}, err
	}
	for range times {
		if err := mapFile("mapped"); err != nil {
			return told{}, err
		}
		if err := unix.Mount("deep", "point", "tmpfs", 0, ""); err != nil {
			return told{}, err
		}
	}
	_, err := unix.MemfdCreate("planted", 0)
	return told{}, errors.Join(err, os.Chdir("/"))
}

// descend makes folders in memory, each in the one before, and a file and a folder in the last, and goes there.
func descend(folder string, depth int) error {
	if err := unix.Mount("memory", folder, "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := os.Chdir(folder); err != nil {
		return err
	}
	for name := strings.Repeat("d", 255); depth > 0; depth-- {
		if err := errors.Join(os.Mkdir(name, 0o700), os.Chdir(name)); err != nil {
			return err
		}
	}
	return errors.Join(os.WriteFile("mapped", []byte("deep"), 0o600), os.Mkdir("point", 0o700))
}

func deepFolder(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for _, name := range []string{"lazy", "deep"} {
		must(t, os.Mkdir(filepath.Join(folder, name), 0o700))
	}
	return folder
}

func TestOneLongMountHidesNoFile(t *testing.T) {
	a := start(t, "deep "+deepFolder(t)+" 257 1", namespaces(unix.CLONE_NEWNS))
	f := writeFiles(t, a.target(), Options{})
	if want := []string{"/lazy-open", "/memfd:planted (deleted)"}; !slices.Equal(paths(f), want) {
		t.Errorf("stored are %q, want %q", paths(f), want)
	}
	reasons := map[string]string{}
	for _, gap := range f.gaps {
		reasons[gap.Reason] = gap.Message
	}
	if len(f.gaps) != 2 || reasons[GapDetached] == "" || !strings.Contains(reasons[GapLimit], "1 mounts are left out") || !f.result.Truncated {
		t.Errorf("gaps %+v", f.gaps)
	}
}

func TestOneLongPathHidesNoOtherMountOrMapping(t *testing.T) {
	a := start(t, "deep "+deepFolder(t)+" 257 1", namespaces(unix.CLONE_NEWNS))
	s := collect(t, a.target(), Options{})
	p := s.processes[a.Process.Pid]
	if len(p.Mounts) == 0 || len(p.Maps) == 0 || len(p.Argv) == 0 || p.Memory == nil || p.Executable.SHA256 == "" {
		t.Errorf("%d mounts, %d mappings, %d arguments, memory %+v, executable %+v", len(p.Mounts), len(p.Maps), len(p.Argv), p.Memory, p.Executable)
	}
	missing := map[string]string{}
	for _, m := range p.Missing {
		missing[m.Part+" "+m.Reason] = m.Message
	}
	if len(missing) != 2 || !strings.HasPrefix(missing["mounts "+GapLimit], "1 mounts") || !strings.Contains(missing["maps "+GapLimit], "1 mappings") {
		t.Errorf("missing %+v", missing)
	}
}

func TestManyLongPathsAreKeptToTheirLimit(t *testing.T) {
	// 300 lines of 60,000 bytes.
	a := start(t, "deep "+deepFolder(t)+" 234 300", namespaces(unix.CLONE_NEWNS))
	f := writeFiles(t, a.target(), Options{})
	if want := []string{"/lazy-open", "/memfd:planted (deleted)"}; !slices.Equal(paths(f), want) {
		t.Errorf("stored are %q, want %q", paths(f), want)
	}
	p := collect(t, a.target(), Options{}).processes[a.Process.Pid]
	text, deep := 0, 0
	for _, mount := range p.Mounts {
		text += len(mount.Point)
	}
	if text > maxEncoded {
		t.Errorf("%d bytes of mounts", text)
	}
	text = 0
	for _, mapping := range p.Maps {
		text += len(mapping.Path)
		if mapping.Inode != 0 && strings.Contains(string(mapping.Path), "/deep") {
			deep++
		}
	}
	if text > maxEncoded+minPath*len(p.Maps) || deep < 30 || len(p.Maps) != p.MapsTotal {
		t.Errorf("%d bytes of %d mappings, %d are deep", text, len(p.Maps), deep)
	}
	if len(p.Missing) != 2 || p.Missing[0].Reason != GapLimit || p.Missing[1].Reason != GapLimit {
		t.Errorf("missing %+v", p.Missing)
	}
}

func TestMoreTextOfMountsThanTheLimitIsNamed(t *testing.T) {
	line := "36 35 98:0 / /" + strings.Repeat("p", maxLine) + " rw - ext4 /dev/root rw\n"
	m := newMounted()
	must(t, m.list(strings.NewReader(line), 10))
	if !m.ids[36] || !m.whole["98:0"] {
		t.Errorf("of a long line are read %+v", m)
	}
	m = newMounted()
	err := m.list(strings.NewReader(strings.Repeat(line, maxMountinfo/len(line)+1)), 10)
	if reasonOf(err) != GapLimit {
		t.Errorf("more text than the limit: %v", err)
	}
	if err := newMounted().list(strings.NewReader("36 35\n"), 10); err == nil {
		t.Error("half a line is read")
	}
}

func TestListsOfMountsHoldNothingOfTheirLines(t *testing.T) {
	var text strings.Builder
	for i := range 200 {
		_, _ = fmt.Fprintf(&text, "%d 35 98:%d / /%s rw - ext4 /dev/root rw\n", i, i, strings.Repeat("p", 60<<10))
	}
	m := newMounted()
	before := heap()
	must(t, m.list(strings.NewReader(text.String()), maxMounted))
	if held := heap() - before; held > 1<<20 {
		t.Errorf("%d mounts hold %d bytes of %d", len(m.ids), held, text.Len())
	}
	runtime.KeepAlive(m)
}

// heap is how much memory is in use.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc) // #nosec G115 -- no machine has that much
}

func TestListsOfMountsOfAllProcessesHaveOneLimit(t *testing.T) {
	r := newFileReader(Options{Limits: Limits{}.withDefaults()})
	defer r.close()
	read := func() error {
		h, err := open(start(t, "wait", namespaces(unix.CLONE_NEWNS)).process(), time.Second)
		must(t, err)
		defer h.release()
		return r.mountsOf(t.Context(), h)
	}
	must(t, read())
	if r.mounted.left >= maxMountinfo {
		t.Error("what was read of a process does not count")
	}
	r.mounted.left = 100
	if err := read(); reasonOf(err) != GapLimit || r.mounted.left != 0 {
		t.Errorf("more text than the limit: %v, %d bytes are left", err, r.mounted.left)
	}
}

func TestLinesAreToldToTheirLimit(t *testing.T) {
	whole, long := strings.Repeat("w", maxLine), strings.Repeat("l", maxLine+1)
	type told struct {
		text string
		cut  bool
	}
	for name, test := range map[string]struct {
		text string
		want []told
	}{
		"nothing":       {"", nil},
		"whole":         {"a\n\n" + whole + "\n", []told{{"a", false}, {"", false}, {whole, false}}},
		"without end":   {"a\nb", []told{{"a", false}, {"b", false}}},
		"long":          {long + long + "\nb\n", []told{{long[1:], true}, {"b", false}}},
		"long at end":   {"b\n" + long, []told{{"b", false}, {long[1:], true}}},
		"in two pieces": {whole[:5000] + "\nb", []told{{whole[:5000], false}, {"b", false}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []told
			must(t, scan(strings.NewReader(test.text), name, func(text string, cut bool) bool {
				got = append(got, told{text, cut})
				return true
			}))
			if !slices.Equal(got, test.want) {
				t.Errorf("%d lines, want %d", len(got), len(test.want))
			}
		})
	}
}

func TestPathsOfMappingsAreKeptToTheirLimit(t *testing.T) {
	line := strings.Repeat("x", 1<<10)
	short := area{permissions: "r--p", path: "[vvar]"}
	long := area{permissions: line[:4], path: line}
	if short.shorten(minPath) || short.path != "[vvar]" {
		t.Errorf("cut to %+v", short)
	}
	if !long.shorten(minPath) || long.path != line[:minPath-2] || long.permissions != line[:4] {
		t.Errorf("cut to %+v", long)
	}
}
