package order

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
)

// protect makes the configuration protect a namespace.
func (w *world) protect(namespaces ...string) {
	w.t.Helper()
	config := &v1alpha1.ForensicsConfig{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SingletonName}}
	config.Spec.Trigger.ProtectedNamespaces = namespaces
	if err := w.client.Create(w.t.Context(), config); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) makeStatic() {
	w.t.Helper()
	var pod corev1.Pod
	if err := w.client.Get(w.t.Context(), client.ObjectKey{Namespace: "sandbox", Name: "victim"}, &pod); err != nil {
		w.t.Fatal(err)
	}
	pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "hash"}
	if err := w.client.Update(w.t.Context(), &pod); err != nil {
		w.t.Fatal(err)
	}
}

// liveWithout is an API server that does not answer for the configuration.
func (w *world) liveWithout(refusal error) client.Reader {
	w.t.Helper()
	base, ok := w.client.(client.WithWatch)
	if !ok {
		w.t.Fatalf("client %T", w.client)
	}
	return interceptor.NewClient(base, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if _, config := object.(*v1alpha1.ForensicsConfig); config {
				return refusal
			}
			return c.Get(ctx, key, object, options...)
		},
	})
}

func TestProtectedPodIsRefusedByThatName(t *testing.T) {
	in := func(namespace string) func(*world, *v1alpha1.EventResponse) {
		return func(_ *world, r *v1alpha1.EventResponse) { r.Spec.PodRef.Namespace = namespace }
	}
	tests := map[string]func(*world, *v1alpha1.EventResponse){
		"kube-system":          in("kube-system"),
		"our own namespace":    in(v1alpha1.NamespaceSystem),
		"our privileged one":   in(v1alpha1.NamespacePrivileged),
		"static pod":           func(w *world, _ *v1alpha1.EventResponse) { w.makeStatic() },
		"configured namespace": func(w *world, _ *v1alpha1.EventResponse) { w.protect("elsewhere", "sandbox") },
	}
	orders := map[v1alpha1.Step]v1alpha1.Action{
		v1alpha1.StepFreeze: podFreeze(v1alpha1.FreezeUntilReleased), v1alpha1.StepSnapshot: snapshot(),
	}
	for name, arrange := range tests {
		for step, action := range orders {
			t.Run(name+"/"+string(step), func(t *testing.T) {
				w := newWorld(t)
				record, err := w.carryOut(w.order(step, action, func(r *v1alpha1.EventResponse) { arrange(w, r) }))
				if err != nil {
					t.Fatal(err)
				}
				w.demand(record, v1alpha1.ResponseFailed)
				condition := record.Status.Conditions[0]
				if condition.Reason != v1alpha1.ReasonOrderRefused || !strings.HasPrefix(condition.Message, "protected_pod: ") {
					t.Errorf("condition %+v", condition)
				}
			})
		}
	}
}

func TestPodOutsideOfTheProtectedNamespacesIsContained(t *testing.T) {
	tests := map[string]func(*world){
		"another namespace is configured": func(w *world) { w.protect("elsewhere", "sand", "sandbox-2") },
		"none is configured":              func(w *world) { w.protect() },
		"there is no configuration":       func(*world) {},
	}
	for name, arrange := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			arrange(w)
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponseSucceeded, "drop", "freeze", "drop", "hold id-web", "hold id-side")
		})
	}
}

func TestPodInANamespaceThatIsNamedLikeOursIsContained(t *testing.T) {
	for _, namespace := range []string{v1alpha1.NamespaceSystem + "-another", v1alpha1.NamespacePrivileged + "-2", "ugallu-systematic"} {
		t.Run(namespace, func(t *testing.T) {
			w := newWorld(t)
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "victim", UID: podUID},
				Spec:       corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "web"}, {Name: "side"}}},
			}
			if err := w.client.Create(w.t.Context(), pod); err != nil {
				t.Fatal(err)
			}
			into := func(r *v1alpha1.EventResponse) { r.Spec.PodRef.Namespace = namespace }
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), into))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponseSucceeded, "drop", "freeze", "drop", "hold id-web", "hold id-side")
		})
	}
}

func TestUnreadableConfigurationIsRepeatedAndNotTakenForAnAnswer(t *testing.T) {
	w := newWorld(t)
	away := errors.New("the API server is away")
	live := w.agent.node.Live
	w.agent.node.Live = w.liveWithout(away)
	order := w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))
	record, err := w.carryOut(order)
	if !errors.Is(err, away) || record.Status.CompletedAt != nil || len(w.done) != 0 {
		t.Fatalf("error %v, effects %v, status %+v", err, w.done, record.Status)
	}
	w.agent.node.Live = live
	if record, err = w.carryOut(order); err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, "drop", "freeze", "drop", "hold id-web", "hold id-side")
}

// TestPodThatIsHeldIsLetGoWhateverIsProtectedSince: a release reads no configuration, and a namespace that is protected
// from now on must not keep a pod frozen.
func TestPodThatIsHeldIsLetGoWhateverIsProtectedSince(t *testing.T) {
	w := newWorld(t)
	if _, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))); err != nil {
		t.Fatal(err)
	}
	w.protect("sandbox")
	record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
	if err != nil {
		t.Fatal(err)
	}
	if record.Status.Phase != v1alpha1.ResponseSucceeded {
		t.Errorf("phase %s: %+v", record.Status.Phase, record.Status.Conditions)
	}
}
