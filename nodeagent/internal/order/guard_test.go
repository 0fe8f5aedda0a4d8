package order

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// tasks is a runtime in which one container of the pod starts.
type tasks struct{ pod string }

func (t tasks) Started(context.Context, func(context.Context, string)) error { return nil }

func (t tasks) PodOf(context.Context, string) (string, error) { return t.pod, nil }

func (w *world) guard() *Guard { return newGuard(w.agent.node, w.agent.pods, tasks{podUID}) }

// newcomer has the guard told of a container that starts and waits until the guard has done with it.
func (w *world) newcomer() {
	w.t.Helper()
	guard := w.guard()
	if err := guard.watcher.newcomer(w.t.Context(), "id-new"); err != nil {
		w.t.Fatal(err)
	}
	guard.restores.end()
}

// stale is a cache that does not show yet what was written.
type stale struct {
	client.Client
	orders v1alpha1.EventResponseList
}

func (s *stale) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if orders, ok := list.(*v1alpha1.EventResponseList); ok {
		s.orders.DeepCopyInto(orders)
		return nil
	}
	return s.Client.List(ctx, list, options...)
}

func TestContainerThatStartsWhileThePodIsBeingContainedIsFrozenAndHeld(t *testing.T) {
	w := newWorld(t)
	w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
	order := w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))
	before := &stale{Client: w.client}
	if err := w.client.List(t.Context(), &before.orders); err != nil {
		t.Fatal(err)
	}
	w.agent.node.Known.reader = before // what is written from here on does not show
	unlock := w.agent.pods.lock(podUID)
	done := make(chan struct{})
	go func() {
		w.newcomer()
		close(done)
	}()
	select {
	case <-done:
		t.Fatal("the newcomer did not wait for the containment that is under way")
	case <-time.After(50 * time.Millisecond):
	}
	unlock()
	<-done
	if _, err := w.carryOut(order); err != nil {
		t.Fatal(err)
	}
	w.done, w.pod.Containers = nil, append(w.pod.Containers, Container{ID: "id-new", Name: "web", Process: 12})
	w.held = []string{"id-web", "id-side"}
	w.newcomer()
	if diff := cmp.Diff([]string{"drop", "freeze", "hold id-new"}, w.done); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
}

func TestPodWhoseProcessesRunIsPartialAndSaysThatStreamsBypassTheNetwork(t *testing.T) {
	w := newWorld(t)
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeNever)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponsePartial, "drop", "hold id-web", "hold id-side")
	message := record.Status.Conditions[0].Message
	if record.Status.Containment.Level != v1alpha1.LevelPartial || !strings.Contains(message, "exec, attach") {
		t.Errorf("level %s, message %q", record.Status.Containment.Level, message)
	}
	if diff := cmp.Diff([]Cut{{Running: true, Probe: true}}, w.cuts); diff != "" {
		t.Errorf("cuts (-want +got):\n%s", diff)
	}
}

func TestPodInTheNodesNetworkIsFrozenBesideTheDrop(t *testing.T) {
	w := newWorld(t)
	var pod corev1.Pod
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: "sandbox", Name: "victim"}, &pod); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Delete(t.Context(), &pod); err != nil {
		t.Fatal(err)
	}
	pod.ResourceVersion, pod.Spec.HostNetwork = "", true
	if err := w.client.Create(t.Context(), &pod); err != nil {
		t.Fatal(err)
	}
	// The drop does not return before the freeze has begun.
	frozen := make(chan struct{})
	w.onFreeze = sync.OnceFunc(func() { close(frozen) })
	w.onDrop = func() {
		select {
		case <-frozen:
		case <-time.After(10 * time.Second):
			t.Error("the freeze waited for the drop")
		}
	}
	if _, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))); err != nil {
		t.Fatal(err)
	}
}

func TestRecordHasTheSocketsAndTheFlowCounts(t *testing.T) {
	w := newWorld(t)
	w.flows = Flows{Counts: v1alpha1.FlowCounts{Listed: 2}}
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	got := record.Status.Containment
	if got.SocketsBefore == nil || got.SocketsAfter == nil || got.Flows == nil || got.Flows.Listed != 2 {
		t.Errorf("containment %+v", got)
	}
}

func TestFlowsThatCannotBeReadAreAGap(t *testing.T) {
	w := newWorld(t)
	w.flowsErr = errors.New("map is gone")
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	want := []v1alpha1.GapCount{{Reason: evidence.GapFlowsNotRead, Message: "map is gone", Count: 1}}
	if diff := cmp.Diff(want, record.Status.Gaps); diff != "" || record.Status.Phase != v1alpha1.ResponsePartial {
		t.Errorf("phase %s, gaps (-want +got):\n%s", record.Status.Phase, diff)
	}
}

func TestThePlanNamesTheProbeThatKills(t *testing.T) {
	// That a container may be killed says no time.
	const never = -time.Second
	port := intstr.FromInt32(8080)
	http := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: port}}, FailureThreshold: 3, PeriodSeconds: 10}
	exec := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{}}, FailureThreshold: 3, PeriodSeconds: 10}
	once := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{}}, FailureThreshold: 1, PeriodSeconds: 10, TimeoutSeconds: 7}
	const under = " by exec, 1 failure, if it was under way at the freeze and not done within 7 s"
	yes := true
	tests := map[string]struct {
		container corev1.Container
		init      bool
		started   *bool
		want      string
		after     time.Duration
	}{
		"none":             {corev1.Container{}, false, &yes, "", 0},
		"exec":             {corev1.Container{LivenessProbe: exec}, false, &yes, "", 0},
		"exec, once":       {corev1.Container{LivenessProbe: once}, false, &yes, "may be killed: livenessProbe" + under, never},
		"exec at start":    {corev1.Container{LivenessProbe: http, StartupProbe: once}, false, nil, "may be killed: startupProbe" + under, never},
		"http":             {corev1.Container{LivenessProbe: http}, false, &yes, "livenessProbe by httpGet of port 8080, 3 failures 10 s apart", 20 * time.Second},
		"still starting":   {corev1.Container{LivenessProbe: exec, StartupProbe: http}, false, nil, "startupProbe by httpGet of port 8080, 3 failures 10 s apart", 20 * time.Second},
		"started":          {corev1.Container{LivenessProbe: exec, StartupProbe: http}, false, &yes, "", 0},
		"sidecar":          {corev1.Container{LivenessProbe: http}, true, &yes, "livenessProbe by httpGet of port 8080, 3 failures 10 s apart", 20 * time.Second},
		"defaults of zero": {corev1.Container{LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}}}}, false, &yes, "livenessProbe by tcpSocket to port 8080, 1 failures 1 s apart", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.container.Name = "web"
			pod, status := new(corev1.Pod), corev1.ContainerStatus{Name: "web", Started: tt.started}
			pod.Spec.Containers, pod.Status.ContainerStatuses = []corev1.Container{tt.container}, []corev1.ContainerStatus{status}
			if tt.init {
				pod.Spec.Containers, pod.Spec.InitContainers = nil, pod.Spec.Containers
			}
			at := metav1.NewMicroTime(time.Unix(1000, 0))
			got := v1alpha1.ContainerFreeze{Name: "web", FrozenAt: &at}
			explainKill(pod, &got)
			if expected := tt.want != "" && tt.after != never; got.ProbeKill != tt.want || (got.ProbeKillExpectedAt != nil) != expected {
				t.Fatalf("%q at %v, want %q", got.ProbeKill, got.ProbeKillExpectedAt, tt.want)
			}
			if got.ProbeKillExpectedAt != nil && got.ProbeKillExpectedAt.Sub(at.Time) != tt.after {
				t.Errorf("kills after %v, want %v", got.ProbeKillExpectedAt.Sub(at.Time), tt.after)
			}
		})
	}
}

func TestPodsAreKeptAsLastKnownWhileTheAPIServerIsAway(t *testing.T) {
	w := newWorld(t)
	w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
	if _, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Dir(w.agent.node.Known.journal)
	w.agent.node.Known = NewKnown(w.client, journal) // as after a restart, before the API server was reached
	keeper := &keeper{node: w.agent.node, pods: w.agent.pods}
	w.done, w.held = nil, []string{"id-web", "id-side"}
	if err := keeper.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"drop", "freeze"}, w.done); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
}

func TestUnfreezeAtIsHonouredWhileTheAPIServerIsAway(t *testing.T) {
	w := newWorld(t)
	incident := w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
	due := metav1.NewTime(time.Now().Add(-2 * patience))
	incident.Status.UnfreezeAt = &due
	if err := w.client.Status().Update(t.Context(), incident); err != nil {
		t.Fatal(err)
	}
	if _, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))); err != nil {
		t.Fatal(err)
	}
	w.agent.node.Known = NewKnown(w.client, filepath.Dir(w.agent.node.Known.journal))
	w.done, w.held = nil, []string{"id-web", "id-side"}
	if err := (&keeper{node: w.agent.node, pods: w.agent.pods}).look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"release id-web", "release id-side", "thaw id-web", "thaw id-side", "start strays", "detach"}, w.done); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
}

func TestAJournalThatCannotBeReadIsAnError(t *testing.T) {
	w := newWorld(t)
	w.agent.node.Known = NewKnown(w.client, t.TempDir())
	if known, err := intents(t.Context(), w.agent.node); err != nil || len(known) != 0 {
		t.Errorf("without a journal: %v, %v", known, err)
	}
	if err := os.WriteFile(w.agent.node.Known.journal, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := intents(t.Context(), w.agent.node); err == nil {
		t.Error("half a journal was read")
	}
}

func TestReleaseLetsGoWhatIsHeldOfContainersThatAreGone(t *testing.T) {
	w := newWorld(t)
	w.held = []string{"id-gone", "id-web"}
	record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, "release id-gone", "release id-web", "release id-side", "thaw id-web", "thaw id-side", "start strays", "detach")
}

func TestReleaseStoresTheFlowsAndGoesOnWhenTheStoreIsAway(t *testing.T) {
	for name, storeErr := range map[string]error{"stored": nil, "store is away": errors.New("connection refused")} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.order(v1alpha1.StepSnapshot, snapshot(), closed(v1alpha1.ResponseSucceeded))
			w.flows = Flows{Counts: v1alpha1.FlowCounts{Listed: 1}, List: []evidence.Flow{{Protocol: 6}}}
			w.storeErr = storeErr
			record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponseSucceeded, "release id-web", "release id-side", "thaw id-web", "thaw id-side", "start strays", "detach")
			got, message := record.Status.Containment, record.Status.Conditions[0].Message
			if got.Flows == nil || got.Flows.Listed != 1 || (got.FlowsObject != nil) != (storeErr == nil) ||
				strings.Contains(message, "connection refused") != (storeErr != nil) || len(w.storedAs) != 1 {
				t.Errorf("flows %+v, object %+v, message %q", got.Flows, got.FlowsObject, message)
			}
		})
	}
}

func TestKeeperLetsGoWhatAReleaseHadToKeep(t *testing.T) {
	w := newWorld(t)
	w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false), closed(v1alpha1.ResponseSucceeded))
	keeper := &keeper{node: w.agent.node, pods: w.agent.pods}
	w.held = []string{"id-web"}
	for _, want := range [][]string{{"release id-web"}, {"release id-web"}, nil, nil} {
		if want == nil {
			w.held = nil
		}
		w.done = nil
		if err := keeper.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, w.done); diff != "" {
			t.Errorf("effects (-want +got):\n%s", diff)
		}
	}
}

func TestFrozenContainersWithoutADropAreNoFailure(t *testing.T) {
	at := metav1.NowMicro()
	containment := &v1alpha1.Containment{Containers: []v1alpha1.ContainerFreeze{{ContainerID: "id-web", FrozenAt: &at}}}
	status := v1alpha1.EventResponseStatus{Containment: containment, Conditions: []metav1.Condition{{
		Type: v1alpha1.ConditionComplete, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonDeadlineExceeded,
	}}}
	if got := phase(status); got != v1alpha1.ResponsePartial {
		t.Errorf("phase %s: the keeper would let a frozen pod's newcomers run", got)
	}
}
