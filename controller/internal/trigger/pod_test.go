package trigger

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/match"
)

// about replaces the event's subject by a pod of its name in another namespace.
func (w *world) about(namespace string, annotations map[string]string) {
	w.t.Helper()
	event := w.event()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "victim", UID: "subject-uid", Annotations: annotations,
			CreationTimestamp: metav1.NewTime(event.CreationTimestamp.Add(-1)),
		},
		Spec: corev1.PodSpec{NodeName: "worker"},
	}
	if err := client.IgnoreNotFound(w.client.Delete(w.t.Context(), pod.DeepCopy())); err != nil {
		w.t.Fatal(err)
	}
	if err := w.client.Create(w.t.Context(), pod); err != nil {
		w.t.Fatal(err)
	}
	event.Spec.Subject.Namespace = namespace
	if err := w.client.Update(w.t.Context(), event); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) protect(namespaces ...string) {
	w.t.Helper()
	var config v1alpha1.ForensicsConfig
	if err := w.client.Get(w.t.Context(), client.ObjectKey{Name: v1alpha1.SingletonName}, &config); err != nil {
		w.t.Fatal(err)
	}
	config.Spec.Trigger.ProtectedNamespaces = namespaces
	if err := w.client.Update(w.t.Context(), &config); err != nil {
		w.t.Fatal(err)
	}
}

// missed reads the counter of misses.
func missed(t *testing.T, reason match.Reason) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := registry.Register(misses); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if metric.GetLabel()[0].GetValue() == string(reason) {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestEventAboutAProtectedPodOpensNothing(t *testing.T) {
	tests := map[string]struct {
		namespace   string
		annotations map[string]string
		configured  []string
		protected   bool
	}{
		"kube-system":               {namespace: "kube-system", protected: true},
		"our own namespace":         {namespace: v1alpha1.NamespaceSystem, protected: true},
		"our privileged one":        {namespace: v1alpha1.NamespacePrivileged, protected: true},
		"configured namespace":      {namespace: "sandbox", configured: []string{"elsewhere", "sandbox"}, protected: true},
		"mirror of a static pod":    {namespace: "sandbox", annotations: map[string]string{corev1.MirrorPodAnnotationKey: "hash"}, protected: true},
		"namespace of a tenant":     {namespace: "sandbox", configured: []string{"elsewhere"}},
		"name that begins as ours":  {namespace: v1alpha1.NamespaceSystem + "-another"},
		"name that only looks ours": {namespace: "ugallu-systematic"},
		"source set by its owner":   {namespace: "sandbox", annotations: map[string]string{"kubernetes.io/config.source": "file"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.protect(tt.configured...)
			w.about(tt.namespace, tt.annotations)
			w.claim()
			w.checker.attested = true
			before := missed(t, match.ProtectedPod)
			w.must()
			counted := missed(t, match.ProtectedPod) - before
			if !tt.protected {
				if w.reason() != v1alpha1.ReasonIncidentOpened || len(w.incidents()) != 1 || counted != 0 {
					t.Fatalf("%s, %d incidents, %v misses", w.reason(), len(w.incidents()), counted)
				}
				return
			}
			matched := meta.FindStatusCondition(w.event().Status.Conditions, v1alpha1.ConditionMatched)
			if len(w.incidents()) != 0 || matched == nil || matched.Reason != "ProtectedPod" || counted != 1 {
				t.Fatalf("%d incidents, %v misses, condition %+v", len(w.incidents()), counted, matched)
			}
			if !strings.HasPrefix(matched.Message, "protected_pod: ") {
				t.Errorf("message %q", matched.Message)
			}
		})
	}
}
