package incident

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
)

// freezeWithin is the time for a node to contain a pod. Containment takes a fraction of a second; an agent that is being
// restarted on its node is back within a minute.
const freezeWithin = time.Minute

// early is how long nothing is recorded while the node contains: most pods are contained by then, with one write less.
const early = 2 * time.Second

// holdRetry is how soon a label or policy that could not be applied is tried again.
const holdRetry = 5 * time.Second

// containStep orders podfreeze and at the same time labels the pod and applies the deny-all policy; later it keeps both
// in place. It owns the condition Contained.
type containStep struct {
	orders *orders
	hold   *hold
}

func (c *containStep) run(ctx context.Context, s *scene) (progress, error) {
	over, err := c.over(ctx, s)
	if err != nil || over {
		return finished(), err
	}
	ordered, err := c.order(ctx, s)
	// The node and the network are two ways to cut the pod off: neither waits for the other, nor fails with it.
	missing, stale := c.keep(ctx, s)
	if err != nil {
		return progress{}, err
	}
	if stale != nil {
		return progress{}, stale
	}
	next := finished()
	if ordered != nil {
		if next, err = c.orders.await(ctx, ordered); err != nil {
			return progress{}, err
		}
		if next.done {
			c.conclude(s, ordered, missing)
		} else {
			next = c.patience(s, next)
		}
	}
	if missing != "" && (next.after == 0 || next.after > holdRetry) {
		next.after = holdRetry
	}
	return next, nil
}

// over says whether the node has let the pod go, or is gone: from then on label and policy are the release's to take away.
func (c *containStep) over(ctx context.Context, s *scene) (bool, error) {
	if !letGo(s) {
		return false, nil
	}
	last, err := c.orders.last(ctx, s.incident.Name, v1alpha1.StepUnfreeze)
	return last != nil && last.Status.CompletedAt != nil && released(last), err
}

// keep makes label and policy stand and returns what is missing of them. What cannot be applied, such as a policy in a
// namespace that is being deleted, must not keep the evidence from being captured. Its error is errStale.
func (c *containStep) keep(ctx context.Context, s *scene) (missing string, err error) {
	present, err := c.hold.keep(ctx, s)
	if errors.Is(err, errStale) {
		return "", err
	}
	if err != nil {
		log.FromContext(ctx).Error(err, "label or policy is missing")
		return err.Error(), nil
	}
	if !present && s.is(v1alpha1.ConditionContained) && s.reason(v1alpha1.ConditionContained) != v1alpha1.ReasonPodGone {
		s.set(v1alpha1.ConditionContained, metav1.ConditionTrue, v1alpha1.ReasonPodGone, "the pod is gone: it sends nothing")
	}
	return "", nil
}

// order places podfreeze until it is known how it ended; then it returns nil.
func (c *containStep) order(ctx context.Context, s *scene) (*v1alpha1.EventResponse, error) {
	if s.is(v1alpha1.ConditionContained) || s.is(v1alpha1.ConditionFailed) {
		return nil, nil
	}
	return c.orders.place(ctx, s, order{
		step: v1alpha1.StepFreeze, attempt: 1, node: s.incident.Spec.Pod.NodeName, within: freezeWithin,
		action: v1alpha1.Action{Type: v1alpha1.ActionPodFreeze, PodFreeze: s.incident.Spec.Freeze.DeepCopy()},
	})
}

// patience records that the node has not answered yet once that lasts longer than usual.
func (c *containStep) patience(s *scene, next progress) progress {
	if age := s.now.Sub(s.incident.CreationTimestamp.Time); age < early {
		return waiting(min(early-age, next.after))
	}
	s.set(v1alpha1.ConditionContained, metav1.ConditionFalse, v1alpha1.ReasonRunning,
		fmt.Sprintf("label and policy are in place; waiting for the agent on node %s", s.incident.Spec.Pod.NodeName))
	return next
}

func (c *containStep) conclude(s *scene, response *v1alpha1.EventResponse, missing string) {
	reason, message := ending(response)
	if missing != "" {
		message += "; label or policy is missing: " + missing
	}
	switch {
	case response.Status.Phase == v1alpha1.ResponseSucceeded && missing == "":
		s.set(v1alpha1.ConditionContained, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, message)
	case response.Status.Phase == v1alpha1.ResponseSucceeded, response.Status.Phase == v1alpha1.ResponsePartial:
		s.set(v1alpha1.ConditionContained, metav1.ConditionTrue, v1alpha1.ReasonPartial, reason+": "+message)
	default:
		s.set(v1alpha1.ConditionContained, metav1.ConditionFalse, v1alpha1.ReasonPolicyOnly,
			"the node did not contain the pod; at most the network policy stands, which this cluster's CNI may not enforce: "+message)
		s.fail(v1alpha1.StepFreeze, reason, message)
	}
}
