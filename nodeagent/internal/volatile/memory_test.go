package volatile

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/testneeds"
)

// dumped is a core file on disk.
type dumped struct {
	MemoryResult
	path string
	gaps []evidence.GapLine
}

func dumpMemory(t *testing.T, process Process, options Options) dumped {
	t.Helper()
	var gaps bytes.Buffer
	options.Gaps = &gaps
	d := dumped{path: filepath.Join(t.TempDir(), "core")}
	file, err := os.Create(d.path)
	must(t, err)
	d.MemoryResult, err = Memory(t.Context(), file, process, options)
	must(t, err)
	must(t, file.Close())
	for line := range bytes.Lines(gaps.Bytes()) {
		var gap evidence.GapLine
		must(t, json.Unmarshal(line, &gap))
		d.gaps = append(d.gaps, gap)
	}
	info, err := os.Stat(d.path)
	must(t, err)
	if info.Size() != d.Size || (d.Size > 0 && fileDigest(t, d.path) != d.SHA256) {
		t.Errorf("the file has %d bytes, the result is %+v", info.Size(), d.MemoryResult)
	}
	return d
}

func (d dumped) reasons() map[string]int {
	reasons := map[string]int{}
	for _, gap := range d.gaps {
		reasons[gap.Reason]++
	}
	return reasons
}

// at reads a core file's memory at an address; nil when it is not there.
func at(t *testing.T, core *elf.File, address uint64, length int) []byte {
	t.Helper()
	for _, segment := range core.Progs {
		if segment.Type != elf.PT_LOAD || address < segment.Vaddr || address >= segment.Vaddr+segment.Filesz {
			continue
		}
		data := make([]byte, length)
		_, err := segment.ReadAt(data, int64(address-segment.Vaddr))
		must(t, err)
		return data
	}
	return nil
}

func openCore(t *testing.T, path string) *elf.File {
	t.Helper()
	core, err := elf.Open(path)
	must(t, err)
	t.Cleanup(func() { must(t, core.Close()) })
	if core.Type != elf.ET_CORE || core.Machine != here().machine {
		t.Errorf("header %+v", core.FileHeader)
	}
	return core
}

func TestMemoryHoldsASecretAtItsAddress(t *testing.T) {
	ways := map[string]func(*testing.T, actor){
		"running": func(*testing.T, actor) {},
		"stopped": pause,
	}
	if os.Geteuid() == 0 {
		for root, how := range freezers(t) {
			ways[root] = func(t *testing.T, a actor) { freeze(t, a, root, how) }
		}
	}
	for name, stop := range ways {
		t.Run(name, func(t *testing.T) {
			a := start(t, "secret", nil)
			stop(t, a)
			d := dumpMemory(t, a.process(), Options{})
			core := openCore(t, d.path)
			want := secret()
			if got := at(t, core, a.Address+secretPage<<12, len(want)); !bytes.Equal(got, want) {
				t.Errorf("at the secret's address lies %q", got)
			}
			// A page that was never touched, and one that was only read, are not there.
			for _, page := range []uint64{1, 10} {
				if got := at(t, core, a.Address+page<<12, 1); got != nil {
					t.Errorf("page %d is there: %q", page, got)
				}
			}
			for _, segment := range core.Progs {
				if segment.Type == elf.PT_LOAD && (segment.Off-segment.Vaddr)%uint64(pageSize()) != 0 {
					t.Errorf("segment %+v is not aligned", segment.ProgHeader)
				}
			}
			if d.Stored != d.Present || d.Stored == 0 || d.Truncated || d.Threads < 2 {
				t.Errorf("result %+v", d.MemoryResult)
			}
			for reason := range d.reasons() {
				if reason != evidence.GapRegistersNotRead && name != "running" {
					t.Errorf("gaps %+v", d.gaps)
				}
			}
		})
	}
}

func TestMemoryIsReadByDebuggers(t *testing.T) {
	a := start(t, "secret", nil)
	pause(t, a)
	d := dumpMemory(t, a.process(), Options{})
	output := tool(t, "readelf", "-W", "-h", "-l", "-n", d.path)
	for _, want := range []string{"CORE (Core file)", "NT_PRSTATUS", "NT_PRPSINFO", "NT_AUXV", "NT_FILE", "UGALLU"} {
		if !strings.Contains(output, want) {
			t.Errorf("readelf does not show %q:\n%.3000s", want, output)
		}
	}
	if regexp.MustCompile(`(?i)warning|error`).MatchString(output) {
		t.Errorf("readelf complains:\n%.3000s", output)
	}
	address := a.Address + secretPage<<12
	output = tool(t, "gdb", "-nx", "-batch", "-ex", fmt.Sprintf("x/s %#x", address), "-ex", "info threads", "-ex", "p $pc",
		"-ex", "info proc mappings", "-c", d.path)
	if !strings.Contains(output, string(secret())) || !strings.Contains(output, "volatile.test") {
		t.Errorf("gdb does not show the secret and the program's name:\n%s", output)
	}
	if threads := strings.Count(output, "LWP "); threads < d.Threads || !strings.Contains(output, fmt.Sprintf("LWP %d", a.Process.Pid)) {
		t.Errorf("gdb shows %d threads of %d:\n%s", threads, d.Threads, output)
	}
	if strings.Contains(output, "$1 = (void (*)()) 0x0\n") {
		t.Errorf("gdb has no program counter:\n%s", output)
	}
}

func tool(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	testneeds.That(t, err == nil, "this machine has no "+name)
	output, err := exec.Command(path, arguments...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, output)
	}
	return string(output)
}

func TestMemoryAboveTheLimitIsTruncatedAndMarked(t *testing.T) {
	a := start(t, "secret", nil)
	pause(t, a)
	limit := 40 * pageSize()
	d := dumpMemory(t, a.process(), Options{Limits: Limits{Memory: limit}})
	if d.Stored != limit || d.Present <= limit || !d.Truncated || d.reasons()[GapLimit] != 1 {
		t.Errorf("result %+v, gaps %+v", d.MemoryResult, d.gaps)
	}
	core := openCore(t, d.path)
	loaded := uint64(0)
	var capture evidence.VolatileCapture
	for _, segment := range core.Progs {
		if segment.Type == elf.PT_LOAD {
			loaded += segment.Filesz
			continue
		}
		notes := make([]byte, segment.Filesz)
		_, err := segment.ReadAt(notes, 0)
		must(t, err)
		_, after, _ := bytes.Cut(notes, []byte("UGALLU\x00\x00"))
		must(t, json.Unmarshal(bytes.TrimRight(after, "\x00"), &capture))
	}
	want := evidence.VolatileCapture{
		Version: "v1", PID: a.Process.Pid, StartTicks: startTicks(t, a.Process.Pid), ContainerID: "c1", Present: d.Present,
		Stored: limit, Truncated: true, Registers: capture.Registers,
	}
	if capture != want || loaded != uint64(limit) {
		t.Errorf("%d bytes are loaded, the note is %+v", loaded, capture)
	}
	// The secret's mapping is small: it goes before the large ones.
	if got := at(t, core, a.Address+secretPage<<12, len(secret())); !bytes.Equal(got, secret()) {
		t.Errorf("at the secret's address lies %q", got)
	}
}

func TestMemoryOfManyRunsHasItsCountWhereReadersLook(t *testing.T) {
	a := start(t, "fragments 70000", nil)
	pause(t, a)
	d := dumpMemory(t, a.process(), Options{})
	if d.Runs < 70000 || d.Truncated {
		t.Fatalf("result %+v", d.MemoryResult)
	}
	output := tool(t, "readelf", "-W", "-l", d.path)
	if !strings.Contains(output, fmt.Sprintf("There are %d program headers", d.Runs+1)) {
		t.Errorf("readelf does not see %d program headers:\n%.500s", d.Runs+1, output)
	}
	if last := fmt.Sprintf("0x%016x", a.Address+2*69999<<12); !strings.Contains(output, last) {
		t.Errorf("readelf does not show the run at %s", last)
	}
	output = tool(t, "gdb", "-nx", "-batch", "-ex", fmt.Sprintf("x/c %#x", a.Address+2*69999<<12), "-c", d.path)
	if !strings.Contains(output, "120 'x'") {
		t.Errorf("gdb does not show the last run:\n%s", output)
	}
	d = dumpMemory(t, a.process(), Options{Limits: Limits{Runs: 100}})
	if d.Runs > 100 || !d.Truncated || d.reasons()[GapLimit] == 0 {
		t.Errorf("result %+v, gaps %+v", d.MemoryResult, d.gaps)
	}
}

func TestWalkingFindsWhatScanningFinds(t *testing.T) {
	a := start(t, "fragments 300", nil)
	pause(t, a)
	limits := Limits{}.withDefaults()
	h, err := open(a.process(), limits.Patience)
	must(t, err)
	defer h.release()
	m := &memoryReader{handle: h, options: Options{Limits: limits}, guard: newGuard(limits), gaps: newGapLog(Options{})}
	memory, pagemap, err := m.openMemory()
	must(t, err)
	defer memory.release()
	defer pagemap.release()
	fragments := area{start: a.Address, end: a.Address + 600<<12}
	scanned, err := m.scan(t.Context(), pagemap, fragments, 1000)
	must(t, err)
	walked, err := m.walk(t.Context(), pagemap, fragments, 1000)
	must(t, err)
	if len(scanned.runs) != 300 || fmt.Sprint(scanned) != fmt.Sprint(walked) {
		t.Errorf("%d runs scanned, %d walked", len(scanned.runs), len(walked.runs))
	}
}

func TestMemoryThatGoesAwayIsZerosAndAGap(t *testing.T) {
	a := start(t, "secret", nil)
	limits := Limits{}.withDefaults()
	h, err := open(a.process(), limits.Patience)
	must(t, err)
	defer h.release()
	m := &memoryReader{handle: h, options: Options{Limits: limits}, guard: newGuard(limits), gaps: newGapLog(Options{})}
	memory, pagemap, err := m.openMemory()
	must(t, err)
	defer memory.release()
	pagemap.release()
	// 16 pages that hold the secret among them, and 4 that are mapped by nobody.
	var out bytes.Buffer
	must(t, m.copyRun(t.Context(), &out, memory, loadRun{extent: extent{int64(a.Address), 16 << 12}}))
	if !bytes.Contains(out.Bytes(), secret()) || out.Len() != 16<<12 || len(m.gaps.Gaps()) != 0 {
		t.Errorf("%d bytes, gaps %+v", out.Len(), m.gaps.Gaps())
	}
	out.Reset()
	must(t, m.copyRun(t.Context(), &out, memory, loadRun{extent: extent{4096, 4 << 12}}))
	if gaps := m.gaps.Gaps(); len(gaps) != 1 || gaps[0].Reason != GapReadError || gaps[0].Count != 4 || out.Len() != 4<<12 {
		t.Errorf("%d bytes, gaps %+v", out.Len(), gaps)
	}
	must(t, a.Process.Kill())
	_ = a.Wait()
	out.Reset()
	must(t, m.copyRun(t.Context(), &out, memory, loadRun{extent: extent{int64(a.Address), 16 << 12}}))
	if gaps := m.gaps.Gaps(); len(gaps) != 2 || gaps[0].Reason != GapEnded || gaps[0].Count != 16 || out.Len() != 16<<12 {
		t.Errorf("%d bytes, gaps %+v", out.Len(), gaps)
	}
	d := dumpMemory(t, a.process(), Options{})
	if d.Size != 0 || d.reasons()[GapEnded] != 1 {
		t.Errorf("result %+v, gaps %+v", d.MemoryResult, d.gaps)
	}
}
