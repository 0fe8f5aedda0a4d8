package incident

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// attempts at podunfreeze before a person must act; each is cheap and can be repeated.
	attempts = 10
	// maxAttempts is how many that person may order in all. The schema has room for a hundred: one more is made whenever the
	// node is gone.
	maxAttempts = 25
	// attemptEvery spaces them.
	attemptEvery = 30 * time.Second
	// nodeCheck is how long a node may stay silent before it is asked whether it still exists, and how often then.
	nodeCheck = time.Minute
	// goneCheck is how often a deleted pod is looked for.
	goneCheck = time.Second
)

// releaseStep orders podunfreeze, and when the node has let the pod go takes the policy and the label away, or the pod.
// It owns the condition Released.
type releaseStep struct {
	orders *orders
	hold   *hold
	// deciding makes two incidents on one pod decide one after the other which of them is the last.
	deciding sync.Mutex

	// away are the nodes that were looked for in vain, by incident.
	away   map[string]absence
	awayMu sync.Mutex
}

// absence of a Node object, from the answer to the first to that to the last of looks in a row.
type absence struct{ since, last time.Time }

func (r *releaseStep) run(ctx context.Context, s *scene) (progress, error) {
	response, err := r.order(ctx, s)
	if err != nil {
		return progress{}, err
	}
	if response.Status.CompletedAt == nil {
		return r.silent(ctx, s, response)
	}
	if !released(response) {
		return r.again(s, response)
	}
	gone, err := r.letGo(ctx, s, response)
	if err != nil || !gone {
		return waiting(goneCheck), err
	}
	_, message := ending(response)
	s.set(v1alpha1.ConditionContained, metav1.ConditionFalse, v1alpha1.ReasonReleased, "the pod is let go")
	s.set(v1alpha1.ConditionReleased, metav1.ConditionTrue, string(releaseReason(s)), message)
	return finished(), nil
}

// order places the attempt that is due: the first, or the one after the last that failed.
func (r *releaseStep) order(ctx context.Context, s *scene) (*v1alpha1.EventResponse, error) {
	r.deciding.Lock()
	defer r.deciding.Unlock()
	last, err := r.orders.last(ctx, s.incident.Name, v1alpha1.StepUnfreeze)
	if err != nil {
		return nil, err
	}
	kept, disposition, err := r.decide(ctx, s, last)
	if err != nil {
		return nil, err
	}
	allowed, _ := allowedAttempts(s.incident)
	if last != nil {
		// What was ordered counts, also where the number was taken back since.
		allowed = max(allowed, last.Spec.Attempt)
	}
	parent := s.parentOfRelease()
	for attempt := int32(1); ; attempt++ {
		response, err := r.orders.place(ctx, s, order{
			step: v1alpha1.StepUnfreeze, attempt: attempt, node: s.incident.Spec.Pod.NodeName, parent: parent,
			action: v1alpha1.Action{Type: v1alpha1.ActionPodUnfreeze, PodUnfreeze: &v1alpha1.PodUnfreezeAction{
				Reason: releaseReason(s), Disposition: disposition, KeepContained: kept,
				Acknowledgements: s.incident.Status.Acknowledgements,
			}},
		})
		if err != nil || !due(response, s.now) {
			return response, err
		}
		if attempt >= allowed {
			// Without the node no attempt of the agent's is left to be waited for: one more is closed in its place. Where that
			// cannot be told, what stands is that this was the last.
			r.nameLast(s, response)
			gone, err := r.nodeGone(ctx, s)
			if err != nil || !gone {
				return response, err
			}
		}
		r.nameFailed(s, response)
		parent = &v1alpha1.Ref{Name: response.Name, UID: string(response.UID)}
	}
}

// decide says whether another incident keeps the pod contained, and what becomes of the pod. The last to let it go deletes
// it when any incident was to: an agent keeps such a pod frozen and cut off, whoever else lets it go.
func (r *releaseStep) decide(
	ctx context.Context, s *scene, last *v1alpha1.EventResponse,
) (kept bool, disposition v1alpha1.Disposition, err error) {
	holder, err := r.heldByOther(ctx, s)
	if err != nil {
		return false, "", err
	}
	if holder != nil {
		return true, s.incident.Spec.Disposition, nil
	}
	doomed, err := r.doomed(ctx, s, last)
	if err != nil {
		return false, "", err
	}
	if doomed {
		return false, v1alpha1.DispositionDelete, nil
	}
	return false, s.incident.Spec.Disposition, nil
}

// doomed says whether the pod is to be deleted. The incident's own last order is looked at first: when it says so, nothing
// is listed at each look at a dying pod.
func (r *releaseStep) doomed(ctx context.Context, s *scene, last *v1alpha1.EventResponse) (bool, error) {
	if last != nil && ordersDeletion(last) {
		return true, nil
	}
	return r.hold.doomed(ctx, s.incident.Spec.Pod)
}

// due says whether another attempt should follow this one now.
func due(response *v1alpha1.EventResponse, now time.Time) bool {
	return response.Status.CompletedAt != nil && !released(response) && now.Sub(response.Status.CompletedAt.Time) >= attemptEvery
}

// released says whether an attempt that has ended leaves nothing for another: the node let the pod go, or is gone.
func released(response *v1alpha1.EventResponse) bool {
	reason, _ := ending(response)
	return response.Status.Phase == v1alpha1.ResponseSucceeded || reason == v1alpha1.ReasonNodeGone
}

// again waits for the next attempt.
func (r *releaseStep) again(s *scene, response *v1alpha1.EventResponse) (progress, error) {
	if allowed, _ := allowedAttempts(s.incident); response.Spec.Attempt >= allowed {
		r.nameLast(s, response)
		return waiting(nodeCheck), nil
	}
	r.nameFailed(s, response)
	return waiting(max(attemptEvery-s.now.Sub(response.Status.CompletedAt.Time), time.Second)), nil
}

// nameLast says that no attempt follows the last one, which failed.
func (r *releaseStep) nameLast(s *scene, response *v1alpha1.EventResponse) {
	_, message := ending(response)
	_, wrong := allowedAttempts(s.incident)
	s.set(v1alpha1.ConditionReleased, metav1.ConditionFalse, v1alpha1.ReasonFailed,
		fmt.Sprintf("node %s could not let the pod go in %d attempts; look at its agent, then %s: %s",
			s.incident.Spec.Pod.NodeName, response.Spec.Attempt, further(s.incident, response.Spec.Attempt, wrong), message))
}

// nameFailed says of an attempt that it failed, which has it recorded on the incident: without that it is not attested.
func (r *releaseStep) nameFailed(s *scene, response *v1alpha1.EventResponse) {
	_, message := ending(response)
	allowed, _ := allowedAttempts(s.incident)
	allowed = max(allowed, response.Spec.Attempt+1)
	s.set(v1alpha1.ConditionReleased, metav1.ConditionFalse, v1alpha1.ReasonWaiting,
		fmt.Sprintf("node %s could not let the pod go in attempt %d of %d; the next one follows: %s", s.incident.Spec.Pod.NodeName,
			response.Spec.Attempt, allowed, message))
}

// allowedAttempts is how many attempts at podunfreeze there may be in all: ten, or what a person has written on the
// incident since. It is wrong when that is not to be read as a number, or above maxAttempts.
func allowedAttempts(incident *v1alpha1.Incident) (allowed int32, wrong bool) {
	text, written := incident.Annotations[v1alpha1.AnnotationReleaseAttempts]
	if !written {
		return attempts, false
	}
	number, err := strconv.ParseInt(text, 10, 32)
	if err != nil || number < 1 || number > maxAttempts {
		return attempts, true
	}
	return max(attempts, int32(number)), false
}

// further says how another attempt is ordered.
func further(incident *v1alpha1.Incident, made int32, wrong bool) string {
	if made >= maxAttempts {
		return "let the pod go by hand as the runbook says, or give up the node, for nothing more is attempted"
	}
	how := fmt.Sprintf("order more attempts with kubectl annotate --overwrite inc %s %s=%d, the number in all, at most %d",
		incident.Name, v1alpha1.AnnotationReleaseAttempts, min(made+attempts, maxAttempts), maxAttempts)
	if wrong {
		return fmt.Sprintf("%s (%q is not such a number)", how, incident.Annotations[v1alpha1.AnnotationReleaseAttempts])
	}
	return how
}

// silent waits for the agent without a deadline, for nobody else can thaw a pod; but a node that is deleted took its
// pods along.
func (r *releaseStep) silent(ctx context.Context, s *scene, response *v1alpha1.EventResponse) (progress, error) {
	if left := nodeCheck - s.now.Sub(response.CreationTimestamp.Time); left > 0 {
		return waiting(max(left, time.Second)), nil
	}
	message := fmt.Sprintf("the agent on node %s has not ended response %s yet", s.incident.Spec.Pod.NodeName, response.Name)
	if complete := meta.FindStatusCondition(response.Status.Conditions, v1alpha1.ConditionComplete); complete != nil {
		message += "; it says: " + complete.Message
	}
	s.set(v1alpha1.ConditionReleased, metav1.ConditionFalse, v1alpha1.ReasonWaiting, message)
	gone, err := r.nodeGone(ctx, s)
	if err != nil {
		return progress{}, err
	}
	if gone {
		// The next pass finds the response closed.
		return waiting(time.Second), r.orders.close(ctx, response, v1alpha1.ReasonNodeGone, "the Node object of the pod was deleted")
	}
	return waiting(nodeCheck), nil
}

// nodeGone says whether the pod's Node object was deleted for good: one that was away for a moment, as when a kubelet
// registers anew, has its containers still.
func (r *releaseStep) nodeGone(ctx context.Context, s *scene) (bool, error) {
	node := &metav1.PartialObjectMetadata{}
	node.SetGroupVersionKind(nodeKind())
	asked := r.orders.clock.Now()
	err := r.orders.live.Get(ctx, client.ObjectKey{Name: s.incident.Spec.Pod.NodeName}, node)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read node %s: %w", s.incident.Spec.Pod.NodeName, err)
	}
	r.awayMu.Lock()
	defer r.awayMu.Unlock()
	if err == nil {
		delete(r.away, s.incident.Name)
		return false, nil
	}
	if r.away == nil {
		r.away = map[string]absence{}
	}
	// Looks follow one another within a minute or two. After a longer pause the node may have been back in between.
	maps.DeleteFunc(r.away, func(_ string, seen absence) bool { return asked.Sub(seen.last) > 3*nodeCheck })
	answered := r.orders.clock.Now()
	seen, known := r.away[s.incident.Name]
	if !known {
		seen.since = answered
	}
	seen.last = answered
	r.away[s.incident.Name] = seen
	return asked.Sub(seen.since) >= nodeCheck, nil
}

// heldByOther returns the oldest incident that holds the pod as well and has not ordered its own release, or nil. Read
// live, and under the mutex, one of two incidents that are released at once is the last.
func (r *releaseStep) heldByOther(ctx context.Context, s *scene) (*v1alpha1.Incident, error) {
	holders, err := r.hold.holders(ctx, r.orders.live, s.incident.Spec.Pod.UID)
	if err != nil {
		return nil, err
	}
	for i := range holders {
		if holders[i].UID == s.incident.UID {
			continue
		}
		var ordered v1alpha1.EventResponse
		err := r.orders.live.Get(ctx, client.ObjectKey{Name: v1alpha1.ResponseName(holders[i].Name, v1alpha1.StepUnfreeze, 1)}, &ordered)
		if apierrors.IsNotFound(err) {
			return &holders[i], nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the release of incident %s: %w", holders[i].Name, err)
		}
	}
	return nil, nil
}

func (s *scene) parentOfRelease() *v1alpha1.Ref {
	for _, step := range []v1alpha1.Step{v1alpha1.StepUpload, v1alpha1.StepSnapshot, v1alpha1.StepFreeze} {
		if ref := s.response(step); ref != nil {
			return ptr.To(*ref)
		}
	}
	return nil
}

func releaseReason(s *scene) v1alpha1.ReleaseReason {
	switch {
	case s.is(v1alpha1.ConditionAcknowledged):
		return v1alpha1.ReleaseAcknowledged
	case s.reason(v1alpha1.ConditionAcknowledged) == v1alpha1.ReasonCaptureFailed:
		return v1alpha1.ReleaseCaptureFailed
	}
	return v1alpha1.ReleaseDeadlineReached
}
