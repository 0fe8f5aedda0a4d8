package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/archive"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

// GapAbandonedAttempt counts attempts at an artifact that ended before they could report it. Their segments stay locked
// in their folders, and no artifact names them.
const GapAbandonedAttempt = "AttemptAbandoned"

// reserve is what is left of the order's time when an archive ends because of it: its last segment and its gaps are still
// to be stored, and the record to be written.
const reserve = 30 * time.Second

// maxTakenSegments is how often in a row a store may call a segment of a fresh folder taken, which happens when the
// answer to a put was lost and the put was sent again.
const maxTakenSegments = 3

var errDigest = errors.New("the stored stream is not the archived one")

// stored is one artifact with its gaps.
type stored struct {
	artifact   v1alpha1.Artifact
	gaps       []evidence.Gap
	gapsObject *v1alpha1.StoredObject
}

// attempts archives a root until an attempt has a folder of its own from the first to the last segment.
func (r *run) attempts(ctx context.Context, item item, root string) (*stored, error) {
	var err error
	for range maxTakenSegments {
		var done *stored
		if done, err = r.attempt(ctx, item, root); err == nil || !errors.Is(err, worm.ErrExists) {
			return done, err
		}
	}
	return nil, err
}

// attempt archives a root into a folder that nobody wrote to before.
func (r *run) attempt(ctx context.Context, item item, root string) (*stored, error) {
	target := r.target(item.artifact)
	attempt, err := upload.Claim(ctx, r.store, target)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", item.artifact, err)
	}
	lines := &gapLines{previous: r.result.GapsObject, start: func() *upload.Object {
		return upload.Start(ctx, r.store, attempt.Folder+"/gaps.jsonl", target.Lock)
	}}
	writer := upload.NewWriter(ctx, r.store, upload.Options{Folder: attempt.Folder, Lock: target.Lock})
	result, err := r.stream(ctx, item, root, streams{writer, lines, attempt})
	if err != nil {
		writer.Abort(err)
		lines.abort(err)
		return nil, fmt.Errorf("store %s: %w", item.artifact, err)
	}
	return result, nil
}

// streams are the two that an attempt writes.
type streams struct {
	writer  *upload.Writer
	lines   *gapLines
	attempt upload.Attempt
}

// stream archives and completes both streams. Gaps come first: an artifact whose gaps are not stored is not reported.
func (r *run) stream(ctx context.Context, item item, root string, to streams) (*stored, error) {
	abandoned, err := abandonedGap(item, to)
	if err != nil {
		return nil, err
	}
	frozen := r.Frozen(item.ID)
	archived, err := archive.Write(ctx, to.writer, root, r.options(ctx, item, to.lines))
	if err != nil {
		return nil, err
	}
	frozen = frozen && r.Frozen(item.ID)
	gapsObject, err := to.lines.finish()
	if err != nil {
		return nil, err
	}
	uploaded, err := to.writer.Finish()
	if err != nil {
		return nil, err
	}
	if uploaded.SHA256 != archived.SHA256 {
		return nil, fmt.Errorf("%w: %s and %s", errDigest, uploaded.SHA256, archived.SHA256)
	}
	r.past.Files += archived.Entries
	r.past.BytesRead += archived.BytesRead
	r.past.BytesStored += archived.BytesWritten
	artifact := v1alpha1.Artifact{
		Name:             item.artifact,
		Kind:             v1alpha1.ArtifactRootFilesystem,
		Container:        item.Name,
		MediaType:        item.mediaType,
		Segments:         uploaded.Objects(),
		Size:             uploaded.Size,
		SHA256:           uploaded.SHA256,
		MerkleRoot:       archived.MerkleRoot,
		Entries:          archived.Entries,
		FrozenThroughout: frozen,
		Truncated:        archived.Truncated,
	}
	gaps := append(abandoned, prefixed(item.artifact, archived.Gaps)...)
	return &stored{artifact, gaps, gapsObject}, nil
}

func (r *run) options(ctx context.Context, item item, lines *gapLines) archive.Options {
	action := r.order.Action
	format := archive.Zstd
	if action.Compression == v1alpha1.CompressionGzip {
		format = archive.Gzip
	}
	return archive.Options{
		Format:      format,
		MaxBytes:    action.MaxBytes.Value(),
		MaxEntries:  action.MaxEntries,
		MaxDuration: duration(ctx, action.MaxDuration.Duration),
		Artifact:    item.artifact,
		Gaps:        lines,
		Progress: func(p archive.Progress) {
			if r.progress == nil {
				return
			}
			r.progress(v1alpha1.Progress{
				CurrentArtifact: item.artifact,
				Files:           r.past.Files + p.Entries,
				BytesRead:       r.past.BytesRead + p.BytesRead,
				BytesStored:     r.past.BytesStored + p.BytesWritten,
			})
		},
	}
}

// duration is how long an archive may take: an artifact that ends before the order does is truncated and says so, one that
// does not is lost.
func duration(ctx context.Context, limit time.Duration) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return limit
	}
	left := max(time.Until(deadline)-reserve, time.Second)
	if limit == 0 {
		return left
	}
	return min(limit, left)
}
