package play

import (
	"archive/tar"
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestSearchFindsAFileUnderAnySpellingOfItsName(t *testing.T) {
	for _, name := range []string{"etc/passwd", "./etc/passwd", "/etc/passwd"} {
		entries, content, err := search(packed(t, name, "root"), "etc/passwd")
		if err != nil {
			t.Fatal(err)
		}
		if entries != 1 || string(content) != "root" {
			t.Errorf("%s: %d entries, content %q", name, entries, content)
		}
	}
}

func TestSearchTellsAbsentFromEmpty(t *testing.T) {
	if _, content, err := search(packed(t, "etc/passwd", ""), "etc/passwd"); err != nil || content == nil {
		t.Errorf("an empty file was taken for an absent one (%v)", err)
	}
	if _, content, err := search(packed(t, "etc/group", "x"), "etc/passwd"); err != nil || content != nil {
		t.Errorf("an absent file was found with content %q (%v)", content, err)
	}
}

func TestSearchRefusesACutArchive(t *testing.T) {
	whole := packed(t, "etc/passwd", strings.Repeat("x", 5000))
	if _, _, err := search(bytes.NewReader(whole.Bytes()[:whole.Len()/2]), "etc/passwd"); err == nil {
		t.Error("half an archive was read without an error")
	}
}

func TestPlayEndsWithTheFirstFalseClaim(t *testing.T) {
	var out bytes.Buffer
	shown := screen{out: &out}
	if err := shown.play(act{title: "first", run: func() (string, error) { return "it holds", nil }}); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("it does not hold")
	err := shown.play(act{title: "second", run: func() (string, error) { return "", broken }})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "second") {
		t.Errorf("the error is %v, want one that names the act and its cause", err)
	}
	if err := shown.table(); err != nil || !strings.Contains(out.String(), "it holds") {
		t.Errorf("the table is %q (%v)", out.String(), err)
	}
}

func TestFailedWriteIsReported(t *testing.T) {
	shown := screen{out: closed{}}
	if err := shown.table(); !errors.Is(err, errClosed) {
		t.Errorf("writing to a closed terminal answered %v", err)
	}
}

func TestChecksNameEveryFalseClaim(t *testing.T) {
	var claims checks
	claims.demand(true, "one")
	claims.demand(false, "two")
	claims.demand(false, "three")
	if err := claims.err(); err == nil || err.Error() != "two\nthree" {
		t.Errorf("the error is %v, want two and three", err)
	}
}

func TestStoredNamesTheFolderOfTheIncident(t *testing.T) {
	var p Play
	p.incident.Name = "0123456789abcdef"
	p.incident.Spec.Snapshot.Destination.Bucket = "ugallu-forensics"
	if got, want := p.stored(), "s3://ugallu-forensics/forensics/0123456789abcdef/"; got != want {
		t.Errorf("the evidence is in %s, want %s", got, want)
	}
}

var errClosed = errors.New("closed")

type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, errClosed }

func packed(t *testing.T, name, content string) *bytes.Buffer {
	t.Helper()
	out := &bytes.Buffer{}
	compressed, err := zstd.NewWriter(out)
	if err != nil {
		t.Fatal(err)
	}
	writer := tar.NewWriter(compressed)
	header := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}
	if err := writer.WriteHeader(header); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(writer.Close(), compressed.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}
