package evidence_test

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
)

// addSome adds three gaps of two reasons, one of a path that is no text.
func addSome(log *evidence.GapLog) error {
	return errors.Join(
		log.Add(evidence.GapLine{Path: "b", Reason: "Unreadable", Message: "denied", Entry: &evidence.Entry{Path: "b", Type: evidence.EntryFile}}, 1),
		log.Add(evidence.GapLine{Path: "a\xff", Reason: "Unreadable", Message: "denied, too"}, 1),
		log.Add(evidence.GapLine{Path: "mem", Reason: "PageSwappedOut", Message: "pages"}, 16),
	)
}

func TestGapLogCountsByReasonAndWritesEachLine(t *testing.T) {
	want := []evidence.Gap{
		{Reason: "PageSwappedOut", Message: `first at "mem": pages`, Count: 16},
		{Reason: "Unreadable", Message: `first at "b": denied`, Count: 2},
	}
	const lines = `{"artifact":"rootfs","path":"b","reason":"Unreadable","message":"denied","entry":{"path":"b","type":"file","mode":0,"uid":0,"gid":0,"inode":"0","links":0,"size":"0"}}
{"artifact":"rootfs","path":"a\ufffd","pathBytes":"Yf8=","reason":"Unreadable","message":"denied, too"}
{"artifact":"rootfs","path":"mem","reason":"PageSwappedOut","message":"pages"}
`
	var out bytes.Buffer
	written, silent := evidence.NewGapLog("rootfs", &out), evidence.NewGapLog("rootfs", nil)
	for name, log := range map[string]*evidence.GapLog{"with lines": written, "without": silent} {
		if err := addSome(log); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, log.Gaps()); diff != "" {
			t.Errorf("%s: counts (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(lines, out.String()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestGapWhoseLineIsNotWrittenIsCounted has the caller told of it as well.
func TestGapWhoseLineIsNotWrittenIsCounted(t *testing.T) {
	log := evidence.NewGapLog("rootfs", full{})
	if err := log.Add(evidence.GapLine{Path: "a", Reason: "Unreadable", Message: "denied"}, 1); !errors.Is(err, errFull) {
		t.Errorf("error %v", err)
	}
	if gaps := log.Gaps(); len(gaps) != 1 || gaps[0].Count != 1 {
		t.Errorf("gaps %+v", gaps)
	}
}

func TestTypeOfModeIsWhatTheKernelMeans(t *testing.T) {
	tests := map[uint16]evidence.EntryType{
		syscall.S_IFREG: evidence.EntryFile, syscall.S_IFDIR: evidence.EntryDirectory, syscall.S_IFLNK: evidence.EntrySymlink,
		syscall.S_IFCHR: evidence.EntryCharacter, syscall.S_IFBLK: evidence.EntryBlock, syscall.S_IFIFO: evidence.EntryFIFO,
		syscall.S_IFSOCK: evidence.EntrySocket, 0: evidence.EntryUnknown, syscall.S_IFMT: evidence.EntryUnknown,
	}
	for mode, want := range tests {
		for _, permissions := range []uint16{0, 0o7777} {
			if got := evidence.TypeOfMode(mode | permissions); got != want {
				t.Errorf("mode %o is %s, want %s", mode|permissions, got, want)
			}
		}
	}
}
