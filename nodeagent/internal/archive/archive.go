package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"ugallu.io/forensics/api/evidence"
)

// Options of one archive. A limit of zero is no limit.
type Options struct {
	// Format defaults to Zstd.
	Format Format
	// Level in the format's own scale; 0 is the fastest.
	Level int
	// Workers that compress, at most four and by default one a core. Their number changes no byte of the archive.
	Workers int
	// MaxBytes of file content. A file that does not fit is left out, and named; smaller ones still go in, so that one
	// huge file does not hide all others.
	MaxBytes int64
	// MaxEntries ends the archive.
	MaxEntries int64
	// MaxDuration ends the archive.
	MaxDuration time.Duration
	// Artifact is the name that gaps carry.
	Artifact string

	// UpperLayer says that the root is the upper folder of an overlay, and has the index explain its markers. They are
	// archived as they lie there in any case.
	UpperLayer bool
	// UserXAttrs says that the overlay was mounted with the option userxattr: its markers are then attributes that begin
	// with "user.overlay." and not with "trusted.overlay.". Without it a container could forge them.
	UserXAttrs bool
	// Upper is the upper folder of the overlay that is the root, where it is known: the index then says from which layer
	// each entry comes.
	Upper string
	// Lower is a mounted view of the layers below the root, or below Upper, where there is one: files that differ from
	// those in content alone are flagged.
	Lower string

	// Gaps receives one line of JSON for each gap; nil keeps counts only.
	Gaps io.Writer
	// Index receives the canonical JSON of one evidence.Entry a line, in the order of the archive: one for every name that
	// was seen, also of what is not in the archive. When a limit ends the archive, the last line names where. Index and
	// Timeline are written by another goroutine than Gaps, and never at the same time as out.
	Index io.Writer
	// Timeline receives the same entries in the body format of The Sleuth Kit.
	Timeline io.Writer
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
	// MerkleRoot over the lines of the index, as evidence.MerkleTree defines it, and how many lines there are. It is
	// computed also when the index is not wanted.
	MerkleRoot string
	IndexLines int64
	Gaps       []evidence.Gap
	Truncated  bool
}

// Write streams everything below root to out, as tar with one compressed frame after another.
//
// Entries come in depth-first order, each folder before its content, names sorted by bytes (in batches where a folder's
// names take more memory than there is for them; names that came while the folder was read are the last, 100,000 of them in
// all, and each file and folder among them once). The root itself is the entry "./". Nothing below root is followed, executed
// or opened but regular files and folders; their access times stay as they are where the kernel lets us.
//
// Each call of out's Write has exactly one frame, which can be decompressed alone. A frame begins at the header of an
// entry, or, within an entry that is larger than a frame, at a block boundary of its data.
//
// Whatever cannot be read is a gap, never an error. Errors are those of out, of the writers in Options and of ctx; the
// stream is then incomplete.
func Write(ctx context.Context, out io.Writer, root string, options Options) (Result, error) {
	encoders, err := options.encoders()
	if err != nil {
		return Result{}, err
	}
	folder, err := openRoot(root)
	if err != nil {
		return Result{}, fmt.Errorf("root %s: %w", root, err)
	}
	index := newIndexer(options)
	compressor := newCompressor(out, index, encoders)
	w := newWalker(ctx, compressor, options)
	err = w.root(folder)
	truncated := errors.Is(err, errLimit)
	if err == nil || truncated {
		err = w.end()
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
		BytesTar:     compressor.taken,
		BytesWritten: compressor.written.Load(),
		SHA256:       compressor.digest(),
		MerkleRoot:   index.tree.Root(),
		IndexLines:   int64(index.tree.Size()), // #nosec G115 -- counted one by one
		Gaps:         w.gaps.Gaps(),
		Truncated:    truncated || w.skipped,
	}, nil
}
