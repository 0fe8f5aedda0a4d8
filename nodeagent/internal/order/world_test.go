package order

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

const (
	nodeName     = "worker"
	podUID       = "11111111-2222-3333-4444-555555555555"
	incidentName = "0123456789abcdef"
	incidentUID  = "99999999-2222-3333-4444-555555555555"
	anotherName  = "fedcba9876543210"
	anotherUID   = "88888888-2222-3333-4444-555555555555"
)

// world is a node of fakes that note what was done to them, in order.
type world struct {
	t     *testing.T
	mutex sync.Mutex
	done  []string
	pod   Pod
	later []Container

	dropped Dropped
	dropErr error
	holdErr error
	hold    func(ctx context.Context, container string) error
	// cuts are what each drop was asked for, and processes of which pod.
	cuts      []Cut
	processes [][]int
	// attach answers in place of dropped and dropErr.
	attach func(Cut) (Dropped, error)
	// unpinned says that nothing keeps the pod cut off, thawed that its containers run although they were frozen.
	unpinned, thawed bool
	// observed are the hooks that are in place.
	observed   []v1alpha1.Hook
	observeErr error
	// since is when the hooks began to count.
	since time.Time
	// stop answers for the strays that are to be stopped: all of them, when nil.
	stop func([]Stray) (int, error)
	// sockets and storeFlows are called in the middle of each; find and release with the context of each.
	sockets             func()
	storeFlows, release func(context.Context) error
	find                func(ctx context.Context, podUID string) error
	// strays are what each look finds, the first first; stopped is how many were stopped before.
	strays   [][]Stray
	stopped  int
	strayErr error
	held     []string
	flows    Flows
	flowsErr error
	storedAs []FlowsTarget
	// storedUnder is the end of the key that flows are stored under.
	storedUnder string
	storeErr    error
	socketErr   error
	// onDrop and onFreeze are called in the middle of each.
	onDrop, onFreeze func()
	// failing are the effects that fail, as they are noted.
	failing  map[string]error
	captured Captured
	capture  func(Capture) error
	// progress is what the last capture was given to report with.
	progress func(v1alpha1.Progress)
	// captureWithin is how much time a capture may have at most; 0 for any.
	captureWithin time.Duration
	// keptMemory are the processes of pods whose memory is kept, by uid.
	keptMemory map[string][]int

	client  client.Client
	agent   *Reconciler
	ordered []*v1alpha1.EventResponse
}

func newWorld(t *testing.T) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "victim", UID: podUID},
		Spec:       corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "web"}, {Name: "side"}}},
	}
	w := &world{
		t: t, keptMemory: map[string][]int{},
		pod: Pod{
			UID: podUID, Sandboxes: 1, Cgroup: "/cgroup/pod", Processes: []int{10, 11},
			Containers: []Container{{ID: "id-web", Name: "web", Process: 10}, {ID: "id-side", Name: "side", Process: 11}},
		},
		observed: []v1alpha1.Hook{{ID: "hook", Packets: 7, Bytes: 700}},
		dropped:  Dropped{Level: v1alpha1.LevelFull, ContainedAt: time.Now(), Hooks: []v1alpha1.Hook{{ID: "hook", Verified: true}}},
		client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(pod).
			WithStatusSubresource(&v1alpha1.EventResponse{}, &v1alpha1.Incident{}).Build(),
	}
	node := Node{
		Name: nodeName, Containers: w, Drop: w, Freeze: w, Hold: w, Memory: memory{w}, Capture: w, Clock: clock.RealClock{},
		Reporter: Reporter{Identity: v1alpha1.Reporter{Account: "agent", NodeName: nodeName}}, Client: w.client, Live: w.client,
		Known: NewKnown(w.client, t.TempDir()),
	}
	node.Known.Synced()
	counted, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	w.agent = &Reconciler{node: node, pods: newPods(), running: newRunning(), metrics: counted, holdPause: time.Nanosecond}
	return w
}

// memory implements MemoryKeeper.
type memory struct{ *world }

func (m memory) Keep(_ context.Context, ref v1alpha1.PodRef, processes []int) (int, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.keptMemory[ref.UID] = append([]int{}, processes...)
	return 1, m.failing["keep memory"]
}

func (m memory) Release(_ context.Context, podUID string) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if err := m.failing["release memory"]; err != nil {
		return err
	}
	delete(m.keptMemory, podUID)
	return nil
}

func (m memory) Collect(_ context.Context, wanted func(podUID string) bool) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for uid := range m.keptMemory {
		if !wanted(uid) {
			delete(m.keptMemory, uid)
		}
	}
	return nil
}

func (w *world) note(what string) error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.noted(what)
}

// noted is for who has the mutex.
func (w *world) noted(what string) error {
	w.done = append(w.done, what)
	return w.failing[what]
}

// Pod implements Containers. What starts later shows at the second look.
func (w *world) Pod(ctx context.Context, uid string) (Pod, error) {
	if w.find != nil {
		if err := w.find(ctx, uid); err != nil {
			return Pod{}, err
		}
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	found := w.pod
	w.pod.Containers = append(w.pod.Containers, w.later...)
	w.later = nil
	return found, nil
}

// Strays implements Containers.
func (w *world) Strays(context.Context, string) (running []Stray, stopped int, err error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if len(w.strays) == 0 {
		return nil, w.stopped, w.strayErr
	}
	found := w.strays[0]
	w.strays = w.strays[1:]
	return found, w.stopped, w.strayErr
}

// Attach implements Dropper.
func (w *world) Attach(_ context.Context, pod Pod, cut Cut) (Dropped, error) {
	if w.onDrop != nil {
		w.onDrop()
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	_ = w.noted("drop")
	w.cuts, w.processes = append(w.cuts, cut), append(w.processes, pod.Processes)
	if w.attach != nil {
		return w.attach(cut)
	}
	return w.dropped, w.dropErr
}

// Flows implements Dropper.
func (w *world) Flows(string) (Flows, error) { return w.flows, w.flowsErr }

// Sockets implements Dropper.
func (w *world) Sockets(Pod) (*v1alpha1.SocketSample, error) {
	if w.sockets != nil {
		w.sockets()
	}
	return &v1alpha1.SocketSample{At: metav1.NowMicro(), TCPEstablished: 1}, w.socketErr
}

// Observe implements Dropper.
func (w *world) Observe(string) ([]v1alpha1.Hook, error) {
	return w.observed, w.observeErr
}

// CountedSince implements Dropper.
func (w *world) CountedSince(string) (time.Time, error) { return w.since, nil }

// Detach implements Dropper.
func (w *world) Detach(string) error {
	return w.note("detach")
}

// Pods implements Dropper.
func (w *world) Pods() ([]string, error) {
	if w.unpinned {
		return nil, nil
	}
	return []string{podUID}, nil
}

// Method implements Freezer.
func (w *world) Method() v1alpha1.FreezeMethod { return v1alpha1.FreezeCgroupV2 }

// Freeze implements Freezer. Containers are frozen side by side, in no order: one note stands for all of a round.
func (w *world) Freeze(_ context.Context, container Container) (bool, error) {
	if w.onFreeze != nil {
		w.onFreeze()
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if len(w.done) == 0 || w.done[len(w.done)-1] != "freeze" {
		_ = w.noted("freeze")
	}
	return container.Process != 0, nil
}

// Still implements Freezer.
func (w *world) Still(Container) bool { return !w.thawed }

// Thaw implements Freezer.
func (w *world) Thaw(_ context.Context, container Container) (bool, error) {
	err := w.note("thaw " + container.ID)
	return err == nil, err
}

// Stop implements Freezer.
func (w *world) Stop(_ context.Context, _ Pod, strays []Stray) (int, error) {
	if err := w.note("stop strays"); err != nil {
		return 0, err
	}
	if w.stop != nil {
		return w.stop(strays)
	}
	return len(strays), nil
}

// StartStrays implements Freezer.
func (w *world) StartStrays(context.Context, Pod) error { return w.note("start strays") }

// Held implements Holder.
func (w *world) Held(context.Context, string) ([]string, error) { return w.held, w.failing["held"] }

// StoreFlows implements Capturer.
func (w *world) StoreFlows(ctx context.Context, to FlowsTarget, _ []evidence.Flow) (v1alpha1.StoredObject, error) {
	w.storedAs = append(w.storedAs, to)
	if w.storeFlows != nil {
		return v1alpha1.StoredObject{}, w.storeFlows(ctx)
	}
	return v1alpha1.StoredObject{Key: to.Name + w.storedUnder}, w.storeErr
}

// Hold implements Holder. A capture holds side by side.
func (w *world) Hold(ctx context.Context, _, container string) (time.Time, error) {
	_ = w.note("hold " + container)
	if w.hold != nil {
		return time.Time{}, w.hold(ctx, container)
	}
	return time.Now(), w.holdErr
}

// Release implements Holder.
func (w *world) Release(ctx context.Context, _, container string) error {
	if w.release != nil {
		return errors.Join(w.note("release "+container), w.release(ctx))
	}
	return w.note("release " + container)
}

// Capture implements Capturer.
func (w *world) Capture(ctx context.Context, wanted Capture, progress func(v1alpha1.Progress)) (Captured, error) {
	_ = w.note("capture")
	w.progress = progress
	if w.captureWithin != 0 {
		w.within(ctx, w.captureWithin)
	}
	if w.capture != nil {
		if err := w.capture(wanted); err != nil {
			return w.captured, err
		}
	}
	return w.captured, nil
}

// order creates a response and returns it.
func (w *world) order(step v1alpha1.Step, action v1alpha1.Action, changes ...func(*v1alpha1.EventResponse)) *v1alpha1.EventResponse {
	w.t.Helper()
	response := &v1alpha1.EventResponse{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.ResponseName(incidentName, step, 1), UID: types.UID("uid-" + string(step))},
		Spec: v1alpha1.EventResponseSpec{
			IncidentName: incidentName, IncidentUID: incidentUID, NodeName: nodeName, Action: action,
			PodRef: v1alpha1.PodRef{Namespace: "sandbox", Name: "victim", UID: podUID, NodeName: nodeName},
		},
	}
	for _, change := range changes {
		change(response)
	}
	status := response.Status
	if err := w.client.Create(w.t.Context(), response); err != nil {
		w.t.Fatal(err)
	}
	response.Status = status
	if err := w.client.Status().Update(w.t.Context(), response); err != nil {
		w.t.Fatal(err)
	}
	w.ordered = append(w.ordered, response)
	return response
}

// incident makes an incident that is open.
func (w *world) incident(name, uid string, processes v1alpha1.FreezeProcesses) *v1alpha1.Incident {
	w.t.Helper()
	incident := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: types.UID(uid), Labels: map[string]string{v1alpha1.LabelOpen: "true", v1alpha1.LabelPodUID: podUID},
	}}
	incident.Spec.Disposition = v1alpha1.DispositionResume
	incident.Spec.Freeze.Processes = processes
	if err := w.client.Create(w.t.Context(), incident); err != nil {
		w.t.Fatal(err)
	}
	return incident
}

// ofAnother makes an order one of another incident, which was carried out.
func ofAnother(r *v1alpha1.EventResponse) {
	r.Name = v1alpha1.ResponseName(anotherName, v1alpha1.StepFreeze, 1)
	r.Spec.IncidentName, r.Spec.IncidentUID = anotherName, anotherUID
	closed(v1alpha1.ResponseSucceeded)(r)
}

// closed makes an order one that ended.
func closed(phase v1alpha1.ResponsePhase) func(*v1alpha1.EventResponse) {
	at := metav1.NowMicro()
	return func(r *v1alpha1.EventResponse) { r.Status.CompletedAt, r.Status.Phase = &at, phase }
}

// carryOut has the agent carry an order out and returns the record.
func (w *world) carryOut(response *v1alpha1.EventResponse) (*v1alpha1.EventResponse, error) {
	w.t.Helper()
	_, err := w.agent.Reconcile(w.t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(response)})
	var record v1alpha1.EventResponse
	if err := w.client.Get(w.t.Context(), client.ObjectKeyFromObject(response), &record); err != nil {
		w.t.Fatal(err)
	}
	return &record, err
}

func podFreeze(processes v1alpha1.FreezeProcesses) v1alpha1.Action {
	return v1alpha1.Action{Type: v1alpha1.ActionPodFreeze, PodFreeze: &v1alpha1.PodFreezeAction{Processes: processes}}
}

func podUnfreeze(disposition v1alpha1.Disposition, keep bool) v1alpha1.Action {
	return v1alpha1.Action{Type: v1alpha1.ActionPodUnfreeze, PodUnfreeze: &v1alpha1.PodUnfreezeAction{
		Reason: v1alpha1.ReleaseAcknowledged, Disposition: disposition, KeepContained: keep,
	}}
}

func snapshot() v1alpha1.Action {
	return v1alpha1.Action{Type: v1alpha1.ActionFilesystemSnapshot, FilesystemSnapshot: &v1alpha1.FilesystemSnapshotAction{}}
}
