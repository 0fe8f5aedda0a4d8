package order

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

func (w *world) demand(record *v1alpha1.EventResponse, phase v1alpha1.ResponsePhase, done ...string) {
	w.t.Helper()
	if record.Status.Phase != phase || record.Status.CompletedAt == nil {
		w.t.Errorf("phase %s, completed %v, want %s: %+v", record.Status.Phase, record.Status.CompletedAt, phase, record.Status.Conditions)
	}
	if diff := cmp.Diff(holdsSorted(done), holdsSorted(w.done)); diff != "" {
		w.t.Errorf("effects (-want +got):\n%s", diff)
	}
}

// holdsSorted puts holds that follow one another, which a capture begins side by side, in one order.
func holdsSorted(done []string) []string {
	done = slices.Clone(done)
	for begin := 0; begin < len(done); begin++ {
		end := begin
		for end < len(done) && strings.HasPrefix(done[end], "hold ") {
			end++
		}
		slices.Sort(done[begin:end])
		begin = end
	}
	return done
}

// sayWhy demands that the record's message names each.
func (w *world) sayWhy(record *v1alpha1.EventResponse, whys ...string) {
	w.t.Helper()
	for _, why := range whys {
		if message := record.Status.Conditions[0].Message; !strings.Contains(message, why) {
			w.t.Errorf("message %q does not say %q", message, why)
		}
	}
}

func TestPodIsCutOffThenFrozenThenHeld(t *testing.T) {
	w := newWorld(t)
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, "drop", "freeze", "drop", "hold id-web", "hold id-side")
	containment := record.Status.Containment
	if containment.ContainedAt == nil || containment.Level != v1alpha1.LevelFull || len(containment.Containers) != 2 {
		t.Errorf("containment %+v", containment)
	}
	if again, err := w.carryOut(record); err != nil || again.ResourceVersion != record.ResourceVersion || len(w.done) != 5 {
		t.Errorf("a closed order was carried out again: %v, %v", w.done, err)
	}
}

func TestContainerThatStartsMeanwhileIsFrozenAsWell(t *testing.T) {
	w := newWorld(t)
	w.later = []Container{{ID: "id-new", Name: "web", Process: 12}}
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, "drop", "freeze", "drop", "hold id-web", "hold id-side", "hold id-new")
}

func TestOrderAboutAnotherPodIsRefusedAndTouchesNothing(t *testing.T) {
	changes := map[string]func(*v1alpha1.EventResponse){
		"another uid":            func(r *v1alpha1.EventResponse) { r.Spec.PodRef.UID = anotherUID },
		"no uid of a pod":        func(r *v1alpha1.EventResponse) { r.Spec.PodRef.UID = podUID[:20] + `",id~=".*,.*` },
		"another node":           func(r *v1alpha1.EventResponse) { r.Spec.PodRef.NodeName = "another" },
		"no such pod":            func(r *v1alpha1.EventResponse) { r.Spec.PodRef.Name = "another" },
		"kube-system":            func(r *v1alpha1.EventResponse) { r.Spec.PodRef.Namespace = "kube-system" },
		"our own namespace":      func(r *v1alpha1.EventResponse) { r.Spec.PodRef.Namespace = v1alpha1.NamespaceSystem },
		"our privileged one":     func(r *v1alpha1.EventResponse) { r.Spec.PodRef.Namespace = v1alpha1.NamespacePrivileged },
		"an action of another's": func(r *v1alpha1.EventResponse) { r.Spec.Action.Type = v1alpha1.ActionEvidenceUpload },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), change))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponseFailed)
			if condition := record.Status.Conditions[0]; condition.Reason != v1alpha1.ReasonOrderRefused || condition.Message == "" {
				t.Errorf("condition %+v", condition)
			}
		})
	}
}

func TestOrderOfAnotherNodeIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	order := w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), func(r *v1alpha1.EventResponse) { r.Spec.NodeName = "another" })
	record, err := w.carryOut(order)
	if err != nil || record.Status.CompletedAt != nil || len(w.done) != 0 {
		t.Errorf("done %v, status %+v (%v)", w.done, record.Status, err)
	}
}

func TestFailedDropDoesNotKeepTheFreeze(t *testing.T) {
	w := newWorld(t)
	w.dropped, w.dropErr = Dropped{}, errors.New("no such device")
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponsePartial, "drop", "drop", "freeze", "drop", "drop", "hold id-web", "hold id-side")
	if got := record.Status.Containment; got.Level != v1alpha1.LevelPolicyOnly || got.ContainedAt != nil {
		t.Errorf("containment %+v claims what was not reached", got)
	}
	if !strings.Contains(record.Status.Conditions[0].Message, "no such device") {
		t.Errorf("message %q does not say why", record.Status.Conditions[0].Message)
	}
}

func TestNothingHoldingARunningPodIsAFailure(t *testing.T) {
	w := newWorld(t)
	w.dropped, w.dropErr = Dropped{}, errors.New("no such device")
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeNever)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseFailed, "drop", "drop", "hold id-web", "hold id-side")
}

func TestRecordThatWasClosedMeanwhileIsFinal(t *testing.T) {
	w := newWorld(t)
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	w.capture = func(Capture) error {
		var closed v1alpha1.EventResponse
		if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(order), &closed); err != nil {
			return err
		}
		now := metav1.NowMicro()
		closed.Status.CompletedAt, closed.Status.Phase = &now, v1alpha1.ResponsePartial
		return w.client.Status().Update(t.Context(), &closed)
	}
	w.captured = Captured{Artifacts: []v1alpha1.Artifact{{Name: "web"}}}
	record, err := w.carryOut(order)
	if err != nil || len(record.Status.Artifacts) != 0 || record.Status.Phase != v1alpha1.ResponsePartial {
		t.Errorf("a closed record was written: %+v (%v)", record.Status, err)
	}
}

func TestCaptureGoesOnFromWhatIsStored(t *testing.T) {
	w := newWorld(t)
	stored := []v1alpha1.Artifact{{Name: "web/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem, Size: 1}}
	order := w.order(v1alpha1.StepSnapshot, snapshot(), func(r *v1alpha1.EventResponse) { r.Status.Artifacts = stored })
	w.capture = func(wanted Capture) error {
		if diff := cmp.Diff(stored, wanted.Previous.Artifacts); diff != "" {
			t.Errorf("previous (-want +got):\n%s", diff)
		}
		if len(wanted.Containers) != 2 {
			t.Errorf("asked to capture %+v", wanted.Containers)
		}
		return nil
	}
	w.captured = Captured{Artifacts: append(slices.Clone(stored), v1alpha1.Artifact{Name: "side/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem, Size: 1})}
	record, err := w.carryOut(order)
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, "hold id-web", "hold id-side", "capture")
}

func TestFailedCaptureIsTriedAgainAndSaysWhy(t *testing.T) {
	w := newWorld(t)
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	w.capture = func(Capture) error { return errors.New("store is away") }
	record, err := w.carryOut(order)
	if err == nil || record.Status.CompletedAt != nil || !strings.Contains(record.Status.Conditions[0].Message, "store is away") {
		t.Errorf("error %v, status %+v", err, record.Status)
	}
}

func TestOrderPastItsDeadlineFails(t *testing.T) {
	w := newWorld(t)
	past := metav1.NewTime(time.Now().Add(-time.Minute))
	record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false), func(r *v1alpha1.EventResponse) { r.Spec.Deadline = &past }))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseFailed)
	if record.Status.Conditions[0].Reason != v1alpha1.ReasonDeadlineExceeded {
		t.Errorf("condition %+v", record.Status.Conditions[0])
	}
}

func TestReleaseLetsSnapshotsGoThenThawsThenDetaches(t *testing.T) {
	tests := map[string]struct {
		action v1alpha1.Action
		done   []string
	}{
		"resume":       {podUnfreeze(v1alpha1.DispositionResume, false), []string{"release id-web", "release id-side", "thaw id-web", "thaw id-side", "start strays", "detach"}},
		"still wanted": {podUnfreeze(v1alpha1.DispositionResume, true), []string{"release id-web", "release id-side"}},
		"to be gone":   {podUnfreeze(v1alpha1.DispositionDelete, false), []string{"release id-web", "release id-side"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, tt.action))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponseSucceeded, tt.done...)
		})
	}
}

func TestReleaseWaitsForTheCaptureThatRuns(t *testing.T) {
	w := newWorld(t)
	end := w.agent.running.begin(incidentUID)
	order := w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))
	if record, err := w.carryOut(order); err != nil || record.Status.CompletedAt != nil || len(w.done) != 0 {
		t.Fatalf("released while files are read: %v (%v)", w.done, err)
	}
	end()
	if record, err := w.carryOut(order); err != nil || record.Status.CompletedAt == nil {
		t.Fatalf("not released after the capture (%v)", err)
	}
}

func TestIntentFollowsTheOrders(t *testing.T) {
	now := time.Now()
	due := metav1.NewTime(now.Add(-2 * patience))
	openIncident := v1alpha1.Incident{}
	openIncident.UID = incidentUID
	overdueIncident := v1alpha1.Incident{}
	overdueIncident.UID, overdueIncident.Status.UnfreezeAt = incidentUID, &due
	overdueIncident.Spec.Disposition = v1alpha1.DispositionResume
	tests := map[string]struct {
		orders    func(w *world)
		incidents []v1alpha1.Incident
		want      intent
	}{
		"ordered and not done": {func(w *world) { w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)) }, nil, intent{open: true, begun: true}},
		"held": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
		}, []v1alpha1.Incident{openIncident}, intent{contained: true, frozen: true, incidents: []string{incidentName}}},
		"its incident is over": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
		}, nil, intent{unresolved: true}},
		"refused": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseFailed))
		}, nil, intent{}},
		"released": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false), closed(v1alpha1.ResponseSucceeded))
		}, nil, intent{released: true}},
		"released and to stay contained": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, true), closed(v1alpha1.ResponseSucceeded))
		}, nil, intent{}},
		"to die frozen": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionDelete, false), closed(v1alpha1.ResponseSucceeded))
		}, nil, intent{contained: true, frozen: true, incidents: []string{incidentName}}},
		"captured, frozen for that only": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeDuringCapture), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepSnapshot, snapshot(), closed(v1alpha1.ResponseSucceeded))
		}, []v1alpha1.Incident{openIncident}, intent{contained: true, thawed: true, incidents: []string{incidentName}}},
		"time is up and nobody ordered": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
		}, []v1alpha1.Incident{overdueIncident}, intent{overdue: []string{incidentName}}},
		"time is up and the release is ordered and not done": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))
		}, []v1alpha1.Incident{overdueIncident}, intent{open: true, overdue: []string{incidentName}}},
		"the release is ordered and not done in time": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))
		}, []v1alpha1.Incident{openIncident}, intent{open: true}},
		"time is up and the release is done": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false), closed(v1alpha1.ResponseSucceeded))
		}, []v1alpha1.Incident{overdueIncident}, intent{released: true}},
		"time is up and the pod is to stay contained": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, true))
		}, []v1alpha1.Incident{overdueIncident}, intent{open: true}},
		"time is up and the pod is to die frozen": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionDelete, false))
		}, []v1alpha1.Incident{overdueIncident}, intent{contained: true, frozen: true, open: true, incidents: []string{incidentName}}},
		"time is up and nothing was reached": {func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseFailed))
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))
		}, []v1alpha1.Incident{overdueIncident}, intent{open: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tt.orders(w)
			responses := make([]v1alpha1.EventResponse, len(w.ordered))
			for i, response := range w.ordered {
				responses[i] = *response
			}
			got := wanted(responses, tt.incidents, now)[podUID]
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(intent{})); diff != "" {
				t.Errorf("intent (-want +got):\n%s", diff)
			}
		})
	}
}
