package tree_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/integration/internal/tree"
)

func TestArchiveAndFolderOfTheSameTreeAreEqual(t *testing.T) {
	root := t.TempDir()
	stamp := time.Unix(1700000000, 123456789)
	write(t, filepath.Join(root, "file"), "content")
	if err := os.Link(filepath.Join(root, "file"), filepath.Join(root, "again")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(root, "link\xff")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "."} {
		if err := os.Chtimes(filepath.Join(root, name), stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	live, err := tree.Walk(root)
	if err != nil {
		t.Fatal(err)
	}
	archived, err := tree.FromArchive(archive(t, live, stamp))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(live, archived); diff != "" {
		t.Errorf("the archive differs from the folder (-folder +archive):\n%s", diff)
	}
	if got := archived["file"].LinkedWith; got != "again" {
		t.Errorf("file is linked with %q, want again", got)
	}
}

func TestTreeSurvivesItsOwnEncoding(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a\nb\xfe"), "x")
	live, err := tree.Walk(root)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	if err := live.Write(&lines); err != nil {
		t.Fatal(err)
	}
	read, err := tree.Read(&lines)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(live, read); diff != "" {
		t.Errorf("what was read differs from what was written (-written +read):\n%s", diff)
	}
}

func TestArchiveWithARepeatedNameIsRefused(t *testing.T) {
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for range 2 {
		if err := writer.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tree.FromArchive(&out); err == nil {
		t.Error("an archive that holds a name twice was accepted")
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// archive writes the four known entries by hand, from what the folder says of owners and of the link's time.
func archive(t *testing.T, live tree.Tree, stamp time.Time) *bytes.Buffer {
	t.Helper()
	owner := live["."]
	link := live[`link\xff`]
	headers := []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: int64(owner.Mode), ModTime: stamp},
		{Name: "./again", Typeflag: tar.TypeReg, Mode: 0o600, Size: 7, ModTime: stamp},
		{Name: "./file", Typeflag: tar.TypeLink, Linkname: "./again"},
		{Name: "./link\xff", Typeflag: tar.TypeSymlink, Linkname: "file", Mode: 0o777, ModTime: time.Unix(0, link.MtimeNanos)},
	}
	out := &bytes.Buffer{}
	writer := tar.NewWriter(out)
	for _, header := range headers {
		header.Uid, header.Gid, header.Format = owner.UID, owner.GID, tar.FormatPAX
		if err := writer.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if header.Size > 0 {
			if _, err := writer.Write([]byte("content")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}
