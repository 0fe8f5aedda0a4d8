package policy

import (
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ugallu.io/forensics/api/v1alpha1"
)

// FieldOwner is the field manager of every policy.
const FieldOwner = "ugallu-forensics-policy"

func coreKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"}
}

func ciliumKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "cilium.io", Version: "v2", Kind: "CiliumNetworkPolicy"}
}

// Name of the policy of one pod, in the pod's namespace.
func Name(podUID string) string { return "ugallu-frozen-" + podUID }

// Kind of the policy object of a backend.
func Kind(backend v1alpha1.FreezeBackend) schema.GroupVersionKind {
	if backend == v1alpha1.BackendCilium {
		return ciliumKind()
	}
	return coreKind()
}

// shape is the policy as it is applied. The rule lists are written out although they are empty: a list that was left
// out would leave a rule that somebody else added.
func shape(backend v1alpha1.FreezeBackend, pod v1alpha1.PodRef) *unstructured.Unstructured {
	policy := &unstructured.Unstructured{Object: map[string]any{"spec": spec(backend)}}
	policy.SetGroupVersionKind(Kind(backend))
	policy.SetNamespace(pod.Namespace)
	policy.SetName(Name(pod.UID))
	policy.SetLabels(map[string]string{v1alpha1.LabelPodUID: pod.UID})
	return policy
}

func spec(backend v1alpha1.FreezeBackend) map[string]any {
	selector := map[string]any{"matchExpressions": []any{
		map[string]any{"key": v1alpha1.LabelFrozen, "operator": string(metav1.LabelSelectorOpExists)},
	}}
	if backend == v1alpha1.BackendCilium {
		return map[string]any{
			"endpointSelector": selector,
			"ingressDeny":      []any{map[string]any{"fromEntities": []any{"all"}}},
			"egressDeny":       []any{map[string]any{"toEntities": []any{"all"}}},
			"ingress":          []any{},
			"egress":           []any{},
		}
	}
	return map[string]any{
		"podSelector": selector,
		"policyTypes": []any{"Ingress", "Egress"},
		"ingress":     []any{},
		"egress":      []any{},
	}
}

// intact says whether a policy still is what was applied: nothing missing, nothing added. An empty list equals an
// absent one.
func intact(current *unstructured.Unstructured, pod v1alpha1.PodRef) bool {
	backend := v1alpha1.BackendCoreV1
	if current.GetKind() == ciliumKind().Kind {
		backend = v1alpha1.BackendCilium
	}
	got, found, err := unstructured.NestedMap(current.Object, "spec")
	return err == nil && found && current.GetDeletionTimestamp().IsZero() &&
		current.GetLabels()[v1alpha1.LabelPodUID] == pod.UID &&
		equality.Semantic.DeepEqual(withoutEmpty(got), withoutEmpty(spec(backend)))
}

// appliedAt is when the API server took the policy from us. It is nil for one that somebody made to look like ours.
func appliedAt(current *unstructured.Unstructured) *metav1.Time {
	for _, entry := range current.GetManagedFields() {
		if entry.Manager == FieldOwner && entry.Operation == metav1.ManagedFieldsOperationApply {
			return entry.Time
		}
	}
	return nil
}

func withoutEmpty(fields map[string]any) map[string]any {
	out := make(map[string]any, len(fields))
	for key, value := range fields {
		if list, ok := value.([]any); ok && len(list) == 0 {
			continue
		}
		out[key] = value
	}
	return out
}
