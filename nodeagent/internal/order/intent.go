package order

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// patience is how long after unfreezeAt the controller may take to order the release before this agent lets the pod go
// by itself: with the API server down nobody else can.
const patience = 30 * time.Second

// intent is what the orders and incidents that are known want of one pod.
type intent struct {
	// contained: some incident wants the pod cut off.
	contained bool
	// frozen: some incident wants its processes stopped.
	frozen bool
	// overdue are the incidents whose time is up and whose release nobody ordered.
	overdue []string
}

// incidentOrders are the orders of one incident for one pod.
type incidentOrders struct {
	name     string
	freeze   *v1alpha1.EventResponse
	snapshot *v1alpha1.EventResponse
	unfreeze *v1alpha1.EventResponse
}

// intents reads from the cache, which outlives the API server.
func intents(ctx context.Context, node Node) (map[string]intent, error) {
	var responses v1alpha1.EventResponseList
	if err := node.Client.List(ctx, &responses, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list this node's orders: %w", err)
	}
	var incidents v1alpha1.IncidentList
	if err := node.Client.List(ctx, &incidents, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list open incidents: %w", err)
	}
	return wanted(responses.Items, incidents.Items, node.Clock.Now()), nil
}

// wanted is a pure function of what is known, by pod uid.
func wanted(responses []v1alpha1.EventResponse, incidents []v1alpha1.Incident, now time.Time) map[string]intent {
	unfreezeAt := make(map[string]time.Time, len(incidents))
	for i := range incidents {
		if at := incidents[i].Status.UnfreezeAt; at != nil && incidents[i].Spec.Disposition == v1alpha1.DispositionResume {
			unfreezeAt[string(incidents[i].UID)] = at.Time
		}
	}
	intents := map[string]intent{}
	for uid, orders := range byIncident(responses) {
		if orders.freeze == nil {
			continue
		}
		pod := orders.freeze.Spec.PodRef.UID
		known := intents[pod]
		at, limited := unfreezeAt[uid]
		switch {
		case orders.letsGo(now):
		case limited && orders.unfreeze == nil && now.After(at.Add(patience)):
			known.overdue = append(known.overdue, orders.name)
		default:
			known.contained = true
			known.frozen = known.frozen || orders.freezes()
		}
		intents[pod] = known
	}
	return intents
}

func byIncident(responses []v1alpha1.EventResponse) map[string]*incidentOrders {
	incidents := map[string]*incidentOrders{}
	for i := range responses {
		response := &responses[i]
		orders := incidents[response.Spec.IncidentUID]
		if orders == nil {
			orders = &incidentOrders{name: response.Spec.IncidentName}
			incidents[response.Spec.IncidentUID] = orders
		}
		switch response.Spec.Action.Type {
		case v1alpha1.ActionPodFreeze:
			orders.freeze = response
		case v1alpha1.ActionFilesystemSnapshot:
			orders.snapshot = response
		case v1alpha1.ActionPodUnfreeze:
			orders.unfreeze = response
		case v1alpha1.ActionEvidenceUpload:
		}
	}
	return incidents
}

// letsGo is true once a release is ordered, unless the pod is to die frozen, and for an order that came to nothing.
func (o *incidentOrders) letsGo(now time.Time) bool {
	if o.unfreeze != nil {
		return o.unfreeze.Spec.Action.PodUnfreeze.Disposition != v1alpha1.DispositionDelete
	}
	if o.freeze.Status.CompletedAt != nil {
		return o.freeze.Status.Phase == v1alpha1.ResponseFailed
	}
	return o.freeze.Spec.Deadline != nil && now.After(o.freeze.Spec.Deadline.Time)
}

func (o *incidentOrders) freezes() bool {
	switch o.freeze.Spec.Action.PodFreeze.Processes {
	case v1alpha1.FreezeUntilReleased:
		return true
	case v1alpha1.FreezeDuringCapture:
		return o.snapshot == nil || o.snapshot.Status.CompletedAt == nil
	case v1alpha1.FreezeNever:
	}
	return false
}
