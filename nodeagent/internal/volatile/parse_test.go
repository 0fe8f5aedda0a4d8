package volatile

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

func TestStatIsReadBehindAHostileName(t *testing.T) {
	tail := "S 2 3 4 0 -1 4194304 1 2 3 4 11 12 5 6 20 -5 1 0 777 1 2 18446744073709551615 1 1 100 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 " +
		"1000 2000 3000 4000 0"
	for _, name := range []string{"a", ") R 9 9", "(( \n)"} {
		got, err := parseStat("1 (" + name + ") " + tail)
		want := stat{
			state: "S", parent: 2, group: 3, session: 4, flags: 4194304, utime: 11, stime: 12, nice: -5, started: 777,
			argsStart: 1000, argsEnd: 2000, environStart: 3000, environEnd: 4000,
		}
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
	if _, err := parseStat("1 (a) S 2"); err == nil {
		t.Error("half a line is read")
	}
}

func TestMappingsAreReadWithAnyPath(t *testing.T) {
	for line, want := range map[string]area{
		"7f00-8000 rw-p 00001000 08:1f 42                        /a b (deleted)": {
			start: 0x7f00, end: 0x8000, offset: 0x1000, permissions: "rw-p", device: "8:31", inode: 42, path: "/a b (deleted)",
		},
		"7f00-8000 ---p 00000000 00:00 0 ": {start: 0x7f00, end: 0x8000, permissions: "---p", device: "0:0"},
	} {
		got, err := parseArea(line)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
	for _, line := range []string{"", "x", "zz-1 rw-p 0 0:0 0", "1-2 rw-p 0 00 0"} {
		if got, err := parseArea(line); err == nil {
			t.Errorf("%q is read as %+v", line, got)
		}
	}
}

func TestTextIsReadFromAnonymousMemoryAlone(t *testing.T) {
	anonymous, file := area{start: 100, end: 200}, area{start: 200, end: 300, inode: 5}
	next := area{start: 200, end: 300}
	tests := map[string]struct {
		from, to uint64
		areas    []area
		want     bool
	}{
		"inside":                   {110, 190, []area{anonymous}, true},
		"empty":                    {0, 0, nil, true},
		"reaches into a file":      {110, 210, []area{anonymous, file}, false},
		"in a file":                {210, 220, []area{anonymous, file}, false},
		"over two mappings":        {110, 290, []area{anonymous, next}, true},
		"beyond what is mapped":    {110, 310, []area{anonymous, next}, false},
		"before what is mapped":    {90, 120, []area{anonymous}, false},
		"a hole between mappings":  {110, 290, []area{anonymous, {start: 210, end: 300}}, false},
		"nothing is mapped at all": {110, 120, nil, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := covered{test.from, test.to}
			for _, a := range test.areas {
				c.add(a)
			}
			if c.whole() != test.want {
				t.Errorf("whole = %v", c.whole())
			}
		})
	}
}

func TestMountsBehindOthersAreFlagged(t *testing.T) {
	lines := []string{
		`1 0 0:1 / / rw - overlay overlay rw,lowerdir=/a\040b`,
		`2 1 0:2 / /proc rw - proc proc rw`,
		`3 1 0:3 / /data/deep rw master:1 - ext4 /dev/sda rw`,
		`4 1 0:4 / /data rw - tmpfs over rw`,
		`5 2 0:5 / /proc rw - tmpfs on rw`,
		`6 3 0:6 / /data/deep/er rw - tmpfs below rw`,
		`7 1 0:7 / /database rw - tmpfs beside rw`,
		`8 4 0:8 / /data/deep rw - tmpfs in rw`,
	}
	var list []evidence.VolatileMount
	for _, line := range lines {
		mount, err := parseMount(line)
		must(t, err)
		list = append(list, mount)
	}
	flagCovered(list)
	got := map[int]int{}
	for _, mount := range list {
		got[mount.ID] = mount.CoveredBy
	}
	want := map[int]int{1: 0, 2: 5, 3: 4, 4: 0, 5: 0, 6: 4, 7: 0, 8: 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if list[0].SuperOptions != "rw,lowerdir=/a b" || list[2].Propagation != "master:1" {
		t.Errorf("mounts %+v", list)
	}
	for _, line := range []string{"", "1 2 3", "a b 0:1 / / rw - x y z", "1 0 0:1 / / rw - x"} {
		if mount, err := parseMount(line); err == nil {
			t.Errorf("%q is read as %+v", line, mount)
		}
	}
}

// TestMountsBehindOthersAreFlaggedAsTheirWaysSay compares with what walking each way gives.
func TestMountsBehindOthersAreFlaggedAsTheirWaysSay(t *testing.T) {
	source := rand.New(rand.NewPCG(1, 2))
	points := []string{"/", "/a", "/a/b", "/a/b/c", "/a-b", "/a.b/c", "/ab", "/ab/c"}
	for range 2_000 {
		var list []evidence.VolatileMount
		for id := 1; id <= 8; id++ {
			point := evidence.Text(points[source.IntN(len(points))])
			list = append(list, evidence.VolatileMount{ID: id, Parent: source.IntN(id + 1), Point: point})
		}
		flagCovered(list)
		for _, mount := range list {
			if want := walked(list, mount); mount.CoveredBy != want {
				t.Fatalf("mount %d is behind %d, want %d: %+v", mount.ID, mount.CoveredBy, want, list)
			}
		}
	}
}

// walked is the mount that a mount is behind, found by going every way step by step.
func walked(list []evidence.VolatileMount, mount evidence.VolatileMount) int {
	last := func(parent int, point string) int {
		found := 0
		for _, other := range list {
			if other.Parent == parent && string(other.Point) == point {
				found = other.ID
			}
		}
		return found
	}
	if on := last(mount.ID, string(mount.Point)); on != 0 && on != mount.ID {
		return on
	}
	for range list {
		for point := string(mount.Point); point != "/"; {
			point = path.Dir(point)
			if id := last(mount.Parent, point); id != 0 {
				return id
			}
		}
		if mount.Parent == 0 {
			return 0
		}
		mount = list[mount.Parent-1]
	}
	return 0
}

// TestManyDeepMountsAreFlagged would take hours if each way was walked.
func TestManyDeepMountsAreFlagged(t *testing.T) {
	deep := evidence.Text(strings.Repeat("/d", maxLine/2))
	var list []evidence.VolatileMount
	for id := 1; id <= 5_000; id++ {
		list = append(list, evidence.VolatileMount{ID: id, Parent: id - 1, Point: deep})
	}
	flagCovered(list)
	for _, mount := range list[:len(list)-1] {
		if mount.CoveredBy != mount.ID+1 {
			t.Fatalf("mount %d is behind %d", mount.ID, mount.CoveredBy)
		}
	}
}

func TestAddressesOfSocketsAreRead(t *testing.T) {
	for text, want := range map[string]string{
		"0100007F:0016":                         "127.0.0.1:22",
		"00000000000000000000000001000000:1F90": "[::1]:8080",
		"B80D0120000000000000000001000000:0000": "[2001:db8::1]:0",
	} {
		if got, err := parseAddress(text); err != nil || got != want {
			t.Errorf("%s = %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0100007F", "0100007F:", "zz00007F:0016", "01:0016"} {
		if got, err := parseAddress(text); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}

func TestRegistersArePutWhereTheArchitectureHasThem(t *testing.T) {
	call := "35 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffc00 0x401000"
	for name, want := range map[string]map[int]uint64{
		"amd64": {15: 35, 14: 1, 13: 2, 12: 3, 7: 4, 9: 5, 8: 6, 19: 0x7ffc00, 16: 0x401000},
		"arm64": {8: 35, 0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 31: 0x7ffc00, 32: 0x401000},
	} {
		got, err := architectureOf(name).place(call)
		if !errors.Is(err, errPartial) {
			t.Error(err)
		}
		for i, value := range got {
			if value != want[i] {
				t.Errorf("%s register %d = %#x, want %#x", name, i, value, want[i])
			}
		}
	}
	outside, err := architectureOf("amd64").place("-1 0x7ffc00 0x401000")
	if !errors.Is(err, errPartial) || outside[15] != ^uint64(0) || outside[19] != 0x7ffc00 || outside[16] != 0x401000 {
		t.Errorf("outside of a call %x, %v", outside, err)
	}
	if _, err := here().place("running"); !errors.Is(err, errRunning) {
		t.Error(err)
	}
}

func TestTheKernelIsNotWaitedForLongerThanPatience(t *testing.T) {
	limits := Limits{Patience: 20 * time.Millisecond}.withDefaults()
	g := newGuard(limits)
	pair := make([]int, 2)
	must(t, unix.Pipe2(pair, unix.O_CLOEXEC))
	on := share(pair[0])
	read := func(*findings) (*shared, error) {
		_, err := unix.Read(pair[0], make([]byte, 1))
		return share(pair[0]), err
	}
	for range maxAbandoned {
		if _, _, err := watched(t.Context(), g, on, limits.Patience, read); !errors.Is(err, errBlocked) {
			t.Fatal(err)
		}
	}
	began := false
	_, _, err := watched(t.Context(), g, on, limits.Patience, func(*findings) (int, error) { began = true; return 0, nil })
	if !errors.Is(err, errBlocked) || began {
		t.Errorf("work began after %d were abandoned: %v", maxAbandoned, err)
	}
	on.release() // the abandoned hold it still
	if users := on.users.Load(); users != maxAbandoned {
		t.Errorf("%d users of the descriptor", users)
	}
	must(t, unix.Close(pair[1]))
	for range 6000 { // 30 s at least
		if on.users.Load() == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("abandoned goroutines do not end when the kernel answers")
}

func TestWatchedWorkEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := newGuard(Limits{}.withDefaults())
	stop := make(chan struct{})
	defer close(stop)
	null, err := os.Open("/dev/null")
	must(t, err)
	on := share(int(null.Fd()))
	on.hold() // the file closes itself
	_, _, err = watched(ctx, g, on, time.Hour, func(*findings) (int, error) {
		cancel()
		<-stop
		return 0, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	must(t, null.Close())
}
