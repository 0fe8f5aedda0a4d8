package incident

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
)

// errForeign is returned when an object with a name derived from the incident holds something else: somebody else made
// it, and a person must look.
var errForeign = errors.New("an object of this name was made by somebody else")

// grace is how long past its deadline an executor may take to close a response itself: a status write and the skew of
// two clocks.
const grace = 10 * time.Second

// orders places responses and sees to it that they end.
type orders struct {
	client client.Client
	live   client.Reader
	clock  clock.PassiveClock
}

// order is one response to be made.
type order struct {
	step    v1alpha1.Step
	attempt int32
	parent  *v1alpha1.Ref
	node    string
	action  v1alpha1.Action
	// within is the time to the deadline; 0 sets none.
	within time.Duration
}

// place makes the response, or finds it made, and notes it in the scene. The deadline of one that exists stands.
func (o *orders) place(ctx context.Context, s *scene, wanted order) (*v1alpha1.EventResponse, error) {
	response := wanted.response(s.incident, o.clock.Now())
	name := client.ObjectKeyFromObject(response)
	var existing v1alpha1.EventResponse
	err := o.client.Get(ctx, name, &existing)
	if apierrors.IsNotFound(err) {
		err = o.client.Create(ctx, response, client.FieldOwner(fieldOwner))
		if err == nil {
			s.remember(response)
			log.FromContext(ctx).Info("response ordered", "response", response.Name, "node", wanted.node)
			return response, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("order %s: %w", name.Name, err)
		}
		err = o.live.Get(ctx, name, &existing)
	}
	if err != nil {
		return nil, fmt.Errorf("read response %s: %w", name.Name, err)
	}
	if !sameOrder(s.incident, &existing, response) {
		return nil, fmt.Errorf("response %s: %w", name.Name, errForeign)
	}
	s.remember(&existing)
	return &existing, nil
}

func (w order) response(incident *v1alpha1.Incident, now time.Time) *v1alpha1.EventResponse {
	labels := map[string]string{
		v1alpha1.LabelIncidentUID: string(incident.UID),
		v1alpha1.LabelPodUID:      incident.Spec.Pod.UID,
		v1alpha1.LabelStep:        string(w.step),
	}
	if w.parent != nil {
		labels[v1alpha1.LabelParentResponse] = w.parent.Name
	}
	response := &v1alpha1.EventResponse{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.ResponseName(incident.Name, w.step, w.attempt), Labels: labels},
		Spec: v1alpha1.EventResponseSpec{
			IncidentUID: string(incident.UID), IncidentName: incident.Name,
			SecurityEventRef: incident.Spec.Trigger.Ref, ParentRef: w.parent, Attempt: w.attempt,
			NodeName: w.node, PodRef: incident.Spec.Pod, Action: w.action,
		},
	}
	if w.within > 0 {
		deadline := metav1.NewTime(now.Add(w.within).Truncate(time.Second))
		response.Spec.Deadline = &deadline
	}
	return response
}

// sameOrder compares what is derived from the incident. The deadline, and what the other incidents on the pod make of its
// release, are of the moment: the order that exists decided them. One whose own disposition is Delete says so always.
func sameOrder(incident *v1alpha1.Incident, existing, wanted *v1alpha1.EventResponse) bool {
	a, b := existing.Spec.DeepCopy(), wanted.Spec.DeepCopy()
	for _, spec := range []*v1alpha1.EventResponseSpec{a, b} {
		spec.Deadline = nil
		if release := spec.Action.PodUnfreeze; release != nil {
			release.KeepContained = false
			if incident.Spec.Disposition != v1alpha1.DispositionDelete {
				release.Disposition = incident.Spec.Disposition
			}
		}
	}
	return equality.Semantic.DeepEqual(a, b)
}

// await says whether a response has ended. One that is past its deadline, because its executor is gone, is closed.
func (o *orders) await(ctx context.Context, response *v1alpha1.EventResponse) (progress, error) {
	if response.Status.CompletedAt != nil {
		return finished(), nil
	}
	if response.Spec.Deadline == nil {
		return waiting(0), nil
	}
	if left := response.Spec.Deadline.Add(grace).Sub(o.clock.Now()); left > 0 {
		return waiting(left), nil
	}
	return finished(), o.close(ctx, response, v1alpha1.ReasonDeadlineExceeded, "nobody closed the response by its deadline")
}

// close ends a response in place of its executor, unless the executor did in the meantime: what it had reported stays, and
// what it did not come to name is counted as gaps.
func (o *orders) close(ctx context.Context, response *v1alpha1.EventResponse, reason, message string) error {
	if err := o.live.Get(ctx, client.ObjectKeyFromObject(response), response); err != nil {
		return fmt.Errorf("read response %s: %w", response.Name, err)
	}
	if response.Status.CompletedAt != nil {
		return nil
	}
	missing, err := o.missing(ctx, response)
	if err != nil {
		return err
	}
	before := response.DeepCopy()
	now := metav1.NewMicroTime(o.clock.Now())
	response.Status.Phase = v1alpha1.ResponseFailed
	if contained := response.Status.Containment; len(response.Status.Artifacts) > 0 || (contained != nil && contained.ContainedAt != nil) {
		response.Status.Phase = v1alpha1.ResponsePartial
	}
	response.Status.CompletedAt = &now
	response.Status.Gaps = withGaps(response.Status.Gaps, missing)
	meta.SetStatusCondition(&response.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionComplete, Status: metav1.ConditionFalse, Reason: reason,
		Message:            truncate(withMessages("closed by the controller: "+message, missing)),
		ObservedGeneration: response.Generation, LastTransitionTime: metav1.NewTime(now.Time),
	})
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := o.client.Status().Patch(ctx, response, patch, client.FieldOwner(fieldOwner)); err != nil {
		return fmt.Errorf("close response %s: %w", response.Name, err)
	}
	log.FromContext(ctx).Info("response closed in place of its executor", "response", response.Name, "reason", reason)
	return nil
}

// read finds a response that is on record.
func (o *orders) read(ctx context.Context, name string) (*v1alpha1.EventResponse, error) {
	var response v1alpha1.EventResponse
	if err := o.client.Get(ctx, client.ObjectKey{Name: name}, &response); err != nil {
		return nil, fmt.Errorf("read response %s: %w", name, err)
	}
	return &response, nil
}

// last finds the newest attempt at a step, or nil when none was ordered.
func (o *orders) last(ctx context.Context, incident string, step v1alpha1.Step) (*v1alpha1.EventResponse, error) {
	var last *v1alpha1.EventResponse
	for attempt := int32(1); ; attempt++ {
		var response v1alpha1.EventResponse
		name := v1alpha1.ResponseName(incident, step, attempt)
		err := o.client.Get(ctx, client.ObjectKey{Name: name}, &response)
		if apierrors.IsNotFound(err) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read response %s: %w", name, err)
		}
		last = &response
	}
	return last, nil
}

// ending is the reason and message that an executor closed a response with.
func ending(response *v1alpha1.EventResponse) (reason, message string) {
	if complete := meta.FindStatusCondition(response.Status.Conditions, v1alpha1.ConditionComplete); complete != nil {
		return complete.Reason, complete.Message
	}
	return v1alpha1.ReasonFailed, fmt.Sprintf("response %s ended %s", response.Name, response.Status.Phase)
}
