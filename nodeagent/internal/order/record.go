package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	fieldOwner = "ugallu-forensics-nodeagent"
	// messageBytes is what a condition's message may hold.
	messageBytes = 32768
)

// errClosed says that the record was closed meanwhile, by the controller or by an earlier start of ours whose write this
// process had not yet seen. A closed record is final.
var errClosed = errors.New("the record is closed")

// record is the status of one order while it is carried out. It is not safe for concurrent use.
type record struct {
	node     Node
	response *v1alpha1.EventResponse
	stored   *v1alpha1.EventResponse // as last read or written
	begun    bool
}

func newRecord(node Node, response *v1alpha1.EventResponse) *record {
	return &record{node: node, response: response.DeepCopy(), stored: response.DeepCopy()}
}

func (r *record) status() *v1alpha1.EventResponseStatus { return &r.response.Status }

// lack counts a gap, in place of what an earlier start counted of its reason.
func (r *record) lack(gap v1alpha1.GapCount) {
	r.has(gap.Reason)
	r.status().Gaps = append(r.status().Gaps, gap)
}

// has takes a gap back that an earlier start counted: this one has what that one lacked.
func (r *record) has(reason string) {
	r.status().Gaps = slices.DeleteFunc(r.status().Gaps, func(gap v1alpha1.GapCount) bool { return gap.Reason == reason })
}

// begin counts this start and says who reports. It writes nothing: the first write carries it.
func (r *record) begin() {
	if r.begun {
		return
	}
	r.begun = true
	now := metav1.NewMicroTime(r.node.Clock.Now())
	r.status().Attempts++
	if r.status().StartedAt == nil {
		r.status().StartedAt = &now
	}
	reporter := r.node.Reporter.report(now)
	r.status().Reporter = &reporter
}

// write stores the status as it stands while the order runs.
func (r *record) write(ctx context.Context, message string) error {
	return r.writeAs(ctx, v1alpha1.ReasonRunning, message)
}

func (r *record) writeAs(ctx context.Context, reason, message string) error {
	r.begin()
	r.set(metav1.ConditionUnknown, result{reason, message})
	return r.patch(ctx)
}

// note stores why a start did not get through, so that it can be seen without the log. A record that is closed, or that
// cannot be written because the process ends, takes no note.
func (r *record) note(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the process ends; the next one starts over
	}
	reason := v1alpha1.ReasonRunning
	if trouble, ok := errors.AsType[Trouble](cause); ok {
		reason = trouble.Reason
	}
	if err := r.writeAs(ctx, reason, cause.Error()); err != nil && !errors.Is(err, errClosed) {
		return err
	}
	return nil
}

// lastNote is what the last start that did not get through left.
func (r *record) lastNote() string {
	complete := meta.FindStatusCondition(r.status().Conditions, v1alpha1.ConditionComplete)
	if complete == nil {
		return ""
	}
	return complete.Message
}

// close ends the record with the status that closed returned.
func (r *record) close(ctx context.Context, ended v1alpha1.EventResponseStatus) error {
	r.begun = true
	ended.DeepCopyInto(r.status())
	return r.patch(ctx)
}

// closed is the response as it ends, which close writes.
func (r *record) closed(ended result) *v1alpha1.EventResponse {
	copied := &record{node: r.node, response: r.response.DeepCopy(), begun: r.begun}
	copied.begin()
	copied.end(ended)
	return copied.response
}

func (r *record) end(ended result) {
	done := metav1.ConditionTrue
	if ended.reason != v1alpha1.ReasonSucceeded && ended.reason != v1alpha1.ReasonPartial {
		done = metav1.ConditionFalse
	}
	now := metav1.NewMicroTime(r.node.Clock.Now())
	r.status().CompletedAt = &now
	r.set(done, ended)
}

func (r *record) set(done metav1.ConditionStatus, ended result) {
	meta.SetStatusCondition(&r.status().Conditions, metav1.Condition{
		Type: v1alpha1.ConditionComplete, Status: done, Reason: ended.reason, Message: cut(ended.message, messageBytes),
		ObservedGeneration: r.response.Generation, LastTransitionTime: metav1.NewTime(r.node.Clock.Now()),
	})
	r.status().Phase = phase(*r.status())
}

// cut shortens a text to so many bytes, between two characters.
func cut(text string, bytes int) string {
	if len(text) <= bytes {
		return text
	}
	for !utf8.RuneStart(text[bytes]) {
		bytes--
	}
	return text[:bytes]
}

// phase of a status. An order that ended otherwise than wanted is Partial when something was reached all the same.
func phase(status v1alpha1.EventResponseStatus) v1alpha1.ResponsePhase {
	complete := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionComplete)
	switch {
	case complete == nil:
		return v1alpha1.ResponsePending
	case complete.Status == metav1.ConditionUnknown:
		return v1alpha1.ResponseRunning
	case complete.Status == metav1.ConditionTrue && complete.Reason == v1alpha1.ReasonSucceeded:
		return v1alpha1.ResponseSucceeded
	case complete.Status == metav1.ConditionTrue, len(status.Artifacts) > 0, reached(status.Containment):
		return v1alpha1.ResponsePartial
	}
	return v1alpha1.ResponseFailed
}

// reached says whether anything of a containment is in place.
func reached(containment *v1alpha1.Containment) bool {
	return containment != nil && (containment.ContainedAt != nil || slices.ContainsFunc(containment.Containers,
		func(container v1alpha1.ContainerFreeze) bool { return container.FrozenAt != nil }))
}

// patch writes the status under an optimistic lock. Another writer of the object, such as one of its labels, is no
// conflict of ours; a record that it closed is.
func (r *record) patch(ctx context.Context) error {
	name := client.ObjectKeyFromObject(r.response)
	for {
		wanted := r.response.DeepCopy()
		patch := client.MergeFromWithOptions(r.stored, client.MergeFromWithOptimisticLock{})
		err := r.node.Client.Status().Patch(ctx, wanted, patch, client.FieldOwner(fieldOwner))
		if err == nil {
			r.stored, r.response = wanted.DeepCopy(), wanted
			return nil
		}
		if !apierrors.IsConflict(err) {
			return fmt.Errorf("write the status of %s: %w", name.Name, err)
		}
		fresh := new(v1alpha1.EventResponse)
		if err := r.node.Live.Get(ctx, name, fresh); err != nil {
			return fmt.Errorf("read %s after a conflict: %w", name.Name, err)
		}
		if fresh.Status.CompletedAt != nil {
			return errClosed
		}
		r.adopt(fresh)
	}
}

// further says whether one record of the artifact that is being stored names more than another.
func further(one, other *v1alpha1.Storing) bool {
	switch {
	case one == nil:
		return false
	case other == nil:
		return true
	}
	return one.Artifact == other.Artifact && len(one.Segments) > len(other.Segments)
}

func stored(artifacts []v1alpha1.Artifact, name string) bool {
	return slices.ContainsFunc(artifacts, func(artifact v1alpha1.Artifact) bool { return artifact.Name == name })
}

// sameStart says whether two reports are of one start.
func sameStart(one, other *v1alpha1.Reporter) bool {
	return one != nil && other != nil && one.PodUID == other.PodUID && one.BootID == other.BootID && one.BoottimeNanos == other.BoottimeNanos
}

// adopt puts our status on a newer version of the object. What an earlier start stored and this one had not read stays. Where
// this start wrote it, and was not told that it had, ours is what came of it.
func (r *record) adopt(fresh *v1alpha1.EventResponse) {
	ours := r.response.Status
	r.stored, r.response = fresh.DeepCopy(), fresh.DeepCopy()
	if !sameStart(fresh.Status.Reporter, ours.Reporter) {
		succeed(&ours, fresh)
	}
	if ours.Containment == nil {
		ours.Containment = fresh.Status.Containment
	}
	if fresh.Status.StartedAt != nil {
		ours.StartedAt = fresh.Status.StartedAt
	}
	r.response.Status = ours
}

// succeed takes what an earlier start left into the status of this one, and counts this one.
func succeed(ours *v1alpha1.EventResponseStatus, fresh *v1alpha1.EventResponse) {
	if len(fresh.Status.Artifacts) > len(ours.Artifacts) {
		ours.Artifacts, ours.Gaps, ours.GapsObject = fresh.Status.Artifacts, fresh.Status.Gaps, fresh.Status.GapsObject
		ours.Storing = fresh.Status.Storing
	} else if further(fresh.Status.Storing, ours.Storing) && !stored(ours.Artifacts, fresh.Status.Storing.Artifact) {
		ours.Storing = fresh.Status.Storing
	}
	for _, name := range fresh.Status.Begun {
		room := len(ours.Begun) < v1alpha1.MaxArtifacts
		if room && !slices.Contains(ours.Begun, name) && !stored(ours.Artifacts, name) {
			ours.Begun = append(slices.Clone(ours.Begun), name)
		}
	}
	if ours.Attempts <= fresh.Status.Attempts {
		ours.Attempts = fresh.Status.Attempts + 1
	}
}
