package incident_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	controllerconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/incident"
	"ugallu.io/forensics/controller/internal/policy"
	"ugallu.io/forensics/internal/apitest"
)

// promptly is far less than the 5 min after which an incident is looked at in any case.
const promptly = time.Minute

func TestWhatHoldsAPodIsRestoredPromptly(t *testing.T) {
	for backend, crds := range map[v1alpha1.FreezeBackend][]string{
		v1alpha1.BackendCoreV1: nil,
		v1alpha1.BackendCilium: {filepath.Join("..", "policy", "testdata", "ciliumnetworkpolicies.yaml")},
	} {
		t.Run(string(backend), func(t *testing.T) {
			w := newWorld(t, apitest.Start(t, crds...))
			w.prepare()
			pod, event := w.victim("watched")
			held := w.drive(event, v1alpha1.IncidentHeld)
			if held.Status.Policy == nil || held.Status.Policy.Backend != backend {
				t.Fatalf("policy on record is %+v", held.Status.Policy)
			}
			w.run(backend)
			counted := int32(0)
			for name, touch := range touches() {
				standing := w.deny(backend, pod)
				if err := touch(t.Context(), w.base, standing.DeepCopy(), pod); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				t.Logf("%s: restored after %s", name, w.restored(standing, pod, held))
				// The label is not the policy's: its loss is not counted. The record follows the policy; a touch before it does
				// would be one with the one before.
				if name != "label of the pod removed" {
					counted++
				}
				w.counted(held, counted)
			}
		})
	}
}

// counted waits for the record, which is written after the policy.
func (w *world) counted(held *v1alpha1.Incident, want int32) {
	w.t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		w.get(held.Name, held)
		if held.Status.Policy.Reapplied == want {
			return
		}
		if time.Since(start) > promptly {
			w.t.Fatalf("applied again %d times, want %d", held.Status.Policy.Reapplied, want)
		}
	}
}

// touches are what somebody does to let the pod out.
func touches() map[string]func(context.Context, client.Client, *unstructured.Unstructured, *corev1.Pod) error {
	merge := func(patch string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(patch)) }
	return map[string]func(context.Context, client.Client, *unstructured.Unstructured, *corev1.Pod) error{
		"policy deleted": func(ctx context.Context, c client.Client, policy *unstructured.Unstructured, _ *corev1.Pod) error {
			return c.Delete(ctx, policy)
		},
		"policy edited": func(ctx context.Context, c client.Client, policy *unstructured.Unstructured, _ *corev1.Pod) error {
			return c.Patch(ctx, policy, merge(`{"spec":{"egress":[{}]}}`))
		},
		"its label removed and the policy edited": func(ctx context.Context, c client.Client, policy *unstructured.Unstructured, _ *corev1.Pod) error {
			return c.Patch(ctx, policy, merge(`{"metadata":{"labels":null},"spec":{"ingress":[{}]}}`))
		},
		"label of the pod removed": func(ctx context.Context, c client.Client, _ *unstructured.Unstructured, pod *corev1.Pod) error {
			return c.Patch(ctx, pod.DeepCopy(), merge(`{"metadata":{"labels":{"`+v1alpha1.LabelFrozen+`":null}}}`))
		},
	}
}

// run walks incidents as the controller does, its cache and its watch on Cilium's policies included, until the test ends.
func (w *world) run(backend v1alpha1.FreezeBackend) {
	w.t.Helper()
	mgr, err := ctrl.NewManager(w.config, ctrl.Options{
		Scheme: w.base.Scheme(), Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: controllerconfig.Controller{SkipNameValidation: ptr.To(true)},
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                 {Label: w.carries(v1alpha1.LabelFrozen)},
			&networkingv1.NetworkPolicy{}: {Label: w.carries(v1alpha1.LabelPodUID)},
		}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	found, err := discovery.NewDiscoveryClientForConfig(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	r := incident.New(incident.Dependencies{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Recorder: &events.FakeRecorder{}, Clock: w.clock,
		Policies: policy.New(mgr.GetClient(), mgr.GetAPIReader(), policy.NewDetector(found), w.clock),
	})
	built, err := r.SetupWithManager(mgr)
	if err != nil {
		w.t.Fatal(err)
	}
	if backend == v1alpha1.BackendCilium {
		kind := &metav1.PartialObjectMetadata{}
		kind.SetGroupVersionKind(policy.Kind(backend))
		var object client.Object = kind
		if err := built.Watch(source.Kind(mgr.GetCache(), object, handler.EnqueueRequestsFromMapFunc(r.OfPod))); err != nil {
			w.t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	// What is touched before the watches stand is found by the first walk, which proves nothing.
	if !mgr.GetCache().WaitForCacheSync(w.t.Context()) {
		w.t.Fatal("the cache does not fill")
	}
	time.Sleep(time.Second)
}

func (w *world) carries(label string) labels.Selector {
	w.t.Helper()
	requirement, err := labels.NewRequirement(label, selection.Exists, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return labels.NewSelector().Add(*requirement)
}

func (w *world) deny(backend v1alpha1.FreezeBackend, pod *corev1.Pod) *unstructured.Unstructured {
	w.t.Helper()
	found := &unstructured.Unstructured{}
	found.SetGroupVersionKind(policy.Kind(backend))
	found.SetNamespace(pod.Namespace)
	w.get(policy.Name(string(pod.UID)), found)
	return found
}

// restored returns how long it took until policy and label were as before.
func (w *world) restored(policy *unstructured.Unstructured, pod *corev1.Pod, held *v1alpha1.Incident) time.Duration {
	w.t.Helper()
	start := time.Now()
	for {
		found := &unstructured.Unstructured{}
		found.SetGroupVersionKind(policy.GroupVersionKind())
		err := w.base.Get(w.t.Context(), client.ObjectKeyFromObject(policy), found)
		if client.IgnoreNotFound(err) != nil {
			w.t.Fatal(err)
		}
		asBefore := err == nil && equality.Semantic.DeepEqual(found.Object["spec"], policy.Object["spec"]) &&
			equality.Semantic.DeepEqual(found.GetLabels(), policy.GetLabels())
		if asBefore && w.labelOf(pod) == string(held.UID) {
			return time.Since(start)
		}
		if time.Since(start) > promptly {
			w.t.Fatalf("not restored: policy %v, label %q", found.Object, w.labelOf(pod))
		}
		time.Sleep(10 * time.Millisecond)
	}
}
