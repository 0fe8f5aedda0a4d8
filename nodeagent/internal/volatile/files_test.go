package volatile

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/testneeds"
)

// filesOf are the index and the members of an archive.
type filesOf struct {
	result  FilesResult
	bytes   []byte
	index   map[string]evidence.VolatileFile // by path
	members map[string][]byte
	gaps    []evidence.GapLine
}

func writeFiles(t *testing.T, target Target, options Options) filesOf {
	t.Helper()
	var out, gaps bytes.Buffer
	options.Gaps = &gaps
	if options.NodeMounts == "" {
		options.NodeMounts = "/proc/self/mountinfo"
	}
	result, err := WriteFiles(t.Context(), &out, target, options)
	must(t, err)
	f := filesOf{result: result, bytes: out.Bytes(), index: map[string]evidence.VolatileFile{}, members: map[string][]byte{}}
	if result.Size != int64(out.Len()) || result.SHA256 != evidence.Digest(out.Bytes()) {
		t.Errorf("result %+v of %d bytes", result, out.Len())
	}
	archive := tar.NewReader(&out)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if header.Uname != "" || header.Gname != "" {
			t.Errorf("%s has names of owners", header.Name)
		}
		f.members[header.Name], err = io.ReadAll(archive)
		must(t, err)
	}
	for line := range bytes.Lines(f.members["index.ndjson"]) {
		var file evidence.VolatileFile
		must(t, json.Unmarshal(line, &file))
		f.index[string(file.Path)] = file
	}
	for line := range bytes.Lines(gaps.Bytes()) {
		var gap evidence.GapLine
		must(t, json.Unmarshal(line, &gap))
		f.gaps = append(f.gaps, gap)
	}
	return f
}

// content of a file that is one member.
func (f filesOf) content(t *testing.T, path string) []byte {
	t.Helper()
	file, ok := f.index[path]
	if !ok || len(file.Runs) != 1 {
		t.Fatalf("%s: %+v of %+v", path, file, f.index)
	}
	content := f.members[file.Runs[0].Member]
	if file.Runs[0].SHA256 != evidence.Digest(content) || file.Runs[0].Length != int64(len(content)) {
		t.Errorf("%s: %+v, %d bytes", path, file.Runs[0], len(content))
	}
	return content
}

func TestFilesHoldsADeletedExecutableOfSeveralProcessesOnce(t *testing.T) {
	program := copyOfMe(t)
	run := func(command *exec.Cmd) { command.Path = program }
	a, b := start(t, "wait", run), start(t, "wait", run)
	original := fileDigest(t, program)
	must(t, os.Remove(program))
	target := targetOf(a.Process.Pid, b.Process.Pid)
	f := writeFiles(t, target, Options{})
	path := program + " (deleted)"
	if evidence.Digest(f.content(t, path)) != original {
		t.Error("the content is not that of the executable")
	}
	// The executable is mapped as well.
	sources := map[int]string{}
	for _, source := range f.index[path].Sources {
		sources[source.PID] += strings.Split(source.Link, "/")[0] + " "
	}
	for _, pid := range []int{a.Process.Pid, b.Process.Pid} {
		if !strings.Contains(sources[pid], "task") || !strings.Contains(sources[pid], "map_files") {
			t.Errorf("sources %v", sources)
		}
	}
	if len(f.index) != 1 || f.result.Files != 1 || len(f.gaps) != 0 || f.result.Truncated {
		t.Errorf("index %+v, result %+v, gaps %+v", f.index, f.result, f.gaps)
	}
	executable := collect(t, target, Options{}).processes[b.Process.Pid].Executable
	if !executable.Deleted || executable.SHA256 != original || executable.Links != 0 {
		t.Errorf("executable %+v", executable)
	}
}

func TestFilesHoldsWhatNoNameLeadsTo(t *testing.T) {
	folder := t.TempDir()
	open, mapped := start(t, "descriptors "+folder+" 1", nil), start(t, "files", nil)
	target := targetOf(open.Process.Pid, mapped.Process.Pid)
	f := writeFiles(t, target, Options{})
	for path, want := range map[string]string{
		folder + "/gone (deleted)": "deleted but open", "/memfd:planted (deleted)": "", "/memfd:mapped (deleted)": "only mapped",
		"/dev/zero (deleted)": "shared anonymous" + strings.Repeat("\x00", 8192-16),
	} {
		if got := string(f.content(t, path)); got != want {
			t.Errorf("%s holds %q", path, got)
		}
	}
	sparse := f.index["/memfd:sparse (deleted)"]
	if len(sparse.Runs) != 1 || sparse.Runs[0].Offset != sparseOffset || sparse.Size != sparseOffset+15 || sparse.Truncated {
		t.Fatalf("sparse file %+v", sparse)
	}
	if got := f.members[sparse.Runs[0].Member]; string(got) != "behind the hole" {
		t.Errorf("the run holds %q", got)
	}
	if len(f.index) != 5 || len(f.gaps) != 0 {
		t.Errorf("index %+v, gaps %+v", f.index, f.gaps)
	}
	if again := writeFiles(t, target, Options{}); !bytes.Equal(again.bytes, f.bytes) {
		t.Error("the same files give other bytes")
	}
}

func TestFilesAreHeldWhenTheirProcessIsKilled(t *testing.T) {
	a := start(t, "files", nil)
	var got bytes.Buffer
	options := Options{NodeMounts: "/proc/self/mountinfo"}
	result, err := Files(t.Context(), a.target(), options, func(file *File) error {
		if a.ProcessState == nil {
			must(t, a.Process.Kill())
			_ = a.Wait()
		}
		if file.Path != "/memfd:mapped (deleted)" {
			return nil
		}
		return file.CopyRun(&got, 0)
	})
	must(t, err)
	if got.String() != "only mapped" || len(result.Gaps) != 0 || result.Files != 3 {
		t.Errorf("content %q, result %+v", got.String(), result)
	}
}

func TestFilesNamesWhatALimitLeavesOut(t *testing.T) {
	folder := t.TempDir()
	a := start(t, "descriptors "+folder+" 1", nil)
	f := writeFiles(t, a.target(), Options{Limits: Limits{File: 7}})
	if got := string(f.content(t, folder+"/gone (deleted)")); got != "deleted" || !f.index[folder+"/gone (deleted)"].Truncated {
		t.Errorf("content %q", got)
	}
	if len(f.gaps) != 1 || f.gaps[0].Reason != GapLimit || !f.result.Truncated {
		t.Errorf("gaps %+v", f.gaps)
	}
	f = writeFiles(t, a.target(), Options{Limits: Limits{Files: 1}})
	if len(f.index) != 1 || len(f.gaps) != 1 || f.gaps[0].Reason != GapLimit {
		t.Errorf("index %+v, gaps %+v", f.index, f.gaps)
	}
	f = writeFiles(t, a.target(), Options{Limits: Limits{FileTotal: 16}})
	if len(f.gaps) != 0 {
		t.Errorf("gaps %+v", f.gaps)
	}
}

func TestFilesOfAnEndedProcessAreAGap(t *testing.T) {
	a := start(t, "wait", nil)
	must(t, a.Process.Kill())
	_ = a.Wait()
	f := writeFiles(t, a.target(), Options{})
	want := []evidence.Gap{{Reason: GapEnded, Message: f.result.Gaps[0].Message, Count: 1}}
	if diff := cmp.Diff(want, f.result.Gaps); diff != "" {
		t.Error(diff)
	}
}

func TestFilesAreReadWhereTheMainThreadHasEnded(t *testing.T) {
	testneeds.That(t, os.Geteuid() == 0, "reading other processes needs root")
	command := deadLeader(t)
	f := writeFiles(t, targetOf(command.Process.Pid), Options{})
	if got := string(f.content(t, "/memfd:of the living (deleted)")); got != "still here" {
		t.Errorf("content %q", got)
	}
	if len(f.gaps) != 1 || f.gaps[0].Reason != GapUnreadable || !strings.Contains(f.gaps[0].Message, "main thread") {
		t.Errorf("gaps %+v", f.gaps)
	}
}
