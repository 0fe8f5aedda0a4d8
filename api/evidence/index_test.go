package evidence_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
)

func TestIndexReaderReadsWhatWasWritten(t *testing.T) {
	full := fullEntry()
	index := append(full.AppendCanonical(nil), '\n')
	second := evidence.Entry{Path: "b", Type: evidence.EntrySocket}
	index = append(second.AppendCanonical(index), '\n')
	reader := evidence.NewIndexReader(bytes.NewReader(index))
	got, err := reader.Next()
	if err != nil {
		t.Fatal(err)
	}
	want := full
	want.Path, want.Link = strings.ToValidUTF8(full.Path, "\ufffd"), strings.ToValidUTF8(full.Link, "\ufffd")
	overlay := *full.Overlay
	overlay.Redirect = "r\ufffd"
	want.Overlay = &overlay
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
	if got.RawPath() != full.Path || got.RawLink() != full.Link {
		t.Error("raw names differ")
	}
	if got, err := reader.Next(); err != nil || cmp.Diff(&second, got) != "" {
		t.Errorf("second entry %+v, %v", got, err)
	}
	if _, err := reader.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
	var tree evidence.MerkleTree
	tree.Add(&full)
	tree.Add(&second)
	if reader.Root() != tree.Root() || reader.Size() != 2 {
		t.Error("root or size is not that of the lines")
	}
}

func TestIndexReaderRefusesWhatNoArchiveWrites(t *testing.T) {
	entry := evidence.Entry{Path: "a", Type: evidence.EntryFile}
	line := string(entry.AppendCanonical(nil))
	tests := map[string]string{
		"no newline":     line,
		"a space":        strings.Replace(line, ":", ": ", 1) + "\n",
		"unknown field":  strings.Replace(line, `"uid"`, `"aaa":1,"uid"`, 1) + "\n",
		"twice a field":  strings.Replace(line, `"uid":0`, `"uid":1,"uid":0`, 1) + "\n",
		"another order":  strings.Replace(line, `"type":"file","uid":0`, `"uid":0,"type":"file"`, 1) + "\n",
		"two in a line":  line + line + "\n",
		"not JSON":       "entry\n",
		"empty line":     "\n",
		"endless":        strings.Repeat("a", 9<<20),
		"two paths":      strings.Replace(line, `"path":"a"`, `"path":"a","pathBytes":"/w=="`, 1) + "\n",
		"raw but text":   strings.Replace(line, `"path":"a"`, `"path":"a","pathBytes":"YQ=="`, 1) + "\n",
		"CR before LF":   line + "\r\n",
		"number as text": strings.Replace(line, `"size":"0"`, `"size":0`, 1) + "\n",
	}
	for name, index := range tests {
		if _, err := evidence.NewIndexReader(strings.NewReader(index)).Next(); !errors.Is(err, evidence.ErrIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzIndexReader(f *testing.F) {
	full := fullEntry()
	f.Add(append(full.AppendCanonical(nil), '\n'))
	for _, seed := range []string{"", "\n", "{}\n", "null\n", `{"path":"a"}` + "\n", `{"xattrs":{"a":null}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, index []byte) {
		reader := evidence.NewIndexReader(bytes.NewReader(index))
		var again []byte
		for {
			entry, err := reader.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				if !errors.Is(err, evidence.ErrIndex) {
					t.Fatal(err)
				}
				return
			}
			again = append(entry.AppendCanonical(again), '\n')
			entry.AppendBody(nil)
			entry.OCIWhiteout()
		}
		if !bytes.Equal(again, index) {
			t.Errorf("an index was accepted that is not what its entries say:\n%q\n%q", index, again)
		}
	})
}
