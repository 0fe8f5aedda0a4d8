package verify

import (
	"bytes"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/evidence"
)

// FuzzArchiveReader has the reader of one file look for a content in anything at all. It may only ever say that the
// content lies there when it does.
func FuzzArchiveReader(f *testing.F) {
	content := []byte("the content that the index names")
	for _, name := range []string{"testdata/archive.tar.zstd", "testdata/archive.tar.gzip"} {
		archive, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive[:min(len(archive), 4<<10)], int64(0), int64(7), false, false)
		f.Add(archive[:min(len(archive), 4<<10)], int64(512), int64(7), false, true)
	}
	file := make([]byte, 3*blockSize)
	copy(file, "file\x00")
	copy(file[sizeAt:], "00000000040\x00")
	file[typeAt] = '0'
	copy(file[blockSize:], content)
	f.Add(file, int64(0), int64(len(content)), true, true)
	extended := append(make([]byte, 2*blockSize), file...)
	copy(extended[sizeAt:], "00000000011\x00")
	extended[typeAt] = typeExtended
	copy(extended[blockSize:], "9 size=32")
	f.Add(extended, int64(0), int64(len(content)), true, true)
	packer, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, frames []byte, offset, size int64, pack, stored bool) {
		// More would unpack for longer than a target may take.
		frames = frames[:min(len(frames), 64<<10)]
		if !pack {
			frames = frames[:min(len(frames), 4<<10)]
		}
		plain := frames
		if pack {
			frames = packer.EncodeAll(plain, nil)
		}
		entry := &evidence.Entry{Path: "file", Type: evidence.EntryFile, Size: size, Position: &evidence.Position{Offset: offset}}
		if stored {
			entry.StoredSHA256 = evidence.Digest(content)
		} else {
			entry.SHA256 = evidence.Digest(content)
		}
		for _, mediaType := range []string{evidence.MediaTypeTarZstd, evidence.MediaTypeTarGzip} {
			said, err := contentError(bytes.NewReader(frames), mediaType, entry)
			if err == nil && pack && !bytes.Contains(plain, content) {
				t.Errorf("%q is said of an archive without the content", said)
			}
			if (err == nil) != (said != "") {
				t.Errorf("said %q with error %v", said, err)
			}
		}
	})
}
