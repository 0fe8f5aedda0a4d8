package order

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

func TestWhatCannotBeReleasedDoesNotKeepTheRestAndIsTriedAgain(t *testing.T) {
	all := []string{"release id-web", "release id-side", "thaw id-web", "thaw id-side", "start strays", "detach"}
	for _, failing := range all {
		t.Run(failing, func(t *testing.T) {
			w := newWorld(t)
			w.failing = map[string]error{failing: errors.New("not now")}
			order := w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))
			record, err := w.carryOut(order)
			if err == nil || record.Status.CompletedAt != nil || !strings.Contains(record.Status.Conditions[0].Message, "not now") {
				t.Fatalf("error %v, status %+v", err, record.Status)
			}
			if diff := cmp.Diff(all, w.done); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
			w.failing, w.done = nil, nil
			if record, err = w.carryOut(order); err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponseSucceeded, all...)
			for _, container := range record.Status.Containment.Containers {
				if container.ThawedAt == nil {
					t.Errorf("container %s has no time of its thaw", container.Name)
				}
			}
		})
	}
}

func TestPacketsDoNotPassWhenThereWasNoTimeToThaw(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.failing = map[string]error{"thaw id-web": context.Canceled, "thaw id-side": context.Canceled}
	order := w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))
	step := &unfreezeStep{node: w.agent.node, record: newRecord(w.agent.node, order)}
	cancel()
	if err := step.resume(ctx, &v1alpha1.Containment{}, w.pod); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]string{"thaw id-web", "thaw id-side", "start strays"}, w.done); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
}

func TestReleaseLeavesThePodToAnotherIncident(t *testing.T) {
	released := []string{"release id-web", "release id-side"}
	thawed := append(released[:2:2], "drop", "thaw id-web", "thaw id-side", "start strays")
	tests := map[string]struct {
		another v1alpha1.FreezeProcesses
		over    bool
		action  v1alpha1.Action
		done    []string
	}{
		"that wants it frozen":    {v1alpha1.FreezeUntilReleased, false, podUnfreeze(v1alpha1.DispositionResume, false), released},
		"that wants it cut off":   {v1alpha1.FreezeNever, false, podUnfreeze(v1alpha1.DispositionResume, false), thawed},
		"as was ordered":          {v1alpha1.FreezeNever, false, podUnfreeze(v1alpha1.DispositionResume, true), thawed},
		"unless that one is over": {v1alpha1.FreezeUntilReleased, true, podUnfreeze(v1alpha1.DispositionResume, false), append(released[:2:2], "thaw id-web", "thaw id-side", "start strays", "detach")},
		"unless it is to die":     {v1alpha1.FreezeNever, false, podUnfreeze(v1alpha1.DispositionDelete, true), released},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if !tt.over {
				w.incident(anotherName, anotherUID, tt.another)
			}
			w.order(v1alpha1.StepFreeze, podFreeze(tt.another), ofAnother)
			record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, tt.action))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponseSucceeded, tt.done...)
			for _, cut := range w.cuts {
				if !cut.Running {
					t.Error("the pod goes on and its loopback and probes are cut off")
				}
			}
		})
	}
}

func TestEndOfACaptureThawsUnlessAnotherIncidentWantsThePodFrozen(t *testing.T) {
	captured := []string{"hold id-web", "hold id-side", "capture"}
	tests := map[string]struct {
		another v1alpha1.FreezeProcesses
		done    []string
	}{
		"frozen":  {v1alpha1.FreezeUntilReleased, captured},
		"cut off": {v1alpha1.FreezeNever, append(captured[:3:3], "drop", "thaw id-web", "thaw id-side", "start strays")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.incident(incidentName, incidentUID, v1alpha1.FreezeDuringCapture)
			w.incident(anotherName, anotherUID, tt.another)
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeDuringCapture), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepFreeze, podFreeze(tt.another), ofAnother)
			w.captured = Captured{Artifacts: []v1alpha1.Artifact{
				{Name: "web/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem}, {Name: "side/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem},
			}}
			record, err := w.carryOut(w.order(v1alpha1.StepSnapshot, snapshot()))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponseSucceeded, tt.done...)
			for _, cut := range w.cuts {
				if !cut.Running {
					t.Error("the pod goes on and its loopback and probes are cut off")
				}
			}
		})
	}
}

func TestKeeperLetsAnOverduePodGoOnceAndTriesAgainWhatFailed(t *testing.T) {
	w := newWorld(t)
	incident := w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
	due := metav1.NewTime(time.Now().Add(-2 * patience))
	incident.Status.UnfreezeAt = &due
	if err := w.client.Status().Update(t.Context(), incident); err != nil {
		t.Fatal(err)
	}
	w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
	all := []string{"release id-web", "release id-side", "thaw id-web", "thaw id-side", "start strays", "detach"}
	keeper := &keeper{node: w.agent.node, pods: w.agent.pods}
	w.held = []string{"id-web", "id-side"}
	for _, tt := range []struct {
		failing string
		done    []string
	}{{"release id-web", all}, {"thaw id-web", all}, {"", all}, {"", nil}} {
		w.done, w.failing = nil, map[string]error{tt.failing: errors.New("not now")}
		w.pod.Sandboxes = 1
		if err := keeper.look(t.Context()); (err != nil) != (tt.failing != "") {
			t.Errorf("failing %q: error %v", tt.failing, err)
		}
		if diff := cmp.Diff(tt.done, w.done); diff != "" {
			t.Errorf("failing %q: effects (-want +got):\n%s", tt.failing, diff)
		}
	}
}

func TestPodIsRestoredToWhatIsWantedOfIt(t *testing.T) {
	captured := func(w *world) {
		w.order(v1alpha1.StepSnapshot, snapshot(), closed(v1alpha1.ResponseSucceeded))
	}
	tests := map[string]struct {
		processes v1alpha1.FreezeProcesses
		arrange   func(*world)
		running   bool
		done      []string
	}{
		"frozen":                 {v1alpha1.FreezeUntilReleased, func(*world) {}, false, []string{"drop", "freeze"}},
		"frozen for the capture": {v1alpha1.FreezeDuringCapture, func(*world) {}, false, []string{"drop", "freeze"}},
		"captured":               {v1alpha1.FreezeDuringCapture, captured, true, []string{"drop", "thaw id-web", "thaw id-side", "start strays"}},
		"never frozen":           {v1alpha1.FreezeNever, captured, true, []string{"drop"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.incident(incidentName, incidentUID, tt.processes)
			w.order(v1alpha1.StepFreeze, podFreeze(tt.processes), closed(v1alpha1.ResponseSucceeded))
			tt.arrange(w)
			w.held = []string{"id-web", "id-side"}
			if err := restore(t.Context(), w.agent.node, podUID); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.done, w.done); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]Cut{{Running: tt.running}}, w.cuts); diff != "" {
				t.Errorf("cuts (-want +got):\n%s", diff)
			}
		})
	}
}

// hangs returns what waits for its context to end, which is to be soon enough.
func (w *world) hangs(bound time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		w.within(ctx, bound)
		return context.DeadlineExceeded
	}
}

func TestWhatHangsDoesNotKeepThePod(t *testing.T) {
	freed := []string{"release id-web", "release id-side", "thaw id-web", "thaw id-side", "start strays", "detach"}
	t.Run("store", func(t *testing.T) {
		w := newWorld(t)
		w.order(v1alpha1.StepSnapshot, snapshot(), closed(v1alpha1.ResponseSucceeded))
		w.flows = Flows{Counts: v1alpha1.FlowCounts{Listed: 1}, List: []evidence.Flow{{Protocol: 6}}}
		w.storeFlows = w.hangs(flowsWithin)
		record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
		if err != nil {
			t.Fatal(err)
		}
		w.demand(record, v1alpha1.ResponseSucceeded, freed...)
	})
	t.Run("runtime", func(t *testing.T) {
		w := newWorld(t)
		w.release = w.hangs(releasesWithin)
		record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
		if !errors.Is(err, context.DeadlineExceeded) || record.Status.CompletedAt != nil {
			t.Errorf("error %v, status %+v", err, record.Status)
		}
		if diff := cmp.Diff(freed, w.done); diff != "" {
			t.Errorf("effects (-want +got):\n%s", diff)
		}
	})
	t.Run("API server", func(t *testing.T) {
		w := newWorld(t)
		writes := 0
		w.onWrite(func(ctx context.Context) error {
			if writes++; writes > 1 {
				return nil
			}
			return w.hangs(writeWithin)(ctx)
		})
		_, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if diff := cmp.Diff(freed, w.done); diff != "" {
			t.Errorf("effects (-want +got):\n%s", diff)
		}
	})
}
