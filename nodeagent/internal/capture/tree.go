package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/archive"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

var errDigest = errors.New("the stored stream is not the archived one")

// errCutShort means that the time for an archive was up before its beginning was compared with the segments on record: that
// it ends otherwise does not say that the tree is another one.
var errCutShort = errors.New("time was up before it came to the end of what is stored of it")

// tree archives a folder.
func (r *run) tree(ctx context.Context, depot *depot, part *Part, lines *gapLines) (_ *stored, err error) {
	tree, err := part.Open(ctx)
	if err != nil {
		return nil, err
	}
	done, err := r.archive(ctx, depot, part, tree, lines)
	if err == nil && part.Kind == v1alpha1.ArtifactUpperLayer && !r.watching.look() {
		err = r.readAgain(ctx, part, tree, done, lines)
	}
	if closed := tree.Close(); closed != nil {
		err = errors.Join(err, fmt.Errorf("close %s: %w", tree.Root, closed))
	}
	return done, err
}

// archived are the three streams of an archive.
type archived struct {
	main            *upload.Writer
	index, timeline *single
}

func (r *run) begin(ctx context.Context, depot *depot, part *Part) (archived, error) {
	r.announce(part.Name)
	index, err := depot.single(ctx, r.beside(part.Name, ".index.ndjson.zst"), true)
	if err != nil {
		return archived{}, err
	}
	timeline, err := depot.single(ctx, r.beside(part.Name, ".timeline.body.zst"), true)
	if err != nil {
		index.abort(err)
		return archived{}, err
	}
	options := depot.options(part.Name)
	if storing := r.result.Storing; storing != nil && storing.Artifact == part.Name {
		options.Resume = storing.Segments
	}
	options.First = r.FirstSegment
	options.Stored = func(segment v1alpha1.StoredObject) error { return r.segment(part, segment) }
	return archived{depot.writer(ctx, options), index, timeline}, nil
}

// segment has the caller persist a segment of an artifact that is not complete.
func (r *run) segment(part *Part, segment v1alpha1.StoredObject) error {
	r.watching.look()
	storing := &v1alpha1.Storing{Artifact: part.Name}
	if before := r.result.Storing; before != nil {
		if before.Artifact != part.Name {
			// The record has room for one: that of a longer archive is worth more, and this one is begun anew after a crash.
			return nil
		}
		storing.Segments = append(storing.Segments, before.Segments...)
	}
	storing.Segments = append(storing.Segments, segment)
	r.result.Storing = storing
	return r.stored(part.Name)
}

func (a archived) abort(cause error) {
	a.main.Abort(cause)
	a.index.abort(cause)
	a.timeline.abort(cause)
}

// archive stores a tree with its index and timeline. They and the gaps come before the report: an artifact of which they
// are not stored is not reported.
func (r *run) archive(ctx context.Context, depot *depot, part *Part, tree Tree, lines *gapLines) (*stored, error) {
	to, err := r.begin(ctx, depot, part)
	if err != nil {
		return nil, err
	}
	options := r.options(part, tree)
	options.Gaps, options.Index, options.Timeline = lines, to.index, to.timeline
	began := time.Now()
	written, err := archive.Write(ctx, to.main, tree.Root, options)
	var uploaded upload.Result
	if err == nil {
		uploaded, err = to.main.Finish()
	}
	if err == nil && uploaded.SHA256 != written.SHA256 {
		err = fmt.Errorf("%w: %s and %s", errDigest, uploaded.SHA256, written.SHA256)
	}
	if errors.Is(err, upload.ErrDiverged) && (r.window.over() || options.MaxDuration > 0 && time.Since(began) >= options.MaxDuration) {
		err = fmt.Errorf("%w: %w", errCutShort, err)
	}
	if err != nil {
		to.abort(err)
		return nil, err
	}
	index, err := to.index.finish()
	if err != nil {
		to.timeline.abort(err)
		return nil, err
	}
	timeline, err := to.timeline.finish()
	if err != nil {
		return nil, err
	}
	gaps, err := abandoned(lines, part.Name, uploaded.Abandoned, index.Abandoned, timeline.Abandoned)
	if err != nil {
		return nil, err
	}
	r.past.Files += written.Entries
	r.past.BytesRead += written.BytesRead
	r.past.BytesStored += written.BytesWritten
	return &stored{v1alpha1.Artifact{
		MediaType: r.archiveType(), Segments: uploaded.Segments, Size: uploaded.Size, SHA256: uploaded.SHA256,
		MerkleRoot: written.MerkleRoot, IndexLines: written.IndexLines, Index: object(index), Timeline: object(timeline),
		Entries: written.Entries, Truncated: written.Truncated,
	}, append(gaps, written.Gaps...)}, nil
}

// readAgain reads the upper layer of a container that ran meanwhile once more. What differs is named, and what could not be
// compared. A first reading that a limit on time ended is named already, and a second one would end elsewhere.
func (r *run) readAgain(ctx context.Context, part *Part, tree Tree, done *stored, lines *gapLines) error {
	if outOfTime(done.gaps) {
		return nil
	}
	again, err := archive.Write(ctx, io.Discard, tree.Root, r.options(part, tree))
	gap := evidence.Gap{Reason: GapChangedBetweenReads, Count: 1}
	switch {
	case ctx.Err() != nil:
		// There is no time to store a line either.
		done.gaps = append(done.gaps, notCompared)
		return ctx.Err()
	case err != nil:
		gap.Message = fmt.Sprintf("the container ran, and a second reading did not succeed: %v", err)
	case again.SHA256 == done.artifact.SHA256:
		return nil
	case outOfTime(again.Gaps):
		gap = notCompared
	default:
		gap.Message = fmt.Sprintf("the container ran; a second reading gave %d entries with the Merkle root %s", again.Entries, again.MerkleRoot)
	}
	done.gaps = append(done.gaps, gap)
	return lines.writeLine(evidence.GapLine{Artifact: part.Name, Path: ".", Reason: gap.Reason, Message: gap.Message})
}

func outOfTime(gaps []evidence.Gap) bool {
	return slices.ContainsFunc(gaps, func(gap evidence.Gap) bool { return gap.Reason == archive.GapMaxDuration })
}

func (r *run) archiveType() string {
	if r.order.Action.Compression == v1alpha1.CompressionGzip {
		return evidence.MediaTypeTarGzip
	}
	return evidence.MediaTypeTarZstd
}

func (r *run) options(part *Part, tree Tree) archive.Options {
	action := r.order.Action
	format := archive.Zstd
	if action.Compression == v1alpha1.CompressionGzip {
		format = archive.Gzip
	}
	return archive.Options{
		Format:      format,
		MaxBytes:    action.MaxBytes.Value(),
		MaxEntries:  action.MaxEntries,
		MaxDuration: r.window.left(action.MaxDuration.Duration),
		Artifact:    part.Name,
		Upper:       tree.Upper,
		Lower:       tree.Lower,
		UpperLayer:  tree.UpperLayer,
		Progress:    func(p archive.Progress) { r.report(part, p) },
	}
}
