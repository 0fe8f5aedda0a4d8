package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// gapLines stores lines of JSON in an object that is started with the first one.
type gapLines struct {
	previous *v1alpha1.StoredObject
	start    func() (*single, error)
	object   *single
}

// previousLine is the first line of an object that follows another one.
type previousLine struct {
	Previous *v1alpha1.StoredObject `json:"previous"`
}

// Write takes whole lines.
func (g *gapLines) Write(line []byte) (int, error) {
	if g.object == nil {
		started, err := g.start()
		if err != nil {
			return 0, err
		}
		g.object = started
		if g.previous != nil {
			if err := g.writeLine(previousLine{g.previous}); err != nil {
				return 0, err
			}
		}
	}
	return g.object.Write(line)
}

func (g *gapLines) writeLine(value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("describe gap: %w", err)
	}
	_, err = g.Write(append(line, '\n'))
	return err
}

// finish returns the object, or nil when there was no line, and the gaps of keys that were taken when it was begun: it
// names them itself.
func (g *gapLines) finish(artifact string) (*v1alpha1.StoredObject, []evidence.Gap, error) {
	if g.object == nil {
		return nil, nil, nil
	}
	taken, err := abandoned(g, artifact, g.object.upload.Abandoned())
	if err != nil {
		return nil, nil, err
	}
	started := g.object
	g.object = nil
	result, err := started.finish()
	if err != nil {
		return nil, nil, err
	}
	return object(result), taken, nil
}

func (g *gapLines) abort(cause error) {
	if g.object != nil {
		g.object.abort(cause)
	}
}

// abandoned records the keys that earlier tries or strangers took and that are no part of the artifact.
func abandoned(lines *gapLines, artifact string, lists ...[]string) ([]evidence.Gap, error) {
	keys := slices.Concat(lists...)
	for _, key := range keys {
		gap := evidence.GapLine{
			Artifact: artifact, Path: key, Reason: evidence.GapAttemptAbandoned,
			Message: "an earlier try or a stranger took this key, which may hold an object that stays locked",
		}
		if err := lines.writeLine(gap); err != nil {
			return nil, err
		}
	}
	return abandonedCount(keys), nil
}

func abandonedCount(keys []string) []evidence.Gap {
	if len(keys) == 0 {
		return nil
	}
	message := "an earlier try or a stranger took the key " + keys[0] + ", which may hold an object that stays locked"
	return []evidence.Gap{{Reason: evidence.GapAttemptAbandoned, Message: message, Count: int64(len(keys))}}
}

// missingPart is a part that cannot be captured any more.
type missingPart struct {
	name string
	lost Lost
}

// leftBehind are the keys that tries at a part took which did not succeed, but those on record.
func (r *run) leftBehind(part string) []string {
	keys := slices.Clone(r.left[part])
	if r.result.Storing == nil {
		return keys
	}
	return slices.DeleteFunc(keys, func(key string) bool {
		return slices.ContainsFunc(r.result.Storing.Segments, func(s v1alpha1.StoredObject) bool { return s.Key == key })
	})
}

// missingGaps counts lost parts by reason, and the keys that were taken for them, and names as many in the message as it has
// room for.
func (r *run) missingGaps() []evidence.Gap {
	var gaps []evidence.Gap
	for _, part := range r.missing {
		lost := evidence.Gap{Reason: part.lost.Reason, Message: part.name + ": " + part.lost.Cause.Error(), Count: 1}
		for _, gap := range append(abandonedCount(r.leftBehind(part.name)), lost) {
			gaps = counted(gaps, gap)
		}
	}
	return gaps
}

// counted adds a gap to those of its reason.
func counted(gaps []evidence.Gap, gap evidence.Gap) []evidence.Gap {
	at := slices.IndexFunc(gaps, func(g evidence.Gap) bool { return g.Reason == gap.Reason })
	if at < 0 {
		return append(gaps, gap)
	}
	gaps[at].Count += gap.Count
	if len(gaps[at].Message) < v1alpha1.MaxGapMessage {
		gaps[at].Message += "; " + gap.Message
	}
	return gaps
}

// recordMissing adds the gaps of parts that are lost, and of what is no part.
func (r *run) recordMissing(ctx context.Context, others []evidence.Gap) error {
	if len(r.missing)+len(others) == 0 {
		return nil
	}
	if r.shut != nil {
		return fmt.Errorf("store gaps: %w", r.shut)
	}
	depot := r.depot(r.store, r.order.Action.Destination, r.seal)
	lines := &gapLines{previous: r.result.GapsObject, start: func() (*single, error) {
		return depot.single(ctx, "missing.gaps.jsonl", false)
	}}
	object, taken, err := r.writeMissing(lines, others)
	if err != nil {
		lines.abort(err)
		return fmt.Errorf("store gaps: %w", err)
	}
	r.result.GapsObject = object
	r.merge(slices.Concat(others, r.missingGaps(), taken))
	return nil
}

func (r *run) writeMissing(lines *gapLines, others []evidence.Gap) (*v1alpha1.StoredObject, []evidence.Gap, error) {
	for _, gap := range others {
		if err := lines.writeLine(gap); err != nil {
			return nil, nil, err
		}
	}
	for _, part := range r.missing {
		gap := evidence.GapLine{Artifact: part.name, Path: ".", Reason: part.lost.Reason, Message: part.lost.Cause.Error()}
		if err := lines.writeLine(gap); err != nil {
			return nil, nil, err
		}
		if _, err := abandoned(lines, part.name, r.leftBehind(part.name)); err != nil {
			return nil, nil, err
		}
	}
	return lines.finish("missing.gaps.jsonl")
}

// merge adds counts to those of the same reason; the first message of a reason stays.
func (r *run) merge(gaps []evidence.Gap) {
	for _, gap := range gaps {
		at := slices.IndexFunc(r.result.Gaps, func(c v1alpha1.GapCount) bool { return c.Reason == gap.Reason })
		if at >= 0 {
			r.result.Gaps[at].Count += gap.Count
			continue
		}
		count := v1alpha1.GapCount{Reason: gap.Reason, Message: bounded(gap.Message), Count: gap.Count}
		r.result.Gaps = append(r.result.Gaps, count)
	}
	slices.SortFunc(r.result.Gaps, func(a, b v1alpha1.GapCount) int { return strings.Compare(a.Reason, b.Reason) })
}

func prefixed(artifact string, gaps []evidence.Gap) []evidence.Gap {
	for i := range gaps {
		gaps[i].Message = artifact + ": " + gaps[i].Message
	}
	return gaps
}

func bounded(message string) string {
	if len(message) > v1alpha1.MaxGapMessage {
		const mark = "…"
		message = message[:v1alpha1.MaxGapMessage-len(mark)] + mark
	}
	return strings.ToValidUTF8(message, "?")
}
