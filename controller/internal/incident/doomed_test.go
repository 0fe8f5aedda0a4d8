package incident_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// shared is one pod that two incidents hold: the first deletes it, the second lets it go on.
type shared struct {
	pod    *corev1.Pod
	events [2]*v1alpha1.SecurityEvent
	held   [2]*v1alpha1.Incident
}

// dispositions are those of the releases that were ordered, empty where none was.
type dispositions [2]v1alpha1.PodUnfreezeAction

const deleting, resuming = 0, 1

func (w *world) dispose(as v1alpha1.Disposition) {
	w.t.Helper()
	w.configure(func(spec *v1alpha1.ForensicsConfigSpec) { spec.Cleanup.Disposition = as })
}

func (w *world) shared(name string) *shared {
	w.t.Helper()
	w.dispose(v1alpha1.DispositionDelete)
	pod, first := w.victim(name)
	both := &shared{pod: pod, events: [2]*v1alpha1.SecurityEvent{deleting: first}}
	both.held[deleting] = w.drive(first, v1alpha1.IncidentHeld)
	w.dispose(v1alpha1.DispositionResume)
	w.hold(both)
	return both
}

// hold opens the incident that lets the pod go on.
func (w *world) hold(both *shared) {
	w.t.Helper()
	both.events[resuming] = w.detect(both.pod)
	w.attest(both.events[resuming])
	both.held[resuming] = w.drive(both.events[resuming], v1alpha1.IncidentHeld)
}

// dies wants the pod to be deleted frozen and cut off, and plays the kubelet that reports it gone.
func (w *world) dies(both *shared, which int) {
	w.t.Helper()
	w.drive(both.events[which], v1alpha1.IncidentReleasing)
	for range 4 {
		err := w.round(both.events[which])
		if err != nil && !errors.Is(err, errKilled) {
			w.t.Fatal(err)
		}
		if err != nil {
			w.restart()
		}
	}
	dying := &corev1.Pod{}
	dying.Namespace = namespace
	w.get(both.pod.Name, dying)
	if dying.DeletionTimestamp.IsZero() || dying.Labels[v1alpha1.LabelFrozen] == "" {
		w.t.Fatalf("pod has %v and labels %v: it should die frozen", dying.DeletionTimestamp, dying.Labels)
	}
	if _, err := w.policyOf(both.pod); err != nil {
		w.t.Fatalf("the policy went before the pod: %v", err)
	}
	if err := w.base.Delete(w.t.Context(), dying, client.GracePeriodSeconds(0)); err != nil {
		w.t.Fatal(err)
	}
}

// released wants the policy gone and the orders to say this.
func (w *world) released(both *shared, want dispositions) {
	w.t.Helper()
	if _, err := w.policyOf(both.pod); !apierrors.IsNotFound(err) {
		w.t.Errorf("policy after both releases: %v", err)
	}
	w.ordered(both, want)
}

func (w *world) ordered(both *shared, want dispositions) {
	w.t.Helper()
	var got dispositions
	for i, held := range both.held {
		var order v1alpha1.EventResponse
		w.get(v1alpha1.ResponseName(held.Name, v1alpha1.StepUnfreeze, 1), &order)
		got[i].Disposition, got[i].KeepContained = order.Spec.Action.PodUnfreeze.Disposition, order.Spec.Action.PodUnfreeze.KeepContained
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("orders (-want +got):\n%s", diff)
	}
}

// deletedByTheLast lets the one that deletes go first: it hands the pod over, and what it was to do.
func deletedByTheLast(t *testing.T, w *world) {
	both := w.shared("handed-over")
	w.acknowledge(both.held[deleting])
	w.drive(both.events[deleting], v1alpha1.IncidentReleased)
	if got := w.labelOf(both.pod); got != string(both.held[resuming].UID) {
		t.Fatalf("label is %q, want the other incident's", got)
	}
	w.acknowledge(both.held[resuming])
	w.dies(both, resuming)
	w.drive(both.events[resuming], v1alpha1.IncidentReleased)
	w.released(both, dispositions{
		deleting: {Disposition: v1alpha1.DispositionDelete, KeepContained: true},
		resuming: {Disposition: v1alpha1.DispositionDelete},
	})
}

// deletedForOneThatIsGone deletes the incident that deletes between its release and the other's: the node keeps the pod
// frozen by its order, which stays.
func deletedForOneThatIsGone(t *testing.T, w *world) {
	both := w.shared("outlived")
	w.acknowledge(both.held[deleting])
	w.drive(both.events[deleting], v1alpha1.IncidentReleased)
	if err := w.base.Delete(t.Context(), both.held[deleting]); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.acknowledge(both.held[resuming])
	w.dies(both, resuming)
	w.restart()
	w.drive(both.events[resuming], v1alpha1.IncidentReleased)
	w.released(both, dispositions{
		deleting: {Disposition: v1alpha1.DispositionDelete, KeepContained: true},
		resuming: {Disposition: v1alpha1.DispositionDelete},
	})
}

func deletedAfterTheOther(t *testing.T, w *world) {
	both := w.shared("outlasted")
	w.acknowledge(both.held[resuming])
	w.drive(both.events[resuming], v1alpha1.IncidentReleased)
	if got := w.labelOf(both.pod); got != string(both.held[deleting].UID) {
		t.Fatalf("label is %q, want the other incident's", got)
	}
	w.acknowledge(both.held[deleting])
	w.dies(both, deleting)
	w.drive(both.events[deleting], v1alpha1.IncidentReleased)
	w.released(both, dispositions{
		deleting: {Disposition: v1alpha1.DispositionDelete},
		resuming: {Disposition: v1alpha1.DispositionResume, KeepContained: true},
	})
}

// deletedByOneThatCameLate opens the second incident when the first has ordered its release and not yet let go.
func deletedByOneThatCameLate(_ *testing.T, w *world) {
	w.dispose(v1alpha1.DispositionDelete)
	pod, first := w.victim("late")
	both := &shared{pod: pod, events: [2]*v1alpha1.SecurityEvent{deleting: first}}
	both.held[deleting] = w.drive(first, v1alpha1.IncidentHeld)
	w.dispose(v1alpha1.DispositionResume)
	w.agent = silent
	w.acknowledge(both.held[deleting])
	w.drive(first, v1alpha1.IncidentReleasing)
	w.agent = succeed
	w.hold(both)
	w.drive(first, v1alpha1.IncidentReleased)
	w.acknowledge(both.held[resuming])
	w.dies(both, resuming)
	w.drive(both.events[resuming], v1alpha1.IncidentReleased)
	w.released(both, dispositions{
		deleting: {Disposition: v1alpha1.DispositionDelete},
		resuming: {Disposition: v1alpha1.DispositionDelete},
	})
}

// deletedByBoth lets both order before either lets go: the one that orders first is kept contained by the other.
func deletedByBoth(t *testing.T, w *world) {
	for first, want := range map[int]dispositions{
		deleting: {
			deleting: {Disposition: v1alpha1.DispositionDelete, KeepContained: true},
			resuming: {Disposition: v1alpha1.DispositionDelete},
		},
		resuming: {
			deleting: {Disposition: v1alpha1.DispositionDelete},
			resuming: {Disposition: v1alpha1.DispositionResume, KeepContained: true},
		},
	} {
		both := w.shared(fmt.Sprintf("at-once-%d", first))
		w.agent = silent
		for _, which := range []int{first, 1 - first} {
			w.acknowledge(both.held[which])
			w.steady(both.events[which], v1alpha1.IncidentReleasing)
		}
		w.agent = succeed
		w.dies(both, first)
		for _, event := range both.events {
			w.drive(event, v1alpha1.IncidentReleased)
		}
		w.released(both, want)
		if t.Failed() {
			t.Fatalf("with incident %d first", first)
		}
	}
}

// decidedOnce kills the controller before each write of the last release, which is after the one before it.
func decidedOnce(t *testing.T, w *world) {
	for at := 1; ; at++ {
		*w.faults = faults{}
		both := w.shared(fmt.Sprintf("decided-%d", at))
		w.acknowledge(both.held[deleting])
		w.drive(both.events[deleting], v1alpha1.IncidentReleased)
		w.acknowledge(both.held[resuming])
		*w.faults = faults{at: at}
		w.dies(both, resuming)
		w.drive(both.events[resuming], v1alpha1.IncidentReleased)
		w.released(both, dispositions{
			deleting: {Disposition: v1alpha1.DispositionDelete, KeepContained: true},
			resuming: {Disposition: v1alpha1.DispositionDelete},
		})
		if t.Failed() {
			t.Fatalf("killed at write %d", at)
		}
		if w.faults.writes < at {
			break
		}
	}
}

// orderStands opens one more incident when the last had ordered its release: its order stays as it is, and the new one's
// release deletes the pod.
func orderStands(t *testing.T, w *world) {
	both := w.shared("order-stands")
	w.acknowledge(both.held[deleting])
	w.drive(both.events[deleting], v1alpha1.IncidentReleased)
	w.agent = silent
	w.acknowledge(both.held[resuming])
	w.steady(both.events[resuming], v1alpha1.IncidentReleasing)
	w.agent = succeed
	before := *both
	w.hold(both)
	w.restart()
	w.drive(before.events[resuming], v1alpha1.IncidentReleased)
	want := dispositions{
		deleting: {Disposition: v1alpha1.DispositionDelete, KeepContained: true},
		resuming: {Disposition: v1alpha1.DispositionDelete},
	}
	w.ordered(&before, want)
	if got := w.labelOf(both.pod); got != string(both.held[resuming].UID) {
		t.Fatalf("label is %q, want the new incident's", got)
	}
	w.acknowledge(both.held[resuming])
	w.dies(both, resuming)
	w.drive(both.events[resuming], v1alpha1.IncidentReleased)
	w.released(both, want)
}
