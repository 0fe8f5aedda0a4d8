package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/archive"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

// tries at one artifact in one round. A store may call a segment taken when the answer to a put was lost and the put was
// sent again, and a tree may have changed since segments of it were recorded.
const tries = 3

var errDigest = errors.New("the stored stream is not the archived one")

// errCutShort means that the time for an archive was up before its beginning was compared with the segments on record: that
// it ends otherwise does not say that the tree is another one.
var errCutShort = errors.New("time was up before it came to the end of what is stored of it")

// part stores one part and has the caller persist it.
func (r *run) part(ctx context.Context, part *Part) error {
	var err error
	for range tries {
		var done *v1alpha1.Artifact
		if done, err = r.try(ctx, part); done != nil {
			r.result.Artifacts = append(r.result.Artifacts, *done)
			if storing := r.result.Storing; storing != nil && storing.Artifact == part.Name {
				r.result.Storing = nil
			}
			return errors.Join(err, r.stored(part.Name))
		}
		if errors.Is(err, errCutShort) {
			return r.notCompleted(err)
		}
		if !r.another(err) {
			break
		}
	}
	if _, ok := errors.AsType[Lost](err); ok || err == nil {
		return err
	}
	return fmt.Errorf("store %s: %w", part.Name, err)
}

// another says whether a try that failed is followed by another one at once. There is none when the time is up, in which
// little but an empty artifact could be stored.
func (r *run) another(err error) bool {
	if r.window.over() {
		return false
	}
	if errors.Is(err, upload.ErrDiverged) {
		// Only the artifact on record is resumed, so it is the one that diverged.
		r.result.Storing = nil
		return true
	}
	return errors.Is(err, worm.ErrExists)
}

// notCompleted is what the artifact on record is when nothing more is stored of it. Its segments stay on record.
func (r *run) notCompleted(why error) Lost {
	const message = "%d segments are stored, and the archive, its index or its timeline is not complete"
	err := fmt.Errorf(message, len(r.result.Storing.Segments))
	if why != nil {
		err = fmt.Errorf("%w: %w", err, why)
	}
	return Lost{evidence.GapArtifactNotCompleted, err}
}

// try returns what was stored, also beside an error that came after.
func (r *run) try(ctx context.Context, part *Part) (*v1alpha1.Artifact, error) {
	depot := newDepot(r.store, r.order.Action.Destination, r.seal)
	lines := &gapLines{previous: r.result.GapsObject, start: func() (*single, error) {
		return depot.single(ctx, r.beside(part, ".gaps.jsonl"), false)
	}}
	r.watching = r.watch(part)
	defer r.watching.stop()
	done, err := r.write(ctx, depot, part, lines)
	if done == nil {
		lines.abort(err)
		r.leave(part.Name, depot.taken())
		return nil, err
	}
	gapsObject, taken, finished := lines.finish(part.Name)
	if finished != nil {
		r.leave(part.Name, depot.taken())
		return nil, errors.Join(err, finished)
	}
	// Stored evidence counts, whatever became of the mount.
	if gapsObject != nil {
		r.result.GapsObject = gapsObject
	}
	r.merge(prefixed(part.Name, append(done.gaps, taken...)))
	done.artifact.Name, done.artifact.Kind, done.artifact.Container = part.Name, part.Kind, part.Container
	done.artifact.FrozenThroughout = r.watching.end()
	return &done.artifact, err
}

func (r *run) write(ctx context.Context, depot *depot, part *Part, lines *gapLines) (*stored, error) {
	if part.Write != nil {
		return r.stream(ctx, depot, part, lines)
	}
	return r.tree(ctx, depot, part, lines)
}

// leave remembers the keys that a try took which did not succeed. A later one that does names them itself.
func (r *run) leave(part string, keys []string) {
	for _, key := range keys {
		if !slices.Contains(r.left[part], key) {
			r.left[part] = append(r.left[part], key)
		}
	}
}

// beside names an object that goes with the part's artifact.
func (r *run) beside(part *Part, suffix string) string {
	return strings.TrimSuffix(part.Name, r.extension()) + suffix
}

// stored is an artifact with its gaps.
type stored struct {
	artifact v1alpha1.Artifact
	gaps     []evidence.Gap
}

// stream stores what a part writes, which is another stream each time: it is never resumed.
func (r *run) stream(ctx context.Context, depot *depot, part *Part, lines *gapLines) (*stored, error) {
	within := r.window.left(r.order.Action.MaxDuration.Duration)
	if part.Kind == v1alpha1.ArtifactProcessMemory {
		if r.memory.usedUp() {
			return nil, Lost{GapMemoryTime, errMemoryTime}
		}
		within = r.memory.within(within)
		defer r.memory.spend(time.Now())
	}
	out, err := depot.single(ctx, part.Name, true)
	if err != nil {
		return nil, err
	}
	counted := &counter{to: out, progress: func(bytes int64) { r.report(part, archive.Progress{BytesRead: bytes}) }}
	summary, err := part.Write(ctx, within, counted, lines)
	if err != nil {
		out.abort(err)
		return nil, err
	}
	uploaded, err := out.finish()
	if err != nil {
		return nil, err
	}
	gaps, err := abandoned(lines, part.Name, uploaded.Abandoned)
	if err != nil {
		return nil, err
	}
	r.past.BytesRead += counted.bytes
	r.past.BytesStored += uploaded.Size
	return &stored{v1alpha1.Artifact{
		MediaType: part.MediaType, Segments: []v1alpha1.StoredObject{*object(uploaded)}, Size: uploaded.Size,
		SHA256: uploaded.SHA256, Entries: summary.Records, Truncated: summary.Truncated,
	}, append(gaps, summary.Gaps...)}, nil
}

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
	index, err := depot.single(ctx, r.beside(part, ".index.ndjson.zst"), true)
	if err != nil {
		return archived{}, err
	}
	timeline, err := depot.single(ctx, r.beside(part, ".timeline.body.zst"), true)
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

func (r *run) report(part *Part, p archive.Progress) {
	if r.progress == nil {
		return
	}
	r.progress(v1alpha1.Progress{
		CurrentArtifact: part.Name,
		Files:           r.past.Files + p.Entries,
		BytesRead:       r.past.BytesRead + p.BytesRead,
		BytesStored:     r.past.BytesStored + p.BytesWritten,
	})
}

// counter counts what passes and tells.
type counter struct {
	to       io.Writer
	progress func(bytes int64)
	bytes    int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.bytes += int64(n)
	c.progress(c.bytes)
	return n, err
}
