package order

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

func TestHoldThatTakesTooLongIsAShortfall(t *testing.T) {
	w := newWorld(t)
	w.hold = func(ctx context.Context, _ string) error {
		if at, ok := ctx.Deadline(); !ok || time.Until(at) > holdWithin {
			t.Errorf("a hold may take until %v", at)
		}
		return context.DeadlineExceeded
	}
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponsePartial, "drop", "freeze", "drop", "hold id-web", "hold id-side")
}

func TestRecordOfDropAndFreezeOutlivesAHoldThatMeetsTheDeadline(t *testing.T) {
	w := newWorld(t)
	w.hold = func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	soon := wholeSeconds(time.Now().Add(4 * time.Second))
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), begun, func(r *v1alpha1.EventResponse) { r.Spec.Deadline = &soon }))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponsePartial, "drop", "freeze", "drop", "hold id-web", "hold id-side")
	got := record.Status.Containment
	if got == nil || got.ContainedAt == nil || len(got.Containers) != 2 || got.Containers[0].FrozenAt == nil {
		t.Errorf("containment %+v", got)
	}
}

func TestRecordSaysWhatWasReachedWhenAHoldIsStillToCome(t *testing.T) {
	w := newWorld(t)
	order := w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))
	step := &freezeStep{node: w.agent.node, record: newRecord(w.agent.node, order)}
	w.hold = func(context.Context, string) error {
		if got := step.record.status().Containment; got == nil || len(got.Containers) != 2 || got.Containers[1].FrozenAt == nil {
			t.Errorf("containment %+v", got)
		}
		return nil
	}
	if _, err := step.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestContainerThatWasCreatedIsFrozenOnceItRuns(t *testing.T) {
	w := newWorld(t)
	w.pod.Containers[0].Process = 0
	looks := 0
	w.find = func(context.Context, string) error {
		if looks++; looks == 2 {
			w.pod.Containers[0].Process = 10
		}
		return nil
	}
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, "drop", "freeze", "drop", "hold id-web", "hold id-side")
	got := record.Status.Containment.Containers
	if len(got) != 2 || got[0].ContainerID != "id-web" || got[0].FrozenAt == nil || got[1].FrozenAt == nil {
		t.Errorf("containers %+v", got)
	}
}

// empty is a node on which the freezer of one container has nothing to stop or to set going.
type empty struct {
	Freezer
	id string
	// still is what the freezer says of it.
	still bool
}

func (e empty) Freeze(ctx context.Context, container Container) (bool, error) {
	if container.ID == e.id {
		return false, nil
	}
	return e.Freezer.Freeze(ctx, container)
}

func (e empty) Thaw(ctx context.Context, container Container) (bool, error) {
	if container.ID == e.id {
		return false, nil
	}
	return e.Freezer.Thaw(ctx, container)
}

func (e empty) Still(container Container) bool { return container.ID != e.id || e.still }

func TestContainerWhoseProcessIsElsewhereIsAShortfallUnlessItEnded(t *testing.T) {
	for name, process := range map[string]int{"elsewhere": 10, "ended": 0} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.agent.node.Freeze = empty{Freezer: w, id: "id-web"}
			looks := 0
			w.find = func(context.Context, string) error {
				if looks++; looks == 2 {
					w.pod.Containers = []Container{{ID: "id-web", Name: "web", Process: process}, w.pod.Containers[1]}
				}
				return nil
			}
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
			if err != nil {
				t.Fatal(err)
			}
			if process == 0 {
				w.demand(record, v1alpha1.ResponseSucceeded, "drop", "freeze", "drop", "hold id-web", "hold id-side")
				return
			}
			w.demand(record, v1alpha1.ResponsePartial, "drop", "freeze", "drop", "hold id-web", "hold id-side")
			w.sayWhy(record, "nothing is in the cgroup of container web, and its process 10 is elsewhere")
		})
	}
}

func TestPodThatSharesTheNodesPIDNamespaceIsAShortfall(t *testing.T) {
	w := newWorld(t)
	w.strayErr = ErrSharedNamespace
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponsePartial, "drop", "freeze", "drop", "hold id-web", "hold id-side")
	if message := record.Status.Conditions[0].Message; !strings.Contains(message, "; processes outside their containers' cgroups: escaped processes cannot be told") {
		t.Errorf("message %q", message)
	}
}

// TestPodThatSharesItsSandboxsPIDNamespaceIsAShortfall whether its processes are seen there or, since they ended, its spec says so.
func TestPodThatSharesItsSandboxsPIDNamespaceIsAShortfall(t *testing.T) {
	for name, seen := range map[string]error{"seen": ErrSandboxRuns, "by its spec": nil} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.strayErr = seen
			if seen == nil {
				w.change(func(pod *corev1.Pod) { pod.Spec.ShareProcessNamespace = new(true) })
			}
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponsePartial, "drop", "freeze", "drop", "hold id-web", "hold id-side")
			w.sayWhy(record, "the sandbox's process runs on, and the pod's processes may reach it")
			if level := record.Status.Containment.Level; level != v1alpha1.LevelPartial {
				t.Errorf("level %s", level)
			}
		})
	}
}

func TestOnlyTheMirrorAnnotationExemptsAPod(t *testing.T) {
	tests := map[string]struct {
		annotation, value string
		phase             v1alpha1.ResponsePhase
		done              []string
	}{
		"mirror of a static pod": {annotationMirror, "hash", v1alpha1.ResponseFailed, nil},
		"source set by its owner": {
			"kubernetes.io/config.source", "file", v1alpha1.ResponseSucceeded,
			[]string{"drop", "freeze", "drop", "hold id-web", "hold id-side"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.change(func(pod *corev1.Pod) { pod.Annotations = map[string]string{tt.annotation: tt.value} })
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, tt.phase, tt.done...)
		})
	}
}

func TestUIDThatIsNoneOfAPodIsRefusedUnasked(t *testing.T) {
	for uid, ok := range map[string]bool{
		podUID: true, "0123456789abcdef0123456789abcdef": true,
		"": false, "..": false, podUID[:31]: false, podUID + "0": false, "../" + podUID[:32]: false, podUID[:35] + "\n": false, podUID[:35] + `"`: false,
	} {
		spec := v1alpha1.EventResponseSpec{PodRef: v1alpha1.PodRef{Namespace: "sandbox", Name: "victim", UID: uid, NodeName: nodeName}}
		if err := checkOrder(nodeName, spec); (err == nil) != ok {
			t.Errorf("uid %q: %v", uid, err)
		}
	}
}

// change changes the pod that the API server has.
func (w *world) change(change func(*corev1.Pod)) {
	w.t.Helper()
	var pod corev1.Pod
	if err := w.client.Get(w.t.Context(), client.ObjectKey{Namespace: "sandbox", Name: "victim"}, &pod); err != nil {
		w.t.Fatal(err)
	}
	change(&pod)
	status := pod.Status
	if err := w.client.Update(w.t.Context(), &pod); err != nil {
		w.t.Fatal(err)
	}
	pod.Status = status
	if err := w.client.Status().Update(w.t.Context(), &pod); err != nil {
		w.t.Fatal(err)
	}
}
