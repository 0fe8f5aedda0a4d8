package order

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// busyCheck is how often a release looks whether the capture that it waits for has ended.
	busyCheck = time.Second
	// lastStart bounds the containment of a pod that was cut off before the deadline of its order, and is what the first
	// start of any podfreeze has at least: three holds that take as long as they may.
	lastStart = 3 * holdWithin
	// lastNames bounds a capture after the deadline of its order, half of what the controller gives an agent to close it.
	lastNames = 5 * time.Second
)

// Reconciler carries out one order at a time of those that its queue gives it.
type Reconciler struct {
	node    Node
	pods    *pods
	running *running
	metrics *metrics
	sights  sights
	// holdPause is that of a snapshotStep.
	holdPause time.Duration
}

// Reconcile carries an order out, from wherever an earlier start left it, and closes its record exactly once.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	response := new(v1alpha1.EventResponse)
	if err := r.node.Client.Get(ctx, request.NamespacedName, response); apierrors.IsNotFound(err) {
		r.sights.forget(request.Name)
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, err
	}
	if response.Spec.NodeName != r.node.Name || response.Status.CompletedAt != nil {
		r.sights.forget(request.Name)
		return reconcile.Result{}, nil
	}
	if response.Spec.Action.Type == v1alpha1.ActionPodUnfreeze && r.running.has(response.Spec.IncidentUID) {
		return reconcile.Result{RequeueAfter: busyCheck}, nil
	}
	record := newRecord(r.node, response)
	// What an earlier start reached and could not write is not done again, which would find less to say.
	noted := r.node.Known.noted(response.UID)
	if noted == nil {
		ended, err := r.carryOut(ctx, record)
		if errors.Is(err, errClosed) {
			r.sights.forget(request.Name)
			return reconcile.Result{}, nil
		}
		if err != nil {
			return reconcile.Result{}, errors.Join(err, record.note(ctx, err))
		}
		noted = record.closed(ended)
		r.node.Known.note(noted)
	} else {
		// It was made from what is on record at that version: what came there since is not overwritten unread.
		record.stored.ResourceVersion = noted.ResourceVersion
	}
	return reconcile.Result{}, r.finish(ctx, record, noted.Status)
}

// finish writes the end of an order. A record that somebody else closed stays as it is.
func (r *Reconciler) finish(ctx context.Context, record *record, ended v1alpha1.EventResponseStatus) error {
	err := record.close(ctx, ended)
	if err != nil && !errors.Is(err, errClosed) {
		return err
	}
	r.sights.forget(record.response.Name)
	if err != nil {
		return nil
	}
	r.node.Known.note(record.response)
	within, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	if err := r.node.Known.save(within); err != nil {
		log.FromContext(ctx).Error(err, "orders not remembered on the node's disk")
	}
	r.metrics.observe(record.response)
	spec := record.response.Spec
	log.FromContext(ctx).Info("order carried out", "action", spec.Action.Type, "phase", record.response.Status.Phase,
		"pod", spec.PodRef.Name, "podUID", spec.PodRef.UID)
	return nil
}

// carryOut returns an error only where a repetition may do better. Past its deadline an order is not repeated. A podfreeze
// that no agent began before is carried out once however late it comes: a pod that nothing holds is worse than a late record.
func (r *Reconciler) carryOut(ctx context.Context, record *record) (result, error) {
	spec := record.response.Spec
	seen, first := r.sights.of(record.response, r.node.now())
	if spec.Deadline == nil {
		return r.act(ctx, record, seen)
	}
	left := time.Until(seen.ends)
	if first && spec.Action.Type == v1alpha1.ActionPodFreeze {
		left = max(left, lastStart)
	}
	if left <= 0 {
		return r.late(ctx, record, seen, record.lastNote())
	}
	within, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	ended, err := r.act(within, record, seen)
	if err != nil && ctx.Err() == nil && errors.Is(within.Err(), context.DeadlineExceeded) {
		return r.late(ctx, record, seen, err.Error())
	}
	return ended, err
}

// late ends an order whose deadline has passed. A pod that is cut off already is contained to the end: with a record that
// knows of no containment it would be kept by nobody and let go by nobody.
func (r *Reconciler) late(ctx context.Context, record *record, seen *sight, detail string) (result, error) {
	seen.late = true
	spec := record.response.Spec
	switch spec.Action.Type {
	case v1alpha1.ActionFilesystemSnapshot:
		return r.lateSnapshot(ctx, record, seen, detail)
	case v1alpha1.ActionPodUnfreeze, v1alpha1.ActionEvidenceUpload:
		return overdue(spec.Deadline, detail), nil
	case v1alpha1.ActionPodFreeze:
	}
	hooks, err := r.node.Drop.Observe(spec.PodRef.UID)
	if err != nil {
		detail += fmt.Sprintf("; whether the pod is cut off is not known: %v", err)
	}
	if len(hooks) == 0 {
		return overdue(spec.Deadline, detail), nil
	}
	within, cancel := context.WithTimeout(ctx, lastStart)
	defer cancel()
	ended, err := r.act(within, record, seen)
	if err != nil && ctx.Err() == nil {
		return overdue(spec.Deadline, err.Error()), nil
	}
	return ended, err
}

// lateSnapshot names what was not captured: such a capture stores no more than it can in the time that it is given, and
// counts the rest as gaps. One that lacks nothing is as good as one in time.
func (r *Reconciler) lateSnapshot(ctx context.Context, record *record, seen *sight, detail string) (result, error) {
	within, cancel := context.WithTimeout(ctx, lastNames)
	defer cancel()
	ended, err := r.act(within, record, seen)
	if ctx.Err() != nil || errors.Is(err, errClosed) {
		return result{}, errors.Join(err, ctx.Err())
	}
	if err == nil && ended.reason == v1alpha1.ReasonSucceeded {
		return ended, nil
	}
	if err != nil {
		detail = strings.TrimPrefix(detail+"; what is missing could not be named: "+err.Error(), "; ")
	}
	return overdue(record.response.Spec.Deadline, detail), nil
}

func overdue(deadline *metav1.Time, detail string) result {
	message := "the deadline " + deadline.UTC().Format(time.RFC3339) + " passed before the order was carried out"
	if detail != "" {
		message += ": " + detail
	}
	return result{v1alpha1.ReasonDeadlineExceeded, message}
}

func (r *Reconciler) act(ctx context.Context, record *record, seen *sight) (result, error) {
	action := record.response.Spec.Action
	switch action.Type {
	case v1alpha1.ActionPodFreeze:
		defer r.pods.lock(record.response.Spec.PodRef.UID)()
		ended, err := (&freezeStep{node: r.node, record: record}).run(ctx)
		if err == nil {
			// Who waits for the pod's lock is to find it contained: a container that started meanwhile is caught by that.
			r.node.Known.note(record.closed(ended))
		}
		return ended, err
	case v1alpha1.ActionFilesystemSnapshot:
		defer r.running.begin(record.response.Spec.IncidentUID)()
		return (&snapshotStep{node: r.node, record: record, pods: r.pods, seen: seen, holdPause: r.holdPause}).run(ctx)
	case v1alpha1.ActionPodUnfreeze:
		defer r.pods.lock(record.response.Spec.PodRef.UID)()
		ended, err := (&unfreezeStep{node: r.node, record: record}).run(ctx)
		if err == nil {
			// Who waits for the pod's lock is to find it let go.
			r.node.Known.note(record.closed(ended))
		}
		return ended, err
	case v1alpha1.ActionEvidenceUpload:
	}
	return result{v1alpha1.ReasonOrderRefused, fmt.Sprintf("a node agent does not carry out %s", action.Type)}, nil
}
