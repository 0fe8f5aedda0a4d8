package policy

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// maxOthers is the bound of AppliedPolicy.others in the schema.
const maxOthers = 128

// others names the policies in the pod's namespace, not ours, that selected the pod when it was contained: an analyst
// needs them to tell what the pod could reach before.
func (p *Policies) others(
	ctx context.Context, backend v1alpha1.FreezeBackend, pod v1alpha1.PodRef, podLabels map[string]string,
) ([]v1alpha1.Ref, error) {
	kinds := []schema.GroupVersionKind{coreKind()}
	if backend == v1alpha1.BackendCilium {
		kinds = append(kinds, ciliumKind())
	}
	var refs []v1alpha1.Ref
	for _, kind := range kinds {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(schema.GroupVersionKind{Group: kind.Group, Version: kind.Version, Kind: kind.Kind + "List"})
		if err := p.live.List(ctx, list, client.InNamespace(pod.Namespace)); err != nil {
			return nil, fmt.Errorf("list %s in %s: %w", kind.Kind, pod.Namespace, err)
		}
		for i := range list.Items {
			if ours(&list.Items[i]) || !selects(&list.Items[i], podLabels) {
				continue
			}
			refs = append(refs, v1alpha1.Ref{Name: list.Items[i].GetName(), UID: string(list.Items[i].GetUID())})
		}
	}
	slices.SortFunc(refs, func(a, b v1alpha1.Ref) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID)) })
	return refs[:min(len(refs), maxOthers)], nil
}

func ours(policy *unstructured.Unstructured) bool {
	uid := policy.GetLabels()[v1alpha1.LabelPodUID]
	return uid != "" && policy.GetName() == Name(uid)
}

// selects evaluates a policy's pod selector. One that cannot be read, or uses label sources that only Cilium knows, is
// counted as selecting: too long a list misleads less than one with a hole.
func selects(policy *unstructured.Unstructured, podLabels map[string]string) bool {
	field := "podSelector"
	if policy.GetKind() == ciliumKind().Kind {
		field = "endpointSelector"
	}
	raw, found, err := unstructured.NestedMap(policy.Object, "spec", field)
	if err != nil || !found {
		return true
	}
	var selector metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &selector); err != nil {
		return true
	}
	parsed, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil {
		return true
	}
	return parsed.Matches(labels.Set(podLabels))
}

func isNoMatch(err error) bool { return meta.IsNoMatchError(err) }
