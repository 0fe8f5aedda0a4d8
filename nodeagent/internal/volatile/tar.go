package volatile

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"time"

	"ugallu.io/forensics/api/evidence"
)

// indexMember is the last member of an archive: one evidence.VolatileFile a line.
const indexMember = "index.ndjson"

// countingWriter counts and hashes what passes.
type countingWriter struct {
	to    io.Writer
	sum   hash.Hash
	bytes int64
}

func newCountingWriter(to io.Writer) *countingWriter {
	return &countingWriter{to: to, sum: sha256.New()}
}

func (w *countingWriter) Write(data []byte) (int, error) {
	n, err := w.to.Write(data)
	_, _ = w.sum.Write(data[:n]) // a hash takes everything
	w.bytes += int64(n)
	return n, err
}

func (w *countingWriter) digest() string { return hex.EncodeToString(w.sum.Sum(nil)) }

// WriteFiles writes what Files finds as a PAX tar with numeric ids: one member for a file, or one for each run of data of
// a file with holes, then the index. The same files give the same bytes.
func WriteFiles(ctx context.Context, w io.Writer, target Target, options Options) (FilesResult, error) {
	counted := newCountingWriter(w)
	archive := tar.NewWriter(counted)
	var index bytes.Buffer
	result, err := Files(ctx, target, options, func(file *File) error {
		for number := range file.Runs {
			if err := archive.WriteHeader(headerOf(file, number)); err != nil {
				return fmt.Errorf("write header of %s: %w", file.Runs[number].Member, err)
			}
			if err := file.CopyRun(archive, number); err != nil {
				return err
			}
		}
		line, err := evidence.Canonical(file.VolatileFile)
		index.Write(append(line, '\n'))
		return err
	})
	if err != nil {
		return FilesResult{}, err
	}
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: indexMember, Mode: 0o444, Size: int64(index.Len()), ModTime: time.Unix(0, 0),
		Format: tar.FormatPAX,
	}
	if err := archive.WriteHeader(header); err != nil {
		return FilesResult{}, fmt.Errorf("write header of %s: %w", indexMember, err)
	}
	if _, err := archive.Write(index.Bytes()); err != nil {
		return FilesResult{}, fmt.Errorf("write %s: %w", indexMember, err)
	}
	if err := archive.Close(); err != nil {
		return FilesResult{}, fmt.Errorf("close the archive: %w", err)
	}
	result.Size, result.SHA256 = counted.bytes, counted.digest()
	return result, nil
}

func headerOf(file *File, number int) *tar.Header {
	modified := file.pinned.stat.Mtime
	return &tar.Header{
		Typeflag: tar.TypeReg, Name: file.Runs[number].Member, Mode: int64(file.Mode), Uid: int(file.UID), Gid: int(file.GID),
		Size: file.Runs[number].Length, ModTime: time.Unix(modified.Sec, int64(modified.Nsec)), Format: tar.FormatPAX,
	}
}
