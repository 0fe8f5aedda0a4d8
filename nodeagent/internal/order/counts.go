package order

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// flowsWithin bounds what a store that is away can cost of the time to the release.
const flowsWithin = 5 * time.Second

// errNoCapture is why flows at a release have no place to be stored.
var errNoCapture = errors.New("no capture was ordered, which would say where")

// observe brings the hooks' and flows' counts up to date. An earlier start, or an earlier attempt, that got past the detach
// left them in its record. What cannot be observed does not keep the pod, and leaves the release a success, since one that is
// not is ordered again: it is a gap of the record, which is what is signed.
func (u *unfreezeStep) observe(ctx context.Context, containment *v1alpha1.Containment) {
	uid := u.record.response.Spec.PodRef.UID
	hooks, err := u.node.Drop.Observe(uid)
	since, sinceErr := u.node.Drop.CountedSince(uid)
	err = errors.Join(err, sinceErr)
	if err != nil {
		u.lack(evidence.GapDropCountsNotRead, 1, fmt.Sprintf("the last counts of the drop are lost: %v", err))
	}
	if len(hooks) == 0 {
		u.takeOver(ctx, containment, err != nil)
		return
	}
	if err == nil {
		u.record.has(evidence.GapDropCountsNotRead)
	}
	u.interrupted(updateHooks(containment, observed{hooks: hooks, since: since, whole: err == nil}))
	u.keepFlows(ctx, containment)
}

// takeOver is for a drop that is not there, or not to be read: what an earlier start or attempt had read of it counts. A pod
// that nothing says was ever cut off has no counts to lack.
func (u *unfreezeStep) takeOver(ctx context.Context, containment *v1alpha1.Containment, unread bool) {
	earlier, err := u.earlier(ctx)
	switch {
	case err != nil:
		u.lack(evidence.GapDropCountsNotRead, 1, fmt.Sprintf("the drop is gone, and whether its counts were read before is not known: %v", err))
		u.lack(evidence.GapFlowsNotRead, 1, fmt.Sprintf("the drop is gone, and whether its flows were read before is not known: %v", err))
	case earlier != nil:
		containment.Hooks, containment.Flows, containment.FlowsObject = earlier.Containment.Hooks, earlier.Containment.Flows, earlier.Containment.FlowsObject
		for _, gap := range slices.Clone(earlier.Gaps) {
			u.record.lack(gap)
		}
	case unread:
		u.keepFlows(ctx, containment)
	case !u.untouched(ctx, *containment):
		u.lack(evidence.GapDropCountsNotRead, 1, "the drop was gone before this order came to read its counts")
		u.lack(evidence.GapFlowsNotRead, 1, "the drop was gone before this order came to read its flows")
	}
}

// untouched says whether podfreeze recorded that it cut nothing off, or was never ordered. A record that somebody else closed
// does not say.
func (u *unfreezeStep) untouched(ctx context.Context, containment v1alpha1.Containment) bool {
	if containment.Level != v1alpha1.LevelPolicyOnly || len(containment.Hooks) > 0 {
		return false
	}
	freeze := new(v1alpha1.EventResponse)
	name := v1alpha1.ResponseName(u.record.response.Spec.IncidentName, v1alpha1.StepFreeze, 1)
	err := u.node.Client.Get(ctx, client.ObjectKey{Name: name}, freeze)
	return apierrors.IsNotFound(err) || (err == nil && freeze.Status.Containment != nil)
}

// earlier is the status of this order as an earlier start left it, or that of the last attempt that came to read the drop; nil
// when none did. An attempt whose time was up, or that its agent could not begin, lies between and says nothing. The cache may
// not show it yet.
func (u *unfreezeStep) earlier(ctx context.Context) (*v1alpha1.EventResponseStatus, error) {
	if own := u.record.status(); own.Containment != nil {
		return own, nil
	}
	spec := u.record.response.Spec
	for attempt := spec.Attempt; attempt > 0; attempt-- {
		before := new(v1alpha1.EventResponse)
		err := u.node.Live.Get(ctx, client.ObjectKey{Name: v1alpha1.ResponseName(spec.IncidentName, v1alpha1.StepUnfreeze, attempt)}, before)
		if client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		if err == nil && before.Status.Containment != nil && before.Spec.IncidentUID == spec.IncidentUID {
			return &before.Status, nil
		}
	}
	return nil, nil
}

// keepFlows stores the list of flows as it stands at the end. Until that is done, what an earlier start stored stays named.
func (u *unfreezeStep) keepFlows(ctx context.Context, containment *v1alpha1.Containment) {
	if own := u.record.status().Containment; own != nil {
		containment.Flows, containment.FlowsObject = own.Flows, own.FlowsObject
	}
	flows, err := u.node.Drop.Flows(u.record.response.Spec.PodRef.UID)
	if err != nil {
		u.lack(evidence.GapFlowsNotRead, 1, fmt.Sprintf("the list of dropped flows is lost: %v", err))
		return
	}
	u.record.has(evidence.GapFlowsNotRead)
	containment.Flows = &flows.Counts
	if len(flows.List) == 0 {
		u.notes = append(u.notes, "0 dropped flows")
		return
	}
	stored, err := u.storeFlows(ctx, flows.List)
	if err != nil {
		u.lack(evidence.GapFlowsNotStored, int64(len(flows.List)), fmt.Sprintf("the list of %d dropped flows is not stored: %v", len(flows.List), err))
		return
	}
	u.record.has(evidence.GapFlowsNotStored)
	containment.FlowsObject = &stored
	u.nameTaken(stored.Key)
}

// storeFlows stores a list of flows where the capture was ordered to store.
func (u *unfreezeStep) storeFlows(ctx context.Context, list []evidence.Flow) (v1alpha1.StoredObject, error) {
	ctx, cancel := context.WithTimeout(ctx, flowsWithin)
	defer cancel()
	snapshot := new(v1alpha1.EventResponse)
	name := v1alpha1.ResponseName(u.record.response.Spec.IncidentName, v1alpha1.StepSnapshot, 1)
	err := u.node.Client.Get(ctx, client.ObjectKey{Name: name}, snapshot)
	if client.IgnoreNotFound(err) != nil {
		return v1alpha1.StoredObject{}, fmt.Errorf("read the order to capture: %w", err)
	}
	action := snapshot.Spec.Action.FilesystemSnapshot
	if action == nil {
		return v1alpha1.StoredObject{}, errNoCapture
	}
	return u.node.Capture.StoreFlows(ctx, FlowsTarget{Destination: action.Destination, Name: "flows-at-release.ndjson.zst"}, list)
}

// lack notes what the record does not have, and counts it as a gap.
func (u *unfreezeStep) lack(reason string, times int64, message string) {
	u.notes = append(u.notes, message)
	u.record.lack(v1alpha1.GapCount{Reason: reason, Count: times, Message: cut(message, v1alpha1.MaxGapMessage)})
}

// nameTaken counts the keys that others had taken before the list of flows found a free one. The last element of a key is
// a number; those below it were taken by somebody else, or by an earlier start of this order.
func (u *unfreezeStep) nameTaken(key string) {
	taken, err := strconv.ParseInt(path.Base(key), 10, 32)
	if err != nil || taken <= 0 {
		return
	}
	u.record.lack(v1alpha1.GapCount{
		Reason: evidence.GapAttemptAbandoned, Count: taken,
		Message: fmt.Sprintf("%d keys before %s were taken, which may hold objects that stay locked", taken, key),
	})
}
