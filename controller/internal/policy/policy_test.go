package policy_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/policy"
	"ugallu.io/forensics/internal/apitest"
)

const (
	namespace = "sandbox"
	podUID    = "b2d5a9de-0000-4000-8000-000000000001"
)

type fixture struct {
	client   client.Client
	detector *policy.Detector
	policies *policy.Policies
	pod      v1alpha1.PodRef
	labels   map[string]string
}

func newFixture(t *testing.T, config *rest.Config) fixture {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	detector := policy.NewDetector(found)
	return fixture{
		client: c, detector: detector, policies: policy.New(c, c, detector, clock.RealClock{}),
		pod:    v1alpha1.PodRef{Namespace: namespace, Name: "victim", UID: podUID, NodeName: "worker"},
		labels: map[string]string{"app": "victim", v1alpha1.LabelFrozen: "incident-1"},
	}
}

func (f fixture) ensure(t *testing.T, known *v1alpha1.AppliedPolicy) *v1alpha1.AppliedPolicy {
	t.Helper()
	applied, err := f.policies.Ensure(t.Context(), f.pod, f.labels, known, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

func (f fixture) read(t *testing.T, backend v1alpha1.FreezeBackend) (*unstructured.Unstructured, error) {
	t.Helper()
	found := &unstructured.Unstructured{}
	found.SetGroupVersionKind(policy.Kind(backend))
	err := f.client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: policy.Name(podUID)}, found)
	return found, err
}

// TestPolicyOnBothBackends runs on one API server, without Cilium's kind at first and with it later, as when Cilium is
// installed into a running cluster.
func TestPolicyOnBothBackends(t *testing.T) {
	config := apitest.Run(t, &envtest.Environment{})
	f := newFixture(t, config)
	if err := f.client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	standsAndReturns(t, f, v1alpha1.BackendCoreV1, map[string]any{
		"podSelector": map[string]any{"matchExpressions": []any{map[string]any{"key": "ugallu.io/frozen", "operator": "Exists"}}},
		"policyTypes": []any{"Ingress", "Egress"},
	})
	installCilium(t, config, f)
	standsAndReturns(t, f, v1alpha1.BackendCilium, map[string]any{
		"endpointSelector": map[string]any{"matchExpressions": []any{map[string]any{"key": "ugallu.io/frozen", "operator": "Exists"}}},
		"ingressDeny":      []any{map[string]any{"fromEntities": []any{"all"}}},
		"egressDeny":       []any{map[string]any{"toEntities": []any{"all"}}},
		"ingress":          []any{},
		"egress":           []any{},
	})
	recordsOthers(t, f)
	takesOverALookalike(t, f)
	survivesCilium(t, config, f)
}

func standsAndReturns(t *testing.T, f fixture, backend v1alpha1.FreezeBackend, want map[string]any) {
	t.Helper()
	applied := f.ensure(t, nil)
	if applied.Backend != backend || applied.Reapplied != 0 {
		t.Fatalf("applied %+v, want backend %s", applied, backend)
	}
	found, err := f.read(t, backend)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, found.Object["spec"]); diff != "" {
		t.Fatal(diff)
	}
	if string(found.GetUID()) != applied.Ref.UID || found.GetLabels()[v1alpha1.LabelPodUID] != podUID {
		t.Fatalf("reference %v, labels %v", applied.Ref, found.GetLabels())
	}
	if again := f.ensure(t, applied); again != applied {
		t.Fatal("an intact policy was applied again")
	}
	if first := f.ensure(t, nil); first.Ref != applied.Ref {
		t.Fatalf("a second incident got policy %v", first.Ref)
	}
	edited := applied
	for edit, change := range edits(backend) {
		found, err := f.read(t, backend)
		if err != nil {
			t.Fatal(err)
		}
		change(found)
		if err := f.client.Update(t.Context(), found); err != nil {
			t.Fatalf("%s: %v", edit, err)
		}
		repaired := f.ensure(t, edited)
		if repaired.Reapplied != edited.Reapplied+1 {
			t.Fatalf("%s: reapplied %d times", edit, repaired.Reapplied)
		}
		edited = repaired
		if found, err = f.read(t, backend); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, found.Object["spec"]); diff != "" {
			t.Fatalf("%s: %s", edit, diff)
		}
	}
	if err := f.client.Delete(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	repaired := f.ensure(t, edited)
	if repaired.Reapplied != edited.Reapplied+1 || repaired.Ref.UID == applied.Ref.UID {
		t.Fatalf("after deletion %+v", repaired)
	}
	for range 2 {
		if err := f.policies.Remove(t.Context(), f.pod); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.read(t, backend); !apierrors.IsNotFound(err) {
		t.Fatalf("removed policy: %v", err)
	}
}

// edits are what somebody may do to a policy to let the pod out.
func edits(backend v1alpha1.FreezeBackend) map[string]func(*unstructured.Unstructured) {
	set := func(value any, path ...string) func(*unstructured.Unstructured) {
		return func(u *unstructured.Unstructured) {
			if err := unstructured.SetNestedField(u.Object, value, path...); err != nil {
				panic(err)
			}
		}
	}
	selector := "podSelector"
	if backend == v1alpha1.BackendCilium {
		selector = "endpointSelector"
	}
	changes := map[string]func(*unstructured.Unstructured){
		"a rule added":          set([]any{map[string]any{}}, "spec", "egress"),
		"another selector":      set(map[string]any{"matchLabels": map[string]any{"app": "other"}}, "spec", selector),
		"selector narrowed":     set(map[string]any{"app": "other"}, "spec", selector, "matchLabels"),
		"label of ours removed": set(map[string]any{}, "metadata", "labels"),
	}
	if backend == v1alpha1.BackendCilium {
		changes["deny emptied"] = set([]any{}, "spec", "egressDeny")
	} else {
		changes["only ingress"] = set([]any{"Ingress"}, "spec", "policyTypes")
	}
	return changes
}

// takesOverALookalike: what somebody created with our policy's name and content is not taken for ours.
func takesOverALookalike(t *testing.T, f fixture) {
	t.Helper()
	known := f.ensure(t, nil)
	copied, err := f.read(t, v1alpha1.BackendCilium)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.policies.Remove(t.Context(), f.pod); err != nil {
		t.Fatal(err)
	}
	lookalike := &unstructured.Unstructured{Object: map[string]any{"spec": copied.Object["spec"]}}
	lookalike.SetGroupVersionKind(copied.GroupVersionKind())
	lookalike.SetNamespace(copied.GetNamespace())
	lookalike.SetName(copied.GetName())
	lookalike.SetLabels(copied.GetLabels())
	if err := f.client.Create(t.Context(), lookalike); err != nil {
		t.Fatal(err)
	}
	// Creation is told to the second.
	later := lookalike.GetCreationTimestamp().Add(time.Second)
	time.Sleep(time.Until(later))
	applied := f.ensure(t, nil)
	if applied.AppliedAt.Time.Before(later) || applied.Ref.UID != string(lookalike.GetUID()) || applied.Ref == known.Ref {
		t.Fatalf("applied %+v, the other was created at %s", applied, lookalike.GetCreationTimestamp())
	}
	found, err := f.read(t, v1alpha1.BackendCilium)
	if err != nil {
		t.Fatal(err)
	}
	var ours bool
	for _, entry := range found.GetManagedFields() {
		ours = ours || entry.Manager == policy.FieldOwner && entry.Operation == metav1.ManagedFieldsOperationApply
	}
	if !ours {
		t.Fatalf("managed by %+v", found.GetManagedFields())
	}
	if again := f.ensure(t, nil); again.AppliedAt.Time.Before(later) || again.Ref != applied.Ref {
		t.Fatalf("for another incident %+v, the other was created at %s", again, lookalike.GetCreationTimestamp())
	}
}
