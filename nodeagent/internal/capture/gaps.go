package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/archive"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

// GapNotCaptured counts containers of which nothing was captured.
const GapNotCaptured = "ContainerNotCaptured"

// maxMessage is the bound of a status message in bytes.
const maxMessage = 2048

// gapLines stores lines of JSON in an object that is started with the first one.
type gapLines struct {
	previous *v1alpha1.StoredObject
	start    func() *upload.Object
	object   *upload.Object
}

// previousLine is the first line of an object that follows another one.
type previousLine struct {
	Previous *v1alpha1.StoredObject `json:"previous"`
}

// Write takes whole lines.
func (g *gapLines) Write(line []byte) (int, error) {
	if g.object == nil {
		g.object = g.start()
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

// finish returns the object, or nil when there was no line.
func (g *gapLines) finish() (*v1alpha1.StoredObject, error) {
	if g.object == nil {
		return nil, nil
	}
	object := g.object
	g.object = nil
	stored, err := object.Finish()
	if err != nil {
		return nil, err
	}
	return &stored, nil
}

func (g *gapLines) abort(cause error) {
	if g.object != nil {
		g.object.Abort(cause)
	}
}

// abandonedGap records the attempts before this one.
func abandonedGap(item item, to streams) ([]evidence.Gap, error) {
	folders := to.attempt.Abandoned
	if len(folders) == 0 {
		return nil, nil
	}
	for _, folder := range folders {
		gap := archive.Gap{
			Artifact: item.artifact, Path: folder, Reason: GapAbandonedAttempt,
			Message: "this attempt did not report; its segments stay locked here",
		}
		if err := to.lines.writeLine(gap); err != nil {
			return nil, err
		}
	}
	message := fmt.Sprintf("%s: an attempt did not report; its segments stay locked under %s", item.artifact, folders[0])
	return []evidence.Gap{{Reason: GapAbandonedAttempt, Message: message, Count: int64(len(folders))}}, nil
}

// missingContainer is a container that has nothing to capture any more.
type missingContainer struct {
	item
	cause error
}

// recordMissing adds the gaps of containers that are gone.
func (r *run) recordMissing(ctx context.Context, missing []missingContainer) error {
	if len(missing) == 0 {
		return nil
	}
	target := r.target("missing-containers")
	attempt, err := upload.Claim(ctx, r.store, target)
	if err != nil {
		return fmt.Errorf("store gaps: %w", err)
	}
	lines := &gapLines{previous: r.result.GapsObject, start: func() *upload.Object {
		return upload.Start(ctx, r.store, attempt.Folder+"/gaps.jsonl", target.Lock)
	}}
	var gaps []evidence.Gap
	for _, container := range missing {
		gap := archive.Gap{
			Artifact: container.artifact, Path: container.ID, Reason: GapNotCaptured, Message: container.cause.Error(),
		}
		if err := lines.writeLine(gap); err != nil {
			lines.abort(err)
			return fmt.Errorf("store gaps: %w", err)
		}
		message := fmt.Sprintf("%s: %v", container.artifact, container.cause)
		gaps = append(gaps, evidence.Gap{Reason: GapNotCaptured, Message: message, Count: 1})
	}
	object, err := lines.finish()
	if err != nil {
		return fmt.Errorf("store gaps: %w", err)
	}
	r.result.GapsObject = object
	r.merge(gaps)
	return nil
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
	if len(message) > maxMessage {
		const mark = "…"
		message = message[:maxMessage-len(mark)] + mark
	}
	return strings.ToValidUTF8(message, "?")
}
