package verify

import (
	"compress/gzip"
	"errors"
	"io"
	"math"
	"strings"

	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/evidence"
)

// What a hostile index or archive can make a verifier spend.
const (
	// maxWindow is what RFC 8878 asks every decoder to hold; indexes and archives of this project have 1 MiB.
	maxWindow = 8 << 20
	// maxIndex is above an index of a hundred million lines, unpacked.
	maxIndex = 64 << 30
	// maxHeldIndex is how large an index can be, packed, to be held in memory while it is searched for one file.
	maxHeldIndex = 1 << 30
	// maxFrame is above what one frame unpacks to: an archive cuts its stream after little over a MiB.
	maxFrame = 8 << 20
	// maxExtended is above any extended header: attributes of a MiB, and two names.
	maxExtended = 4 << 20
)

// bounded refuses to be read beyond its limit.
type bounded struct {
	from io.Reader
	left int64
}

// Read fails once more than the limit is there.
func (b *bounded) Read(to []byte) (int, error) {
	if int64(len(to)) > b.left+1 {
		to = to[:b.left+1]
	}
	n, err := b.from.Read(to)
	if int64(n) > b.left {
		return int(b.left), refuse("it unpacks to more than it can hold")
	}
	b.left -= int64(n)
	return n, err
}

// unpackZstd streams; nothing is unpacked ahead of what is read but one block.
func unpackZstd(packed io.Reader) (*zstd.Decoder, error) {
	plain, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		return nil, refuse("unpack: %v", err)
	}
	return plain, nil
}

// readIndex hands each line to see, and refuses an index of another length or Merkle root than was signed. It reads no
// line beyond the signed number but the first.
func readIndex(packed io.Reader, artifact *evidence.Artifact, see func(*evidence.Entry, *evidence.IndexReader)) error {
	plain, err := unpackZstd(packed)
	if err != nil {
		return err
	}
	defer plain.Close()
	reader := evidence.NewIndexReader(&bounded{from: plain, left: maxIndex})
	for {
		entry, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return refuse("read index: %v", err)
		}
		if artifact.IndexLines < 0 || reader.Size() > uint64(artifact.IndexLines) {
			return refuse("the index has more than the %d lines that were signed", artifact.IndexLines)
		}
		see(entry, reader)
	}
	if artifact.IndexLines < 0 || reader.Size() != uint64(artifact.IndexLines) || reader.Root() != artifact.MerkleRoot {
		return refuse("the index has %d lines with root %s, signed are %d with %s",
			reader.Size(), reader.Root(), artifact.IndexLines, artifact.MerkleRoot)
	}
	return nil
}

// unpackEntry streams what lies in the frames up to the end of one entry.
func unpackEntry(frames io.Reader, mediaType string, entry *evidence.Entry) (io.Reader, func(), error) {
	at := entry.Position.Offset
	if at < 0 || at >= maxFrame || entry.Size < 0 {
		return nil, nil, refuse("the index places it at %d of a frame, with %d bytes", at, entry.Size)
	}
	// Headers, and the data with, at most, as long a map of its holes.
	end := int64(math.MaxInt64)
	if room := at + 2*maxExtended; entry.Size < (math.MaxInt64-room)/2 {
		end = room + 2*entry.Size
	}
	if strings.HasSuffix(mediaType, "+gzip") {
		plain, err := gzip.NewReader(frames)
		if err != nil {
			return nil, nil, refuse("unpack the archive: %v", err)
		}
		return &bounded{from: plain, left: end}, func() { _ = plain.Close() }, nil // it has read nothing that is not checked otherwise
	}
	plain, err := unpackZstd(frames)
	if err != nil {
		return nil, nil, err
	}
	return &bounded{from: plain, left: end}, plain.Close, nil
}
