package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/v1alpha1"
)

// busyCheck is how often a release looks whether the capture that it waits for has ended.
const busyCheck = time.Second

// Reconciler carries out one order at a time of those that its queue gives it.
type Reconciler struct {
	node    Node
	pods    *pods
	running *running
	metrics *metrics
}

// Reconcile carries an order out, from wherever an earlier start left it, and closes its record exactly once.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	response := new(v1alpha1.EventResponse)
	if err := r.node.Client.Get(ctx, request.NamespacedName, response); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if response.Spec.NodeName != r.node.Name || response.Status.CompletedAt != nil {
		return reconcile.Result{}, nil
	}
	if response.Spec.Action.Type == v1alpha1.ActionPodUnfreeze && r.running.has(response.Spec.IncidentUID) {
		return reconcile.Result{RequeueAfter: busyCheck}, nil
	}
	record := newRecord(r.node, response)
	ended, err := r.carryOut(ctx, record)
	if errors.Is(err, errClosed) {
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, errors.Join(err, record.note(ctx, err))
	}
	if err := record.close(ctx, ended); err != nil {
		if errors.Is(err, errClosed) {
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, err
	}
	r.node.Known.note(record.response)
	if err := r.node.Known.save(ctx); err != nil {
		log.FromContext(ctx).Error(err, "orders not remembered on the node's disk")
	}
	r.metrics.observe(record.response)
	log.FromContext(ctx).Info("order carried out", "action", response.Spec.Action.Type, "phase", record.response.Status.Phase,
		"pod", response.Spec.PodRef.Name, "podUID", response.Spec.PodRef.UID)
	return reconcile.Result{}, nil
}

// carryOut returns an error only where a repetition may do better. Past its deadline an order is not repeated.
func (r *Reconciler) carryOut(ctx context.Context, record *record) (result, error) {
	deadline := record.response.Spec.Deadline
	if deadline == nil {
		return r.act(ctx, record)
	}
	left := deadline.Sub(r.node.Clock.Now())
	if left <= 0 {
		return overdue(deadline, record.lastNote()), nil
	}
	within, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	ended, err := r.act(within, record)
	if err != nil && ctx.Err() == nil && errors.Is(within.Err(), context.DeadlineExceeded) {
		return overdue(deadline, err.Error()), nil
	}
	return ended, err
}

func overdue(deadline *metav1.Time, detail string) result {
	message := "the deadline " + deadline.UTC().Format(time.RFC3339) + " passed before the order was carried out"
	if detail != "" {
		message += ": " + detail
	}
	return result{v1alpha1.ReasonDeadlineExceeded, message}
}

func (r *Reconciler) act(ctx context.Context, record *record) (result, error) {
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
		return (&snapshotStep{node: r.node, record: record, pods: r.pods}).run(ctx)
	case v1alpha1.ActionPodUnfreeze:
		defer r.pods.lock(record.response.Spec.PodRef.UID)()
		return (&unfreezeStep{node: r.node, record: record}).run(ctx)
	case v1alpha1.ActionEvidenceUpload:
	}
	return result{v1alpha1.ReasonOrderRefused, fmt.Sprintf("a node agent does not carry out %s", action.Type)}, nil
}
