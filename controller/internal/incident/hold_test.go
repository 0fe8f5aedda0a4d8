package incident_test

import (
	"context"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/incident"
	"ugallu.io/forensics/controller/internal/policy"
)

func keptInPlace(t *testing.T, w *world) {
	pod := w.pod("kept")
	other := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "allow-kept"},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "kept"}}},
	}
	w.create(other)
	event := w.detect(pod)
	w.attest(event)
	held := w.drive(event, v1alpha1.IncidentHeld)
	if others := held.Status.Policy.Others; len(others) != 1 || others[0].Name != "allow-kept" || others[0].UID != string(other.UID) {
		t.Fatalf("other policies on record are %v", others)
	}
	policy, err := w.policyOf(pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.base.Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	w.steady(event, v1alpha1.IncidentHeld)
	policy, err = w.policyOf(pod)
	if err != nil {
		t.Fatalf("a deleted policy is not applied again: %v", err)
	}
	policy.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
	if err := w.base.Update(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	w.steady(event, v1alpha1.IncidentHeld)
	if policy, err = w.policyOf(pod); err != nil || len(policy.Spec.Egress) != 0 {
		t.Fatalf("a rule that was added still stands: %v %v", policy.Spec.Egress, err)
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"ugallu.io/frozen":null}}}`))
	if err := w.base.Patch(t.Context(), pod, patch); err != nil {
		t.Fatal(err)
	}
	held = w.steady(event, v1alpha1.IncidentHeld)
	if w.labelOf(pod) != string(held.UID) || held.Status.Policy.Reapplied != 2 {
		t.Fatalf("label is %q, policy was applied again %d times", w.labelOf(pod), held.Status.Policy.Reapplied)
	}
}

// onRecord is a controller whose cache shows an old record of an incident.
func (w *world) onRecord(stale *v1alpha1.Incident) *incident.Reconciler {
	behind := interceptor.NewClient(w.base, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, opts ...client.GetOption) error {
			if record, ok := object.(*v1alpha1.Incident); ok && key.Name == stale.Name {
				stale.DeepCopyInto(record)
				return nil
			}
			return c.Get(ctx, key, object, opts...)
		},
	})
	return incident.New(incident.Dependencies{
		Client: behind, Live: w.base, Recorder: &events.FakeRecorder{}, Clock: w.clock,
		Policies: policy.New(w.base, w.base, w.detector(), w.clock),
	})
}

// countedOnce: a cache that shows the record from before the last repair has nothing repaired before it is up to date.
func countedOnce(t *testing.T, w *world) {
	pod, event := w.victim("counted")
	stale := w.drive(event, v1alpha1.IncidentHeld)
	remove := func() {
		t.Helper()
		policy, err := w.policyOf(pod)
		if err == nil {
			err = w.base.Delete(t.Context(), policy)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	remove()
	if once := w.steady(event, v1alpha1.IncidentHeld); once.Status.Policy.Reapplied != 1 {
		t.Fatalf("policy was applied again %d times, want 1", once.Status.Policy.Reapplied)
	}
	remove()
	again, err := w.onRecord(stale).Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(stale)})
	if err != nil || again.RequeueAfter == 0 {
		t.Fatalf("a walk on an old record: %+v, %v", again, err)
	}
	if _, err := w.policyOf(pod); !apierrors.IsNotFound(err) {
		t.Fatalf("the policy was applied on top of an old record: %v", err)
	}
	if twice := w.steady(event, v1alpha1.IncidentHeld); twice.Status.Policy.Reapplied != 2 {
		t.Fatalf("policy was applied again %d times, want 2", twice.Status.Policy.Reapplied)
	}
}

func sharedPod(t *testing.T, w *world) {
	pod, first := w.victim("shared")
	allow := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "allow-shared"},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "shared"}}},
	}
	w.create(allow)
	older := w.drive(first, v1alpha1.IncidentHeld)
	second := w.detect(pod)
	w.attest(second)
	younger := w.drive(second, v1alpha1.IncidentHeld)
	if others := younger.Status.Policy.Others; len(others) != 1 || others[0].UID != string(allow.UID) {
		t.Fatalf("other policies on record are %v: the cache does not know the labels that they select", others)
	}
	// Which of two of the same second is the older is decided by name.
	owner, other := older, younger
	ownerEvent, otherEvent := first, second
	if younger.CreationTimestamp.Equal(&older.CreationTimestamp) && younger.Name < older.Name {
		owner, other, ownerEvent, otherEvent = younger, older, second, first
	}
	if w.labelOf(pod) != string(owner.UID) {
		t.Fatalf("label is %q, want the oldest incident's", w.labelOf(pod))
	}
	for i, event := range []*v1alpha1.SecurityEvent{ownerEvent, otherEvent} {
		held := []*v1alpha1.Incident{owner, other}[i]
		w.acknowledge(held)
		w.drive(event, v1alpha1.IncidentReleased)
		var unfreeze v1alpha1.EventResponse
		w.get(v1alpha1.ResponseName(held.Name, v1alpha1.StepUnfreeze, 1), &unfreeze)
		last := i == 1
		if unfreeze.Spec.Action.PodUnfreeze.KeepContained == last {
			t.Errorf("release %d has keepContained %t", i, !last)
		}
		want := string(other.UID)
		if last {
			want = ""
		}
		if got := w.labelOf(pod); got != want {
			t.Errorf("after release %d the label is %q, want %q", i, got, want)
		}
		if _, err := w.policyOf(pod); apierrors.IsNotFound(err) != last {
			t.Errorf("after release %d the policy: %v", i, err)
		}
	}
}
