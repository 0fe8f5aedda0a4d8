package verify

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/evidence"
)

func packed(t *testing.T, data []byte, options ...zstd.EOption) []byte {
	t.Helper()
	var out bytes.Buffer
	writer, err := zstd.NewWriter(&out, append(options, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// demandRefusal wants evidence refused for this reason.
func demandRefusal(t *testing.T, err error, reason string) {
	t.Helper()
	if err == nil || isUnread(err) || !strings.Contains(err.Error(), reason) {
		t.Errorf("refused with %v, want %q", err, reason)
	}
}

func index(lines int) []byte {
	var data []byte
	for n := range lines {
		entry := evidence.Entry{Path: evidence.Digest(fmt.Append(nil, n)), Type: evidence.EntryFile}
		data = append(entry.AppendCanonical(data), '\n')
	}
	return data
}

func TestAnIndexIsNotReadBeyondTheSignedLines(t *testing.T) {
	whole := packed(t, index(100_000))
	read := &countingReader{from: bytes.NewReader(whole)}
	seen := 0
	err := readIndex(read, &evidence.Artifact{IndexLines: 10}, func(*evidence.Entry, *evidence.IndexReader) { seen++ })
	demandRefusal(t, err, "more than the 10 lines")
	if seen != 10 || read.size > int64(len(whole)/2) {
		t.Errorf("%d lines and %d of %d bytes were read", seen, read.size, len(whole))
	}
	demandRefusal(t, readIndex(bytes.NewReader(whole), &evidence.Artifact{IndexLines: -1}, nil), "more than the -1 lines")
}

func TestALargeWindowIsRefused(t *testing.T) {
	data := index(100_000)
	for len(data) < 2*maxWindow {
		data = append(data, data...)
	}
	large := packed(t, data, zstd.WithWindowSize(2*maxWindow))
	err := readIndex(bytes.NewReader(large), &evidence.Artifact{IndexLines: math.MaxInt64}, func(*evidence.Entry, *evidence.IndexReader) {})
	demandRefusal(t, err, "window size exceeded")
}

func TestBoundedRefusesWhatIsLonger(t *testing.T) {
	if data, err := io.ReadAll(&bounded{from: strings.NewReader("four"), left: 4}); err != nil || string(data) != "four" {
		t.Errorf("read %q, %v", data, err)
	}
	data, err := io.ReadAll(&bounded{from: strings.NewReader("fours"), left: 4})
	demandRefusal(t, err, "more than it can hold")
	if string(data) != "four" {
		t.Errorf("read %q", data)
	}
}

// headers are extended headers without an end: a GiB of them is packed into some hundred KiB.
func headers(t *testing.T, size int) []byte {
	t.Helper()
	block := make([]byte, blockSize)
	copy(block[sizeAt:], "00000000000\x00")
	block[typeAt] = tar.TypeXHeader
	copy(block[257:], "ustar\x0000")
	copy(block[148:], "        ")
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	return bytes.Repeat(block, size/blockSize)
}

func TestABombInAFrameIsRefused(t *testing.T) {
	bomb := packed(t, headers(t, 64<<20))
	at := &evidence.Position{FrameSize: int64(len(bomb))}
	for name, entry := range map[string]*evidence.Entry{
		"read as tar":    {Path: "x", Size: 3, SHA256: evidence.Digest(nil), Position: at},
		"read as stored": {Path: "x", Size: 3, StoredSHA256: evidence.Digest(nil), Position: at},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := contentError(bytes.NewReader(bomb), evidence.MediaTypeTarZstd, entry)
			demandRefusal(t, err, "more than it can hold")
		})
	}
}

func TestAPlaceOutsideTheArchiveIsRefused(t *testing.T) {
	two := []evidence.Segment{{Size: 60}, {Size: 40, Index: 1}}
	rows := map[string]struct {
		segments []evidence.Segment
		at       evidence.Position
		reason   string
	}{
		"beyond the end":      {two, evidence.Position{Frame: 100, FrameSize: 1}, "over 1 bytes, of an archive of 100"},
		"across the end":      {two, evidence.Position{Frame: 99, FrameSize: 2}, "over 2 bytes"},
		"a span too long":     {two, evidence.Position{Frame: 1, FrameSize: 2, Span: 100}, "over 100 bytes"},
		"a sum that wraps":    {two, evidence.Position{Frame: math.MaxInt64, FrameSize: math.MaxInt64}, "of an archive of 100"},
		"before the start":    {two, evidence.Position{Frame: -1, FrameSize: 2}, "places it at -1"},
		"no bytes":            {two, evidence.Position{Frame: 1}, "over 0 bytes"},
		"less than no bytes":  {two, evidence.Position{Frame: 1, FrameSize: -1, Span: -5}, "over -1 bytes"},
		"segments too short":  {two[:1], evidence.Position{FrameSize: 1}, "40 bytes less"},
		"segments too long":   {append(two, two...), evidence.Position{FrameSize: 1}, "more bytes than the archive's 100"},
		"a negative segment":  {append(two, evidence.Segment{Size: -1}), evidence.Position{FrameSize: 1}, "more bytes"},
		"an encrypted object": {[]evidence.Segment{{Size: 100, Plain: &evidence.PlainContent{}}}, evidence.Position{FrameSize: 1}, "encrypted"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			_, err := (&verification{}).openFrames(context.Background(), &evidence.Artifact{Size: 100, Segments: row.segments}, &row.at)
			demandRefusal(t, err, row.reason)
		})
	}
	for name, entry := range map[string]*evidence.Entry{
		"before the frame":  {Position: &evidence.Position{Offset: -1}},
		"beyond the frame":  {Position: &evidence.Position{Offset: maxFrame}},
		"less than nothing": {Size: -1, Position: &evidence.Position{}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := contentError(strings.NewReader(""), evidence.MediaTypeTarZstd, entry)
			demandRefusal(t, err, "places it at")
		})
	}
}
