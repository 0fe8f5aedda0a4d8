package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// Options of one archive. A limit of zero is no limit.
type Options struct {
	// Format defaults to Zstd.
	Format Format
	// Level in the format's own scale; 0 is the fastest.
	Level int
	// MaxBytes of file content. A file that does not fit is left out, and named; smaller ones still go in, so that one
	// huge file does not hide all others.
	MaxBytes int64
	// MaxEntries ends the archive.
	MaxEntries int64
	// MaxDuration ends the archive.
	MaxDuration time.Duration
	// Artifact is the name that gaps carry.
	Artifact string
	// Gaps receives one line of JSON for each gap; nil keeps counts only.
	Gaps io.Writer
	// Progress is called after every entry and every MiB of content; the caller limits its rate.
	Progress func(Progress)
}

// Progress of an archive.
type Progress struct {
	Entries, BytesRead, BytesWritten int64
}

// Result is what is known of a finished archive.
type Result struct {
	Entries int64
	// BytesRead is content of files, BytesTar the stream before compression, BytesWritten after it.
	BytesRead, BytesTar, BytesWritten int64
	// SHA256 of the compressed stream.
	SHA256 string
	// MerkleRoot over the canonical JSON of every evidence.Entry, in the order of the archive (RFC 6962).
	MerkleRoot string
	Gaps       []evidence.Gap
	Truncated  bool
}

// Write streams everything below root to out, as tar with one compressed frame after another.
//
// Entries come in depth-first order, each folder before its content, names sorted by bytes (in batches where a folder's
// names take more memory than there is for them). The root itself is the entry "./". Nothing below root is followed,
// executed or opened but regular files and folders; their access times stay as they are where the kernel lets us.
//
// Whatever cannot be read is a gap, never an error. Errors are those of out, of Options.Gaps and of ctx; the stream is
// then incomplete.
func Write(ctx context.Context, out io.Writer, root string, options Options) (Result, error) {
	if options.Format == "" {
		options.Format = Zstd
	}
	level, err := options.level()
	if err != nil {
		return Result{}, err
	}
	folder, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Result{}, fmt.Errorf("open root %s: %w", root, err)
	}
	compressor, err := newCompressor(out, options.Format, level)
	if err != nil {
		return Result{}, errors.Join(err, unix.Close(folder))
	}
	w := newWalker(ctx, compressor, options)
	err = w.root(folder)
	truncated := errors.Is(err, errLimit)
	if err == nil || (truncated && !w.cut) {
		err = w.tar.close()
	} else if truncated {
		err = nil
	}
	// The compressor's error comes first: it is the cause of the walker's.
	if closed := compressor.close(); closed != nil {
		err = closed
	}
	if err != nil {
		return Result{}, fmt.Errorf("archive %s: %w", root, err)
	}
	return Result{
		Entries:      w.entries,
		BytesRead:    w.bytesRead,
		BytesTar:     w.stream.bytes,
		BytesWritten: compressor.written.Load(),
		SHA256:       compressor.digest(),
		MerkleRoot:   w.tree.Root(),
		Gaps:         w.gaps.sorted(),
		Truncated:    truncated || w.skipped,
	}, nil
}
