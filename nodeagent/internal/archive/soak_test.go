//go:build soak

package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"ugallu.io/forensics/nodeagent/internal/archive"
	"ugallu.io/forensics/nodeagent/internal/archive/testdata/corpus"
)

func TestSoakThreeHundredThousandFilesRoundTrip(t *testing.T) {
	const folders, entries = 300, 300*1001 + 1
	requireRoot(t)
	root := t.TempDir()
	corpus.Many(t, root, folders)
	want := scan(t, root)
	got := capture(t, root, archive.Options{})
	if len(want) != entries || got.result.Entries != entries || len(got.gaps) > 0 {
		t.Fatalf("%d entries of %d, %d in the tree, gaps %+v", got.result.Entries, entries, len(want), got.result.Gaps)
	}
	got.demandReadable(t, archive.Zstd)
	extracted, read, index := scan(t, extract(t, got.data, "--zstd")), fromTar(t, got.data), got.entries(t)
	if len(extracted) != entries || len(read) != entries {
		t.Fatalf("GNU tar reads %d entries, Go %d", len(extracted), len(read))
	}
	for name, r := range want {
		if !reflect.DeepEqual(r, extracted[name]) {
			t.Fatalf("%s extracted by GNU tar is %+v, want %+v", name, extracted[name], r)
		}
		g := read[name]
		if index[name].SHA256 != g.SHA256 {
			t.Fatalf("%s: the index says %s, Go reads %s", name, index[name].SHA256, g.SHA256)
		}
		r.SHA256, g.SHA256 = "", "" // one is of blocks, the other of the whole
		if !reflect.DeepEqual(r, g) {
			t.Fatalf("%s read by Go is %+v, want %+v", name, g, r)
		}
	}
}

func TestSoakTenGigabytesOfOneByteRoundTrip(t *testing.T) {
	const size = 10 << 30
	root := t.TempDir()
	corpus.Compressible(t, filepath.Join(root, "bomb"), size)
	got := capture(t, root, archive.Options{})
	if len(got.gaps) > 0 || got.result.BytesRead != size || got.result.BytesWritten > size/1000 {
		t.Errorf("result %+v", got.result)
	}
	want := sha256.New()
	for piece, left := bytes.Repeat([]byte("A"), 1<<20), size; left > 0; left -= len(piece) {
		want.Write(piece)
	}
	sum := hex.EncodeToString(want.Sum(nil))
	if entry := got.entries(t)["bomb"]; entry.SHA256 != sum || entry.Size != size {
		t.Errorf("the index says %+v, the content is %s", entry, sum)
	}
	byTar := sha256.New()
	extract := exec.Command("tar", "--extract", "--zstd", "--to-stdout", "--file=-", "bomb")
	extract.Stdin, extract.Stdout = bytes.NewReader(got.data), byTar
	must(t, extract.Run())
	byGo, reader := sha256.New(), open(t, got.data)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if header.Typeflag == tar.TypeReg {
			_, err = io.Copy(byGo, reader)
			must(t, err)
		}
	}
	if tarSum, goSum := hex.EncodeToString(byTar.Sum(nil)), hex.EncodeToString(byGo.Sum(nil)); tarSum != sum || goSum != sum {
		t.Errorf("GNU tar reads %s, Go %s; the content is %s", tarSum, goSum, sum)
	}
	got.demandReadable(t, archive.Zstd)
}
