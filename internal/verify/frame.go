package verify

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strconv"
	"strings"

	"ugallu.io/forensics/api/evidence"
)

// openFrames streams the frames that an entry lies in, from as many segments as they lie in, and checks the locks of these.
func (v *verification) openFrames(ctx context.Context, artifact *evidence.Artifact, at *evidence.Position) (io.ReadCloser, error) {
	left := max(at.FrameSize, at.Span)
	if at.Frame < 0 || left <= 0 || at.Frame > artifact.Size-left {
		return nil, refuse("the index places it at %d, over %d bytes, of an archive of %d", at.Frame, left, artifact.Size)
	}
	if err := segmentsError(artifact); err != nil {
		return nil, err
	}
	joined := &joinedReaders{}
	var readers []io.Reader
	begin := int64(0)
	for _, segment := range artifact.Segments {
		end := begin + segment.Size
		from, to := max(begin, at.Frame), min(end, at.Frame+left)
		if from < to {
			v.checkKept(ctx, "object "+segment.Key, version(segment), v.lockMode())
			part, err := v.source.OpenRange(ctx, segment.Key, segment.VersionID, from-begin, to-from)
			if err != nil {
				return nil, errors.Join(sourceError(err), joined.Close())
			}
			joined.parts = append(joined.parts, part)
			readers = append(readers, io.LimitReader(part, to-from))
		}
		begin = end
	}
	joined.Reader = io.MultiReader(readers...)
	return joined, nil
}

// segmentsError demands that the segments are the plain archive, so that a place in it is a place in one of them.
func segmentsError(artifact *evidence.Artifact) error {
	left := artifact.Size
	for _, segment := range artifact.Segments {
		if segment.Plain != nil {
			return refuse("the archive is encrypted to a key that is not here")
		}
		if segment.Size < 0 || segment.Size > left {
			return refuse("its segments have more bytes than the archive's %d", artifact.Size)
		}
		left -= segment.Size
	}
	if left != 0 {
		return refuse("its segments have %d bytes less than the archive's %d", left, artifact.Size)
	}
	return nil
}

// joinedReaders are read one after the other, and closed together.
type joinedReaders struct {
	io.Reader
	parts []io.ReadCloser
}

func (j *joinedReaders) Close() error {
	var errs []error
	for _, part := range j.parts {
		errs = append(errs, part.Close())
	}
	return errors.Join(errs...)
}

// maxContent of a sparse file that is hashed with its holes: they cost nothing to claim, and a minute to read.
const maxContent = 16 << 30

// contentError unpacks frames and compares the entry that begins there with its line of the index.
func contentError(frames io.Reader, mediaType string, entry *evidence.Entry) (string, error) {
	plain, closePlain, err := unpackEntry(frames, mediaType, entry)
	if err != nil {
		return "", err
	}
	defer closePlain()
	if _, err := io.CopyN(io.Discard, plain, entry.Position.Offset); err != nil {
		return "", refuse("unpack the archive up to the entry: %v", err)
	}
	if entry.SHA256 == "" || (entry.StoredSHA256 != "" && entry.Size > maxContent) {
		return storedContent(plain, entry)
	}
	archive := tar.NewReader(plain)
	header, err := archive.Next()
	if err != nil {
		return "", refuse("read the entry's header: %v", err)
	}
	if header.Name != entry.RawPath() || header.Size != entry.Size {
		return "", refuse("%s with %d bytes lies there", header.Name, header.Size)
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, archive, entry.Size); err != nil {
		return "", refuse("read the entry's content: %v", err)
	}
	if digest := hex.EncodeToString(sum.Sum(nil)); digest != entry.SHA256 {
		return "", refuse("the content has sha256 %s, the index says %s", digest, entry.SHA256)
	}
	return "sha256 " + entry.SHA256, nil
}

// Blocks of a tar archive, and the fields of a header that say where the data is.
const (
	blockSize    = 512
	typeAt       = 156
	typeExtended = 'x'
	sizeAt       = 124
	sizeEnd      = 136
)

// storedContent hashes the data of a sparse file as it lies in the archive: its holes are so large that they were not
// hashed, and reading them would take as long as somebody likes.
func storedContent(plain io.Reader, entry *evidence.Entry) (string, error) {
	if entry.StoredSHA256 == "" {
		return "", refuse("the index has no digest of it: %v", entry.Gaps)
	}
	size, err := dataSize(plain)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, plain, size); err != nil {
		return "", refuse("read the entry's content: %v", err)
	}
	if digest := hex.EncodeToString(sum.Sum(nil)); digest != entry.StoredSHA256 {
		return "", refuse("the stored content has sha256 %s, the index says %s", digest, entry.StoredSHA256)
	}
	return "stored sha256 " + entry.StoredSHA256 + ", holes not counted", nil
}

// dataSize reads the headers of an entry and returns how many bytes of data follow.
func dataSize(plain io.Reader) (int64, error) {
	extended := int64(-1)
	for {
		var header [blockSize]byte
		if _, err := io.ReadFull(plain, header[:]); err != nil {
			return 0, refuse("read the entry's header: %v", err)
		}
		size, err := strconv.ParseInt(strings.Trim(string(header[sizeAt:sizeEnd]), " \x00"), 8, 64)
		if err != nil || size < 0 {
			return 0, refuse("the entry's header has no size")
		}
		if header[typeAt] != typeExtended {
			return max(size, extended), nil
		}
		if size > maxExtended {
			return 0, refuse("the entry's header has %d bytes", size)
		}
		records := make([]byte, (size+blockSize-1)/blockSize*blockSize)
		if _, err := io.ReadFull(plain, records); err != nil {
			return 0, refuse("read the entry's header: %v", err)
		}
		if extended, err = sizeRecord(string(records[:size])); err != nil {
			return 0, err
		}
	}
}

// sizeRecord finds the size among extended records, each `<length> <key>=<value>` and a newline; -1 where there is none.
func sizeRecord(records string) (int64, error) {
	found := int64(-1)
	for records != "" {
		digits, _, _ := strings.Cut(records, " ")
		length, err := strconv.Atoi(digits)
		if err != nil || length <= len(digits) || length > len(records) {
			return 0, refuse("the entry's extended header is malformed")
		}
		if value, ok := strings.CutPrefix(records[len(digits)+1:length], "size="); ok {
			if found, err = strconv.ParseInt(strings.TrimSuffix(value, "\n"), 10, 64); err != nil {
				return 0, refuse("the entry's extended header has the size %q", value)
			}
		}
		records = records[length:]
	}
	return found, nil
}
