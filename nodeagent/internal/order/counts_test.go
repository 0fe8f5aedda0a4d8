package order

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// signedGaps are the gaps in what is signed of a response: its status in canonical JSON, which is the statement's outcome.
// Each has to say why.
func signedGaps(t *testing.T, record *v1alpha1.EventResponse) map[string]int64 {
	t.Helper()
	outcome, err := evidence.Canonical(record.Status)
	if err != nil {
		t.Fatal(err)
	}
	var signed struct{ Gaps []evidence.Gap }
	if err := json.Unmarshal(outcome, &signed); err != nil {
		t.Fatal(err)
	}
	gaps := map[string]int64{}
	for _, gap := range signed.Gaps {
		if _, twice := gaps[gap.Reason]; twice || gap.Message == "" {
			t.Errorf("gap %+v", gap)
		}
		gaps[gap.Reason] = gap.Count
	}
	return gaps
}

// someFlows are what a drop has counted.
func someFlows() Flows {
	return Flows{Counts: v1alpha1.FlowCounts{Listed: 2}, List: []evidence.Flow{{Protocol: 6}, {Protocol: 17}}}
}

// wasCutOff is a podfreeze that ended with a hook in place.
func wasCutOff(r *v1alpha1.EventResponse) {
	closed(v1alpha1.ResponseSucceeded)(r)
	r.Status.Containment = &v1alpha1.Containment{
		Hooks: []v1alpha1.Hook{{ID: "hook", Packets: 1}}, Flows: &v1alpha1.FlowCounts{Listed: 1},
	}
}

// TestWhatIsLostOfTheDropAtTheReleaseIsAGapThatIsSigned has the release go on without it all the same.
func TestWhatIsLostOfTheDropAtTheReleaseIsAGapThatIsSigned(t *testing.T) {
	away := errors.New("connection refused")
	tests := map[string]struct {
		spoil     func(*world)
		noCapture bool
		gaps      map[string]int64
		listed    int64
	}{
		"nothing":                         {func(*world) {}, false, map[string]int64{}, 2},
		"no flow and no place for a list": {func(w *world) { w.flows = Flows{} }, true, map[string]int64{}, 0},
		"list not read":                   {func(w *world) { w.flowsErr = away }, false, map[string]int64{"FlowsNotRead": 1}, 1},
		"list not stored":                 {func(w *world) { w.storeErr = away }, false, map[string]int64{"FlowsNotStored": 2}, 2},
		"no place for the list":           {func(*world) {}, true, map[string]int64{"FlowsNotStored": 2}, 2},
		"counts not read":                 {func(w *world) { w.observed, w.observeErr = nil, away }, false, map[string]int64{"DropCountsNotRead": 1}, 2},
		"counts read in part":             {func(w *world) { w.observeErr = away }, false, map[string]int64{"DropCountsNotRead": 1}, 2},
		"drop gone before": {func(w *world) { w.observed, w.flows = nil, Flows{} }, false, map[string]int64{
			"DropCountsNotRead": 1, "FlowsNotRead": 1,
		}, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), wasCutOff)
			if !tt.noCapture {
				w.order(v1alpha1.StepSnapshot, snapshot(), closed(v1alpha1.ResponseSucceeded))
			}
			w.flows = someFlows()
			tt.spoil(w)
			record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponseSucceeded, "release id-web", "release id-side", "thaw id-web", "thaw id-side", "start strays", "detach")
			if diff := cmp.Diff(tt.gaps, signedGaps(t, record)); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			if got := record.Status.Containment.Flows; got == nil || got.Listed != tt.listed {
				t.Errorf("flows %+v", got)
			}
		})
	}
}

func TestAGapOfTheReleaseStandsUntilALaterStartHasWhatWasLost(t *testing.T) {
	tests := map[string]struct {
		// detached says that the drop is gone by the second start.
		detached bool
		gaps     map[string]int64
	}{
		"the drop still counts": {false, map[string]int64{}},
		"the drop is gone":      {true, map[string]int64{"DropCountsNotRead": 1, "FlowsNotRead": 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), wasCutOff)
			w.order(v1alpha1.StepSnapshot, snapshot(), closed(v1alpha1.ResponseSucceeded))
			order := w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))
			hooks := w.observed
			w.observed, w.observeErr, w.flowsErr = nil, errors.New("not now"), errors.New("not now")
			w.failing = map[string]error{"detach": errors.New("not now")}
			if record, err := w.carryOut(order); err == nil || len(signedGaps(t, record)) != 2 {
				t.Fatalf("error %v, gaps %+v", err, record.Status.Gaps)
			}
			w.observeErr, w.flowsErr, w.failing, w.flows = nil, nil, nil, someFlows()
			if !tt.detached {
				w.observed = hooks
			}
			record, err := w.carryOut(order)
			if err != nil || record.Status.Phase != v1alpha1.ResponseSucceeded {
				t.Fatalf("error %v, status %+v", err, record.Status)
			}
			if diff := cmp.Diff(tt.gaps, signedGaps(t, record)); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFlowsThatAnEarlierStartStoredStayNamed has a release begin again when the store is away.
func TestFlowsThatAnEarlierStartStoredStayNamed(t *testing.T) {
	w := newWorld(t)
	w.order(v1alpha1.StepSnapshot, snapshot(), closed(v1alpha1.ResponseSucceeded))
	order := w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))
	w.flows, w.failing = someFlows(), map[string]error{"detach": errors.New("not now")}
	if _, err := w.carryOut(order); err == nil {
		t.Fatal("the order is closed")
	}
	w.failing, w.storeErr = nil, errors.New("connection refused")
	record, err := w.carryOut(order)
	if err != nil {
		t.Fatal(err)
	}
	stored := record.Status.Containment.FlowsObject
	if stored == nil || !strings.HasPrefix(stored.Key, "flows-at-release") {
		t.Errorf("object %+v", stored)
	}
	if diff := cmp.Diff(map[string]int64{"FlowsNotStored": 2}, signedGaps(t, record)); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

// TestALaterAttemptHasWhatTheFirstReadOfTheDrop and so does a start whose cache does not show the one before.
func TestALaterAttemptHasWhatTheFirstReadOfTheDrop(t *testing.T) {
	tests := map[string]struct {
		attempt int32
		// between are attempts after the first that did not come to read the drop.
		between []int32
	}{
		"a later start":               {1, nil},
		"a later attempt":             {2, nil},
		"attempts in between":         {4, []int32{2, 3}},
		"attempts that are not there": {10, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), wasCutOff)
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false), func(r *v1alpha1.EventResponse) {
				r.Spec.Attempt = 1
				r.Status.Containment = &v1alpha1.Containment{
					Hooks: []v1alpha1.Hook{{ID: "hook", Packets: 9}}, Flows: &v1alpha1.FlowCounts{Listed: 2},
				}
				r.Status.Gaps = []v1alpha1.GapCount{{Reason: evidence.GapFlowsNotStored, Message: "store away", Count: 2}}
			})
			for _, attempt := range tt.between {
				w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false), closed(v1alpha1.ResponseFailed), func(r *v1alpha1.EventResponse) {
					r.Name, r.Spec.Attempt = v1alpha1.ResponseName(incidentName, v1alpha1.StepUnfreeze, attempt), attempt
				})
			}
			w.observed, w.flows = nil, Flows{}
			order := &v1alpha1.EventResponse{Spec: w.ordered[1].Spec}
			order.Name, order.Spec.Attempt = v1alpha1.ResponseName(incidentName, v1alpha1.StepUnfreeze, tt.attempt), tt.attempt
			step := &unfreezeStep{node: w.agent.node, record: newRecord(w.agent.node, order)}
			containment, err := contained(t.Context(), w.agent.node, order.Spec)
			if err != nil {
				t.Fatal(err)
			}
			step.observe(t.Context(), &containment)
			if diff := cmp.Diff(map[string]int64{"FlowsNotStored": 2}, signedGaps(t, step.record.response)); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			if containment.Flows == nil || containment.Flows.Listed != 2 || containment.Hooks[0].Packets != 9 {
				t.Errorf("containment %+v", containment)
			}
		})
	}
}

// TestNoFlowIsNotSaidOfADropThatNobodyRead is about a podfreeze whose record does not say what it reached, or that cut
// nothing off.
func TestNoFlowIsNotSaidOfADropThatNobodyRead(t *testing.T) {
	for name, tt := range map[string]struct {
		containment *v1alpha1.Containment
		gaps        map[string]int64
	}{
		"closed by another": {nil, map[string]int64{"DropCountsNotRead": 1, "FlowsNotRead": 1}},
		"nothing cut off":   {&v1alpha1.Containment{Level: v1alpha1.LevelPolicyOnly}, map[string]int64{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseFailed), func(r *v1alpha1.EventResponse) {
				r.Status.Containment = tt.containment
			})
			w.observed, w.flows = nil, Flows{}
			record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.gaps, signedGaps(t, record)); diff != "" || record.Status.Containment.Flows != nil {
				t.Errorf("flows %+v, gaps (-want +got):\n%s", record.Status.Containment.Flows, diff)
			}
		})
	}
}
