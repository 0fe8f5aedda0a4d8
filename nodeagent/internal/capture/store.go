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
			r.result.Begun = r.begunAfter(part.Name)
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

// announce has the caller write down that an artifact is begun, so that what is stored of it is looked for after a crash even
// where the pod has it no more.
func (r *run) announce(artifact string) {
	if slices.Contains(r.result.Begun, artifact) || len(r.result.Begun) >= v1alpha1.MaxArtifacts {
		return
	}
	r.result.Begun = append(slices.Clone(r.result.Begun), artifact)
	if r.order.Begun != nil {
		r.order.Begun(r.result)
	}
}

// begunAfter is what is begun when an artifact was stored: the one that comes next is announced with the same write.
func (r *run) begunAfter(artifact string) []string {
	begun := without(r.result.Begun, artifact)
	at := slices.IndexFunc(r.parts, func(p Part) bool { return p.Name == artifact })
	for i := range r.parts[at+1:] {
		next := r.parts[at+1+i].Name
		if r.settled(next) {
			continue
		}
		if !slices.Contains(begun, next) && len(begun) < v1alpha1.MaxArtifacts {
			begun = append(begun, next)
		}
		break
	}
	return begun
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(other string) bool { return other == name })
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
	depot := r.depot(r.store, r.order.Action.Destination, r.seal)
	lines := &gapLines{previous: r.result.GapsObject, start: func() (*single, error) {
		return depot.single(ctx, r.beside(part.Name, ".gaps.jsonl"), false)
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

// findLeft finds the keys that earlier calls took of a part that is lost: what they stored and did not live to record is
// named by them.
func (r *run) findLeft(ctx context.Context, part string) error {
	switch {
	case !r.order.Again:
		return nil
	case r.shut != nil:
		return r.shut
	}
	// No index, timeline or list of gaps is complete before the artifact is.
	names := []string{part, r.beside(part, ".gaps.jsonl")}
	if strings.HasSuffix(part, r.extension()) {
		names = append(names, r.beside(part, ".index.ndjson.zst"), r.beside(part, ".timeline.body.zst"))
	}
	depot := r.depot(r.store, r.order.Action.Destination, r.seal)
	for _, name := range names {
		options := depot.options(name)
		if storing := r.result.Storing; storing != nil && storing.Artifact == name {
			options.Resume = storing.Segments
		}
		if err := depot.writer(ctx, options).Look(); err != nil {
			return err
		}
		if len(depot.taken()) == 0 {
			break
		}
	}
	r.leave(part, depot.taken())
	return nil
}

// beside names an object that goes with the part's artifact.
func (r *run) beside(part, suffix string) string {
	return strings.TrimSuffix(part, r.extension()) + suffix
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
	r.announce(part.Name)
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
