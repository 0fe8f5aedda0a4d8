package podfiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMountsAreReadAsTheKernelWritesThem(t *testing.T) {
	const list = `36 35 0:57 / /dev/shm rw,nosuid - tmpfs shm rw,size=65536k
37 35 0:58 /a\040b /mnt/\134x\012y ro,relatime shared:7 master:3 - tmpfs what\040ever rw
38 35 8:1 / / rorw - ext4 /dev/sda1 rw
`
	got, err := readMounts(strings.NewReader(list), 10)
	if err != nil {
		t.Fatal(err)
	}
	want := &mounts{
		fsTypes: map[int]string{36: "tmpfs", 37: "tmpfs", 38: "ext4"},
		memory: []mount{
			{id: 36, device: "0:57", root: "/", point: "/dev/shm", fsType: "tmpfs", bytes: 9},
			{id: 37, device: "0:58", root: "/a b", point: "/mnt/\\x\ny", fsType: "tmpfs", readOnly: true, bytes: 22},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mounts{}, mount{})); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if got, err = readMounts(strings.NewReader(list), 1); err != nil || got.cut == nil || len(got.memory) != 1 {
		t.Errorf("with a limit: %+v, %v", got, err)
	}
	for _, bad := range []string{"x", "a b 0:1 / / rw - tmpfs x rw", "36 35 0:57 / /dev/shm rw tmpfs shm rw"} {
		if _, err := readMounts(strings.NewReader(bad), 1); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// line is a mount of memory.
func line(id int, root, point, fsType, options string) string {
	return fmt.Sprintf("%d 35 0:%d %s %s rw shared:7 - %s none %s\n", id, id, root, point, fsType, options)
}

func TestALongLineCostsThatMountAlone(t *testing.T) {
	long := strings.Repeat("/"+strings.Repeat("a", 255), 33_000)
	for name, test := range map[string]struct {
		list  string
		shown int
	}{
		"mount point": {line(2, "/", long, "tmpfs", "rw"), maxShown},
		"root":        {line(2, long, "/dev", "tmpfs", "rw"), len("/dev")},
		"one byte":    {line(2, "/", "/"+strings.Repeat("a", maxField-1), "tmpfs", "rw"), maxShown},
		"folders":     {line(2, "/", strings.Repeat("/a", maxFolders+1), "tmpfs", "rw"), maxShown},
	} {
		got, err := readMounts(strings.NewReader(line(1, "/", "/dev", "tmpfs", "rw")+test.list+line(3, "/", "/dev/shm", "tmpfs", "rw")), 10)
		if err != nil {
			t.Fatal(err)
		}
		if got.cut != nil || len(got.memory) != 3 {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if cut := got.memory[1]; !cut.cut || len(cut.point) != test.shown || cut.id != 2 || got.fsTypes[2] != "tmpfs" {
			t.Errorf("%s: %+v", name, cut)
		}
		if cut := got.memory[1]; cut.bytes > 2*maxShown {
			t.Errorf("%s: it counts as %d bytes", name, cut.bytes)
		}
		if whole := got.memory[2]; whole.cut || whole.point != "/dev/shm" {
			t.Errorf("%s: the mount after it: %+v", name, whole)
		}
	}
	for name, list := range map[string]string{
		"options":              line(2, "/", "/dev", "tmpfs", long),
		"a path at the bounds": line(2, "/", strings.Repeat("/a", maxFolders), "tmpfs", "rw"),
	} {
		got, err := readMounts(strings.NewReader(list), 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.memory) != 1 {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if one := got.memory[0]; one.cut {
			t.Errorf("%s: %+v", name, one)
		}
	}
}

// repeated gives line after line, and never ends before count.
type repeated struct {
	line  func(id int) string
	count int
	id    int
	left  string
}

func (r *repeated) Read(into []byte) (int, error) {
	if r.left == "" {
		if r.id == r.count {
			return 0, io.EOF
		}
		r.id++
		r.left = r.line(r.id)
	}
	n := copy(into, r.left)
	r.left = r.left[n:]
	return n, nil
}

func TestMountsTakeLittleMemoryWhateverTheirLinesHold(t *testing.T) {
	long := strings.Repeat("/"+strings.Repeat("a", 255), 20_000)
	mid, options := strings.Repeat("/a", 1000)+strings.Repeat("a", 28<<10), strings.Repeat("o", 4<<10)
	tests := map[string]struct {
		line func(id int) string
		// memory is how many mounts are kept at least, cut whether the rest is named.
		memory int
		cut    bool
	}{
		"deep paths":     {func(id int) string { return line(id, long, long, "tmpfs", "rw") }, 1, true},
		"long paths":     {func(id int) string { return line(id, mid, mid, "tmpfs", "rw") }, 60, true},
		"long options":   {func(id int) string { return line(id, "/", "/m", "overlay", options) }, 0, true},
		"types of names": {func(id int) string { return line(id, "/", "/m", "fuse."+options, "rw") }, 0, true},
		"too many":       {func(id int) string { return line(id, "/", "/m", "tmpfs", "rw") }, maxMemoryMounts, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := heap()
			got, err := readMounts(&repeated{line: test.line, count: 2 * maxMounts}, maxMemoryMounts)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.memory) < test.memory || (got.cut != nil) != test.cut {
				t.Fatalf("%d mounts, cut %v", len(got.memory), got.cut)
			}
			if grown := heap() - before; grown > 32<<20 {
				t.Errorf("%d bytes are kept", grown)
			}
			runtime.KeepAlive(got)
		})
	}
}

// heap is what is in use.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func TestAListOfMountsIsReadInTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endless := &repeated{count: maxMounts, line: func(id int) string {
		if id == 3 {
			cancel()
		}
		return line(id, "/", "/m", "tmpfs", "rw")
	}}
	if got, err := readMounts(timed{ctx, endless}, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTheNodesMountsAreWholeOrNotKnown(t *testing.T) {
	long := strings.Repeat("/"+strings.Repeat("a", 255), 200)
	var many bytes.Buffer
	for id := range 2000 {
		many.WriteString(line(id, "/", "/"+strings.Repeat("a", 20<<10), "tmpfs", "rw"))
	}
	file := filepath.Join(t.TempDir(), "mountinfo")
	for name, test := range map[string]struct {
		list string
		want nodeMounts
	}{
		"a long path": {line(1, "/", "/shm", "tmpfs", "rw") + line(2, "/", long+"/shm", "tmpfs", "rw"), nodeMounts{"0:1": {"/shm"}, "0:2": {""}}},
		"too much":    {many.String(), nil},
	} {
		if err := os.WriteFile(file, []byte(test.list), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readNode(t.Context(), file, "")
		if diff := cmp.Diff(test.want, got); diff != "" || (err == nil) != (test.want != nil) {
			t.Errorf("%s: error %v, (-want +got):\n%s", name, err, diff)
		}
	}
	f := &finder{found: &Found{}, node: nodeMounts{"0:2": {""}}}
	if f.refuse(mount{device: "0:2", point: sharedMemory}) == "" || f.refuse(mount{device: "0:3", point: sharedMemory}) != "" {
		t.Error("what the node has at a path that is too long is taken for the pod's")
	}
}

func TestWhetherAFileSystemIsThereAsAWholeIsLookedAtOnce(t *testing.T) {
	err := here(t.Context(), func(s *scene) error {
		f := &finder{found: &Found{}}
		at, err := s.mountOf(s.root)
		if err != nil {
			return err
		}
		s.memory = []mount{{id: at, device: "0:7", root: "/", point: "/"}}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if f.whole(ended, s, "0:7") || len(s.wholes) != 0 {
			t.Error("it was looked at after the time was up, or that was remembered")
		}
		if !f.whole(t.Context(), s, "0:7") || f.whole(t.Context(), s, "0:8") {
			t.Error("it is not told from another")
		}
		s.memory = nil
		if !f.whole(t.Context(), s, "0:7") || len(s.wholes) != 2 {
			t.Errorf("it was looked at again: %v", s.wholes)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsKeptOfAllNamespacesIsBounded(t *testing.T) {
	err := here(t.Context(), func(s *scene) error {
		f := &finder{found: &Found{}, bytes: maxPathBytes - 10, memory: map[string]*Source{}}
		s.cut = nil
		s.memory = []mount{{id: 1 << 30, device: "0:1", root: "/", point: "/", bytes: 2}, {id: 2, device: "0:1", root: "/", point: "/other", bytes: 9}}
		if err := f.scan(t.Context(), s, namespace{inode: 7}); err != nil {
			return err
		}
		last := f.gaps[len(f.gaps)-1]
		if len(f.found.Mounts) != 1 || last.Path != "mnt:[7]" || last.Reason != GapTooMany ||
			!strings.HasPrefix(last.Message, "1 of 2 mounts") {
			t.Errorf("mounts %v, gaps %v", f.found.Mounts, f.gaps)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := f.scan(ended, s, namespace{inode: 7}); !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "2 of 2 mounts") {
			t.Errorf("after the time: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
