package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

const (
	// rounds are the tries at a part that fails for a reason of its own, before it is a gap.
	rounds = 8
	// firstPause before the second round doubles with each: two minutes in all, in which the runtime may be started again.
	firstPause = time.Second
)

// errNoTime is why a part was not begun.
var errNoTime = errors.New("the order's time was up before it was begun")

// errBegun is why a part is not stored that is in no plan any more.
var errBegun = errors.New("an earlier call had begun it, or came to it next, and now the pod has it no more, or a response no room for it")

// notPersisted is the caller's error: what is stored is not on record.
type notPersisted struct{ cause error }

func (n notPersisted) Error() string { return n.cause.Error() }

// Unwrap returns the cause.
func (n notPersisted) Unwrap() error { return n.cause }

// failure is why a part is not captured yet.
type failure struct {
	// part by name; empty for the look for parts, and for the store.
	part string
	err  error
}

// waits says of a failure that it is none of the part's own: the store or the API server is waited for, for as long as the
// order lasts. A key that is taken, or bytes that the store altered, are of one object.
func (f failure) waits() bool {
	if _, ok := errors.AsType[notPersisted](f.err); ok {
		return true
	}
	_, store := errors.AsType[upload.StoreError](f.err)
	return store && !errors.Is(f.err, worm.ErrExists) && !errors.Is(f.err, worm.ErrAltered)
}

func joined(failed []failure) error {
	errs := make([]error, len(failed))
	for i := range failed {
		errs[i] = failed[i].err
	}
	return errors.Join(errs...)
}

// round tries every part that is neither stored nor lost. One that fails does not keep the others: what is left of it can
// wait, they may not. It ends early, once for each part, when the store is back that a more volatile part waits for, and when
// a second look finds what the first one did not.
func (r *run) round(ctx context.Context) (failed []failure, early bool) {
	if !r.planned {
		failed = r.plan(ctx)
	}
	looked := r.planned
	for i := range r.parts {
		part := &r.parts[i]
		if r.settled(part.Name) || part.Kind == v1alpha1.ArtifactPodDescription && (len(failed) > 0 || r.window.over()) {
			// A description names what is missing: it is made when nothing is left to be tried again.
			continue
		}
		if !looked && lasting(part.Kind) && !r.window.over() {
			looked = true
			if r.planAgain(ctx) {
				return failed, true
			}
		}
		if err := r.attempt(ctx, part); err != nil {
			r.why[part.Name] = err
			failed = append(failed, failure{part.Name, err})
		} else if r.has(part.Name) && r.storeIsBack(failed) {
			return failed, true
		}
		if ctx.Err() != nil && !r.window.over() {
			break
		}
	}
	return failed, false
}

// storeIsBack says, after a part was stored, whether another one waits that was not tried again in this call.
func (r *run) storeIsBack(failed []failure) bool {
	back := false
	for _, f := range failed {
		if f.waits() && !r.waited[f.part] {
			r.waited[f.part], back = true, true
		}
	}
	return back
}

// settled says whether there is nothing left to try of a part.
func (r *run) settled(part string) bool {
	if r.has(part) {
		return true
	}
	for _, missing := range r.missing {
		if missing.name == part {
			return true
		}
	}
	return false
}

func (r *run) attempt(ctx context.Context, part *Part) error {
	if r.window.over() {
		return cmp.Or(r.why[part.Name], r.shut, errNoTime)
	}
	return r.capture(ctx, part)
}

// capture stores a part, or puts it down as lost.
func (r *run) capture(ctx context.Context, part *Part) error {
	err := r.part(ctx, part)
	if lost, ok := errors.AsType[Lost](err); ok {
		if err := r.findLeft(ctx, part.Name); err != nil {
			return fmt.Errorf("%w; look for what an earlier call stored of it: %w", lost, err)
		}
		r.missing = append(r.missing, missingPart{part.Name, lost})
		if len(r.left[part.Name]) == 0 {
			r.result.Begun = without(r.result.Begun, part.Name)
		}
		return nil
	}
	return err
}

// finish makes the descriptions and names what is missing, which is not persisted before the end: each call finds it anew,
// and counts it once. A store that went away meanwhile is waited for by the next call. When the order's time is up, what cannot be named in the store is counted all the same.
func (r *run) finish(ctx, within context.Context, failed []failure) error {
	for i := range r.parts {
		part := &r.parts[i]
		if part.Kind != v1alpha1.ArtifactPodDescription || r.settled(part.Name) {
			continue
		}
		err := r.shut
		if err == nil {
			err = r.capture(within, part)
		}
		if err != nil {
			failed = append(failed, failure{part.Name, err})
		}
	}
	if !r.window.over() && slices.ContainsFunc(failed, failure.waits) {
		return joined(failed)
	}
	lost := len(r.missing)
	gaps := r.notStored(failed)
	if err := r.findAllLeft(ctx, r.missing[lost:]); err != nil {
		return err
	}
	naming, cancel := until(ctx, r.window.named)
	defer cancel()
	err := r.recordMissing(naming, gaps)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil || !r.window.over():
		return err
	}
	r.merge(append(gaps, r.missingGaps()...))
	return nil
}

// findAllLeft finds the keys that earlier calls took of parts, and says of a part where it cannot. A store that is away is
// waited for by the next call, if there is time for one.
func (r *run) findAllLeft(ctx context.Context, missing []missingPart) error {
	ctx, cancel := until(ctx, r.window.found)
	defer cancel()
	for i := range missing {
		part := &missing[i]
		err := r.findLeft(ctx, part.name)
		if err == nil {
			continue
		}
		if f := (failure{part.name, err}); f.waits() && !r.window.over() {
			return err
		}
		part.lost.Cause = fmt.Errorf("%w; what an earlier call stored of it is not known: %w", part.lost.Cause, err)
	}
	return nil
}

// notStored makes gaps of what failed to the end, and returns those that are of no part.
func (r *run) notStored(failed []failure) []evidence.Gap {
	gaps := r.gaps
	if storing := r.result.Storing; storing != nil && !r.settled(storing.Artifact) {
		r.missing = append(r.missing, missingPart{storing.Artifact, r.notCompleted(r.why[storing.Artifact])})
	}
	for _, f := range failed {
		switch {
		case f.part == "":
			gaps = append(gaps, evidence.Gap{Reason: evidence.GapArtifactNotStored, Message: f.err.Error(), Count: 1})
		case r.settled(f.part):
		default:
			lost, ok := errors.AsType[Lost](f.err)
			if !ok {
				lost = Lost{evidence.GapArtifactNotStored, f.err}
			}
			r.missing = append(r.missing, missingPart{f.part, lost})
		}
	}
	for _, name := range r.result.Begun {
		if !r.settled(name) {
			r.missing = append(r.missing, missingPart{name, Lost{evidence.GapArtifactNotStored, errBegun}})
		}
	}
	return gaps
}
