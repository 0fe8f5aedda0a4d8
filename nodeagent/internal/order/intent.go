package order

import (
	"context"
	"slices"
	"time"

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
	// thawed: no incident wants its processes stopped any more, and one did during its capture.
	thawed bool
	// open: an order for it is not closed yet.
	open bool
	// begun: an order to contain it is not closed yet.
	begun bool
	// incidents that want it contained, by name.
	incidents []string
	// released: an order to let it go was carried out.
	released bool
	// unresolved: an incident that contained it is no longer known, and nobody ordered its release.
	unresolved bool
	// overdue are the incidents whose time is up and whose release nobody ordered, or nobody carried out.
	overdue []string
}

// free says that nothing holds the pod any more: it was released, and nobody contained it since.
func (i intent) free() bool {
	return i.released && !i.contained && !i.open && !i.unresolved && len(i.overdue) == 0
}

// incidentOrders are the orders of one incident for one pod.
type incidentOrders struct {
	name     string
	freeze   *v1alpha1.EventResponse
	snapshot *v1alpha1.EventResponse
	unfreeze *v1alpha1.EventResponse
}

// intents of what is known.
func intents(ctx context.Context, node Node) (map[string]intent, error) {
	return othersIntents(ctx, node, "")
}

// othersIntents are the intents without those of one incident.
func othersIntents(ctx context.Context, node Node, incidentUID string) (map[string]intent, error) {
	known, err := node.Known.read(ctx)
	if err != nil {
		return nil, err
	}
	others := slices.DeleteFunc(known.Responses, func(response v1alpha1.EventResponse) bool {
		return response.Spec.IncidentUID == incidentUID
	})
	return wanted(others, known.Incidents, node.now()), nil
}

// wanted is a pure function of what is known, by pod uid. An order counts once it was carried out: until then it may be
// one that is refused. It counts as long as its incident is open, or when the pod is to die contained.
func wanted(responses []v1alpha1.EventResponse, incidents []v1alpha1.Incident, now time.Time) map[string]intent {
	intents := map[string]intent{}
	unfreezeAt := make(map[string]time.Time, len(incidents))
	open := make(map[string]bool, len(incidents))
	for i := range incidents {
		open[string(incidents[i].UID)] = true
		if at := incidents[i].Status.UnfreezeAt; at != nil && incidents[i].Spec.Disposition == v1alpha1.DispositionResume {
			unfreezeAt[string(incidents[i].UID)] = at.Time
		}
	}
	for uid, orders := range byIncident(responses) {
		if orders.freeze == nil {
			continue
		}
		pod := orders.freeze.Spec.PodRef.UID
		known := intents[pod]
		known.open = known.open || orders.open()
		known.begun = known.begun || orders.freeze.Status.CompletedAt == nil
		at, limited := unfreezeAt[uid]
		switch {
		case !orders.carriedOut():
		case limited && orders.unreleased() && now.After(at.Add(patience)):
			known.overdue = append(known.overdue, orders.name)
		case orders.released():
			known.released = known.released || orders.letGo()
		case orders.unfreeze == nil && !open[uid]:
			known.unresolved = true
		default:
			known.contained = true
			known.incidents = append(known.incidents, orders.name)
			known.frozen = known.frozen || orders.freezes()
			known.thawed = known.thawed || (!orders.freezes() && orders.freeze.Spec.Action.PodFreeze.Processes == v1alpha1.FreezeDuringCapture)
		}
		known.thawed = known.thawed && !known.frozen
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
			if orders.unfreeze == nil || response.Spec.Attempt > orders.unfreeze.Spec.Attempt {
				orders.unfreeze = response
			}
		case v1alpha1.ActionEvidenceUpload:
		}
	}
	return incidents
}

// carriedOut is true from the end of a podfreeze that came to something.
func (o *incidentOrders) carriedOut() bool {
	freeze := o.freeze
	return freeze.Status.CompletedAt != nil && freeze.Status.Phase != v1alpha1.ResponseFailed && checkOrder(freeze.Spec.NodeName, freeze.Spec) == nil
}

// released is true once the pod is to go on: one that is to die frozen is not let go.
func (o *incidentOrders) released() bool {
	return o.unfreeze != nil && o.unfreeze.Spec.Action.PodUnfreeze.Disposition != v1alpha1.DispositionDelete
}

// letGo is true once the release was carried out that sets the pod going.
func (o *incidentOrders) letGo() bool {
	return o.released() && o.unfreeze.Status.CompletedAt != nil && !o.unfreeze.Spec.Action.PodUnfreeze.KeepContained
}

// unreleased is true while the pod waits for an order that lets it go, or for the end of that order: with the API server
// away since it was given, nobody carries it out. An order that keeps the pod contained is none.
func (o *incidentOrders) unreleased() bool {
	if o.unfreeze == nil {
		return true
	}
	action := o.unfreeze.Spec.Action.PodUnfreeze
	return o.unfreeze.Status.CompletedAt == nil && action.Disposition == v1alpha1.DispositionResume && !action.KeepContained
}

func (o *incidentOrders) open() bool {
	for _, response := range []*v1alpha1.EventResponse{o.freeze, o.snapshot, o.unfreeze} {
		if response != nil && response.Status.CompletedAt == nil {
			return true
		}
	}
	return false
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
