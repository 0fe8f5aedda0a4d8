package incident_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	testclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/incident"
	"ugallu.io/forensics/controller/internal/incident/clusterstate"
	"ugallu.io/forensics/controller/internal/incident/upload"
	"ugallu.io/forensics/controller/internal/policy"
	"ugallu.io/forensics/controller/internal/trigger"
	"ugallu.io/forensics/internal/worm"
)

const namespace = "sandbox"

// world is one cluster as the controllers see it, with everything that acts beside them played by the test.
type world struct {
	t      *testing.T
	config *rest.Config
	base   client.WithWatch
	store  *worm.Memory
	clock  *testclock.FakePassiveClock
	faults *faults
	// refuse keeps the store from taking keys.
	refuse  func(key string) error
	trigger *trigger.Reconciler
	steps   *incident.Reconciler
	upload  *upload.Reconciler
	cluster *clusterstate.Reconciler
	// sealed spares the attestor from looking again.
	sealed map[string]bool
	// agent is how the node closes a response.
	agent func(response *v1alpha1.EventResponse)
	// again is when the incident asked to be reconciled again.
	again time.Duration
}

func newWorld(t *testing.T, config *rest.Config) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	base, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, config: config, base: base, store: worm.NewMemory(),
		clock: testclock.NewFakePassiveClock(time.Now()), faults: &faults{}, agent: succeed, sealed: map[string]bool{},
	}
	w.restart()
	return w
}

// restart replaces every controller by a new one: nothing but the API server and the store remembers.
func (w *world) restart() {
	w.t.Helper()
	c := interceptor.NewClient(w.base, w.faults.funcs())
	w.trigger = &trigger.Reconciler{Client: c, Live: w.base, Checker: phase{}, Recorder: &events.FakeRecorder{}, Clock: w.clock}
	w.steps = incident.New(incident.Dependencies{
		Client: c, Live: w.base, Recorder: &events.FakeRecorder{}, Clock: w.clock,
		Policies: policy.New(c, w.base, w.detector(), w.clock),
	})
	w.cluster = &clusterstate.Reconciler{Client: c, Live: w.base, Open: w.open, Clock: w.clock}
	w.upload = &upload.Reconciler{
		Client:   c,
		Open:     w.open,
		Reporter: reporter, ReadBack: "system:serviceaccount:ugallu-system-privileged:ugallu-forensics-snapshot", Clock: w.clock,
	}
}

func (w *world) detector() *policy.Detector {
	w.t.Helper()
	found, err := discovery.NewDiscoveryClientForConfig(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	return policy.NewDetector(found)
}

// open is the store as the controllers reach it.
func (w *world) open(context.Context, v1alpha1.Destination) (worm.Store, error) {
	return faultyStore{w.store, w.faults, w.refuse}, nil
}

func reporter() (v1alpha1.Reporter, error) {
	return v1alpha1.Reporter{
		Account: "system:serviceaccount:ugallu-system:ugallu-forensics", PodUID: "controller-0", NodeName: "control-plane",
		BootID: "boot-0", ImageDigest: "test", Realtime: metav1.NowMicro(),
	}, nil
}

// phase takes the phase of an event for its proof.
type phase struct{}

func (phase) Attested(_ context.Context, event *v1alpha1.SecurityEvent) (bool, error) {
	return event.Status.Phase == v1alpha1.EventAttested, nil
}

var errKilled = errors.New("killed")

// faults kills the controllers at one of their writes, counted from 1: before it, or after it with its answer unheard.
type faults struct {
	mutex  sync.Mutex
	writes int
	at     int
	after  bool
	log    []string
}

func (f *faults) write(what string, act func() error) error {
	f.mutex.Lock()
	f.writes++
	f.log = append(f.log, what)
	hit := f.writes == f.at
	f.mutex.Unlock()
	if hit && !f.after {
		return errKilled
	}
	err := act()
	if hit {
		return errors.Join(errKilled, err)
	}
	return err
}

func (f *faults) funcs() interceptor.Funcs {
	return interceptor.Funcs{
		// Of pods the cache knows no labels but ours.
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, o, opts...)
			if pod, ok := o.(*metav1.PartialObjectMetadata); ok && err == nil {
				pod.Labels = map[string]string{v1alpha1.LabelFrozen: pod.Labels[v1alpha1.LabelFrozen]}
			}
			return err
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return f.write("create "+o.GetName(), func() error { return c.Create(ctx, o, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return f.write("delete "+o.GetName(), func() error { return c.Delete(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return f.write("patch "+o.GetName(), func() error { return c.Patch(ctx, o, p, opts...) })
		},
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			return f.write("apply", func() error { return c.Apply(ctx, o, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			return f.write("patch "+o.GetName()+"/"+sub, func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
		},
	}
}

func (w *world) prepare() {
	w.t.Helper()
	for _, name := range []string{namespace, v1alpha1.NamespaceSystem} {
		w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	w.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: "ugallu-acknowledgement-key"},
		Data:       map[string][]byte{"key": acknowledgementKey()},
	})
	w.create(&v1alpha1.ForensicsConfig{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SingletonName},
		Spec:       v1alpha1.ForensicsConfigSpec{WhitelistedTypes: []string{"HoneypotTriggered"}},
	})
}

// nodeComes makes the Node object of the victims, until the test ends or it goes.
func (w *world) nodeComes() {
	w.t.Helper()
	w.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker"}})
	w.t.Cleanup(w.nodeGoes)
}

func (w *world) nodeGoes() {
	w.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker"}}
	if err := w.base.Delete(context.WithoutCancel(w.t.Context()), node); client.IgnoreNotFound(err) != nil {
		w.t.Error(err)
	}
}

func (w *world) configure(change func(spec *v1alpha1.ForensicsConfigSpec)) {
	w.t.Helper()
	var config v1alpha1.ForensicsConfig
	w.get(v1alpha1.SingletonName, &config)
	change(&config.Spec)
	if err := w.base.Update(w.t.Context(), &config); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) create(object client.Object) {
	w.t.Helper()
	if err := w.base.Create(w.t.Context(), object); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(name string, object client.Object) {
	w.t.Helper()
	if err := w.base.Get(w.t.Context(), client.ObjectKey{Namespace: object.GetNamespace(), Name: name}, object); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pod(name string) *corev1.Pod {
	w.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: "worker", Containers: []corev1.Container{{Name: "web", Image: "web"}}},
	}
	w.create(pod)
	return pod
}

// detect creates an event about a pod. The pod is older by the API server's clock, which counts seconds.
func (w *world) detect(pod *corev1.Pod) *v1alpha1.SecurityEvent {
	w.t.Helper()
	event := &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "synth-"},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassDetection, Type: "HoneypotTriggered", Severity: v1alpha1.SeverityCritical,
			Source:  v1alpha1.EventSource{Operator: "test"},
			Subject: v1alpha1.EventSubject{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)},
		},
	}
	w.create(event)
	return event
}

func (w *world) attest(event *v1alpha1.SecurityEvent) {
	w.t.Helper()
	before := event.DeepCopy()
	event.Status.Phase = v1alpha1.EventAttested
	if err := w.base.Status().Patch(w.t.Context(), event, client.MergeFrom(before)); err != nil {
		w.t.Fatal(err)
	}
}

// round reconciles everything once and returns the first error; a killed controller is replaced.
func (w *world) round(event *v1alpha1.SecurityEvent) error {
	w.t.Helper()
	ctx := w.t.Context()
	name := v1alpha1.IncidentName(string(event.UID))
	request := func(name string) ctrl.Request { return ctrl.Request{NamespacedName: client.ObjectKey{Name: name}} }
	if _, err := w.trigger.Reconcile(ctx, request(event.Name)); err != nil {
		return err
	}
	// What keeps the cluster state is the queue's to repeat: nothing else waits for it here.
	if _, err := w.cluster.Reconcile(ctx, request(name)); errors.Is(err, errKilled) || (err != nil && w.refuse == nil) {
		return err
	}
	result, err := w.steps.Reconcile(ctx, request(name))
	if err != nil {
		return err
	}
	w.again = result.RequeueAfter
	w.play(name)
	_, err = w.upload.Reconcile(ctx, request(v1alpha1.ResponseName(name, v1alpha1.StepUpload, 1)))
	return err
}

// drive reconciles until the incident is in a state, or gives up.
func (w *world) drive(event *v1alpha1.SecurityEvent, wanted v1alpha1.IncidentState) *v1alpha1.Incident {
	w.t.Helper()
	found := &v1alpha1.Incident{}
	const rounds = 30
	for range rounds {
		if err := w.round(event); err != nil {
			if !errors.Is(err, errKilled) {
				w.t.Fatal(err)
			}
			w.restart()
		}
		name := v1alpha1.IncidentName(string(event.UID))
		if err := w.base.Get(w.t.Context(), client.ObjectKey{Name: name}, found); err == nil && found.Status.State == wanted {
			return found
		}
	}
	w.t.Fatalf("incident is %q after %d rounds, want %q: %+v\nwrites: %s", found.Status.State, rounds, wanted, found.Status.Conditions,
		strings.Join(w.faults.log, ", "))
	return nil
}

// play is the node agent and the attestor: they close what was ordered and seal what was closed.
func (w *world) play(incidentName string) {
	w.t.Helper()
	for _, step := range []v1alpha1.Step{v1alpha1.StepFreeze, v1alpha1.StepSnapshot, v1alpha1.StepUpload, v1alpha1.StepUnfreeze} {
		for attempt := int32(1); w.playResponse(v1alpha1.ResponseName(incidentName, step, attempt)); attempt++ {
		}
	}
}

// playResponse says whether there is such a response.
func (w *world) playResponse(name string) bool {
	w.t.Helper()
	response := &v1alpha1.EventResponse{}
	err := w.base.Get(w.t.Context(), client.ObjectKey{Name: name}, response)
	if client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	if err != nil {
		return false
	}
	if response.Spec.NodeName != "" && response.Status.CompletedAt == nil {
		w.agent(response)
		if response.Status.CompletedAt == nil {
			return true
		}
		if err := w.base.Status().Update(w.t.Context(), response); err != nil {
			w.t.Fatal(err)
		}
	}
	if response.Status.CompletedAt != nil && !w.sealed[response.Name] {
		w.sealed[response.Name] = true
		w.seal(v1alpha1.AttestedEventResponse, response, response.Spec.IncidentUID)
	}
	return true
}

func (w *world) seal(kind v1alpha1.AttestedKind, object client.Object, incidentUID string) {
	w.t.Helper()
	ref := v1alpha1.Ref{Name: object.GetName(), UID: string(object.GetUID())}
	bundle := &v1alpha1.AttestationBundle{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.BundleName(ref.UID)},
		Spec:       v1alpha1.AttestationBundleSpec{AttestedFor: v1alpha1.AttestedFor{Kind: kind, Ref: ref}, IncidentUID: incidentUID},
	}
	err := w.base.Create(w.t.Context(), bundle)
	if meta.IsNoMatchError(err) || client.IgnoreAlreadyExists(err) != nil {
		w.t.Fatal(err)
	}
	if err != nil {
		return
	}
	for _, condition := range []string{v1alpha1.ConditionReadBack, v1alpha1.ConditionSealed} {
		meta.SetStatusCondition(&bundle.Status.Conditions, metav1.Condition{
			Type: condition, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded,
		})
	}
	if response, ok := object.(*v1alpha1.EventResponse); ok {
		for _, artifact := range response.Status.Artifacts {
			for _, segment := range append(artifact.Companions(), artifact.Segments...) {
				bundle.Status.Observed = append(bundle.Status.Observed, v1alpha1.ObservedObject{
					Key: segment.Key, VersionID: segment.VersionID, SHA256: segment.SHA256, Size: segment.Size,
					RetainUntil: segment.RetainUntil, LockMode: v1alpha1.LockCompliance,
				})
			}
		}
	}
	if err := w.base.Status().Update(w.t.Context(), bundle); err != nil {
		w.t.Fatal(err)
	}
}
