package volatile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
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
	if len(found) != 1 || found[0].reason != GapLimit || !strings.Contains(found[0].cause.Error(), "descriptors is cut") ||
		strings.Count(found[0].cause.Error(), ", ") != maxNamed+1 || !strings.HasSuffix(found[0].cause.Error(), fmt.Sprintf(" and %d more", d.cut.total-maxNamed)) {
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

func TestArgumentsEndWithTheFirstThatIsCut(t *testing.T) {
	// What takes all the room but so much, with its quotes and comma.
	allBut := func(room int) string { return strings.Repeat("a", maxEncoded-len(`[]`)-len(`"",`)-room) }
	long := strings.Repeat("b", maxEncoded-len(`["first","",]`))
	for name, test := range map[string]struct {
		content string
		want    []evidence.Text
		message string
	}{
		"nothing":       {"", nil, ""},
		"whole":         {"first\x00\x00last\x00", []evidence.Text{"first", "", "last"}, ""},
		"cut":           {"first\x00" + strings.Repeat("b", maxEncoded) + "\x00c\x00d\x00", []evidence.Text{"first", evidence.Text(long)}, "argument 1 is cut, 2 more of those read are left out"},
		"no room":       {allBut(2) + "\x00\x00c\x00", []evidence.Text{evidence.Text(allBut(2))}, "2 of the arguments read are left out"},
		"room for none": {allBut(3) + "\x00bb\x00\x00d\x00", []evidence.Text{evidence.Text(allBut(3))}, "3 of the arguments read are left out"},
		"room for ends": {allBut(3) + "\x00\x00c\x00", []evidence.Text{evidence.Text(allBut(3)), ""}, "1 of the arguments read are left out"},
		"room for one":  {allBut(4) + "\x00bb\x00c\x00", []evidence.Text{evidence.Text(allBut(4)), "b"}, "argument 1 is cut, 1 more of those read are left out"},
	} {
		t.Run(name, func(t *testing.T) {
			argv, err := splitArguments(test.content)
			if !slices.Equal(argv, test.want) {
				t.Errorf("%d arguments, want %d", len(argv), len(test.want))
			}
			if test.message == "" {
				must(t, err)
			} else if err == nil || err.Error() != test.message+": "+errEncoded.Error() {
				t.Errorf("said is %v", err)
			}
		})
	}
}

func TestOfALongVariableTheValueIsLeftOut(t *testing.T) {
	long := strings.Repeat("\x01", maxEncoded/4)
	content := "A=first\x00B=" + long + "\x00" + long + "=\x00C=last\x00"
	variables, err := splitEnvironment(content, Options{})
	if len(variables) != 3 || variables[0].Name != "A" || variables[2].Name != "C" || *variables[2].Value != "last" {
		t.Errorf("%d variables", len(variables))
	}
	if b := variables[1]; b.Name != "B" || b.Value != nil || b.Redacted || b.SHA256 != evidence.Digest([]byte(long)) {
		t.Errorf("of a long value is kept %+v", b)
	}
	if err == nil || err.Error() != "of the entries read 1 are left out, and the values of 1 others: "+errEncoded.Error() {
		t.Errorf("said is %v", err)
	}
}

func TestAValueThatIsRedactedTakesNoRoom(t *testing.T) {
	value := strings.Repeat("v", maxEncoded/2)
	content := strings.Repeat("A="+value+"\x00", 5)
	variables, err := splitEnvironment(content, Options{RedactEnvironment: RedactAll})
	must(t, err)
	want := evidence.VolatileVariable{Name: "A", SHA256: evidence.Digest([]byte(value)), Redacted: true}
	if !slices.Equal(variables, slices.Repeat([]evidence.VolatileVariable{want}, 5)) {
		t.Errorf("variables %+v", variables)
	}
}

func TestTheFirstThatWereCutAreNamed(t *testing.T) {
	var c cuts
	for i := range maxNamed {
		c.add(strconv.Itoa(i))
	}
	all := "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19"
	if c.String() != all {
		t.Error(c.String())
	}
	c.add("20")
	c.add("21")
	if c.String() != all+" and 2 more" || len(c.first) != maxNamed {
		t.Error(c.String())
	}
}

func TestADescriptorOfAThreadIsNamedWhereItIsCut(t *testing.T) {
	var d descriptors
	for _, thread := range []int{0, 70} {
		d.shorten(&evidence.VolatileDescriptor{Number: 5, Thread: thread, Target: evidence.Text(strings.Repeat("t", minPath))})
	}
	d.shorten(&evidence.VolatileDescriptor{Number: 6, Target: "whole"})
	if d.cut.total != 2 || d.cut.String() != "5, 5 of thread 70" {
		t.Error(d.cut.total, d.cut.String())
	}
}

func TestAMappingIsNamedWhereItsPathIsCut(t *testing.T) {
	stat, err := os.ReadFile("/proc/self/stat")
	must(t, err)
	const rest = " r--p 00000000 08:01 123   /"
	maps := "1000-2000" + rest + "\n2000-3000" + rest + strings.Repeat("p", maxLine) + "\n3000-4000" + rest + "\n"
	var found findings
	m, err := readMaps(withTables(t, map[string]string{"stat": string(stat), "maps": maps}), 10, &found)
	must(t, err)
	want := "the paths of 1 mappings are cut, " + errLong.Error() + ": 2000"
	if len(m.areas) != 3 || len(found) != 1 || found[0].reason != GapLimit || found[0].cause.Error() != want {
		t.Errorf("%d mappings, found %+v", len(m.areas), found)
	}
}

func TestMountsThatAreLeftOutFlagNone(t *testing.T) {
	long := "3 1 98:0 / /" + strings.Repeat("p", maxLine) + " rw - ext4 /dev/root rw\n"
	h := withTables(t, map[string]string{"mountinfo": "2 1 98:0 / / rw - ext4 /dev/root rw\n" + long + long})
	var found findings
	_, err := readMounts(h, 2, &found)
	must(t, err)
	if len(found) != 2 {
		t.Fatalf("found %+v", found)
	}
	for _, gap := range found {
		if gap.reason != GapLimit || !strings.HasSuffix(gap.cause.Error(), ": "+notFlagged) {
			t.Errorf("found %+v", gap)
		}
	}
}

func TestAnArgumentThatTheLimitOfTextCutsIsNamed(t *testing.T) {
	stat, err := os.ReadFile("/proc/self/stat")
	must(t, err)
	h := withTables(t, map[string]string{"stat": string(stat), "cmdline": "first\x00second\x00", "environ": ""})
	limits := Limits{Text: 9}.withDefaults()
	var found findings
	got, err := readText(h, mapping{argsAnonymous: true, environAnonymous: true}, Options{Limits: limits}, &found)
	must(t, err)
	if !slices.Equal(got.argv, []evidence.Text{"first", "sec"}) {
		t.Errorf("arguments %q", got.argv)
	}
	want := "the text ends in or before argument 1: more text, the limit is 9"
	if len(found) != 1 || found[0].reason != GapLimit || found[0].cause.Error() != want {
		t.Errorf("found %+v", found)
	}
}

func TestTheEndOfTextIsNoMoreText(t *testing.T) {
	stat, err := os.ReadFile("/proc/self/stat")
	must(t, err)
	for name, test := range map[string]struct {
		content string
		last    evidence.Text
		// cut is said of the arguments, whole are the variables that are kept.
		cut   string
		whole int
	}{
		"less than the limit":   {"A=first\x00B=", "B=", "", 2},
		"as much as the limit":  {"A=first\x00B=2", "B=2", "", 2},
		"with its end":          {"A=first\x00B=2\x00", "B=2", "", 2},
		"and an end of nothing": {"A=first\x00B=2\x00\x00", "B=2", "in or before argument 2:", 2},
		"one more":              {"A=first\x00B=23", "B=2", "in or before argument 1:", 1},
		"one more with its end": {"A=first\x00B=23\x00", "B=2", "in or before argument 1:", 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := withTables(t, map[string]string{"stat": string(stat), "cmdline": test.content, "environ": test.content})
			var found findings
			got, err := readText(h, mapping{argsAnonymous: true, environAnonymous: true}, Options{Limits: Limits{Text: 11}.withDefaults()}, &found)
			must(t, err)
			if !slices.Equal(got.argv, []evidence.Text{"A=first", test.last}) || len(got.environment) != test.whole {
				t.Errorf("arguments %q, environment %+v", got.argv, got.environment)
			}
			if test.cut == "" {
				if len(found) != 0 {
					t.Errorf("found %+v", found)
				}
			} else if len(found) != 2 || !strings.Contains(found[0].cause.Error(), test.cut) || found[1].part != "environment" {
				t.Errorf("found %+v", found)
			}
		})
	}
}

func TestADetailThatIsLeftOutTakesNoRoom(t *testing.T) {
	d := descriptors{room: 100}
	long := evidence.VolatileDescriptor{Number: 1, Target: "first", Details: []evidence.Text{"short", evidence.Text(strings.Repeat("d", 100))}}
	d.shorten(&long)
	whole := evidence.VolatileDescriptor{Number: 2, Target: "second", Details: []evidence.Text{"short"}}
	d.shorten(&whole)
	if len(long.Details) != 1 || len(whole.Details) != 1 || d.cut.String() != "1" {
		t.Errorf("kept are %+v and %+v, cut %s", long, whole, &d.cut)
	}
}

// allocated is how much memory was ever asked for.
func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}
