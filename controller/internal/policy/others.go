package policy

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// otherKind is a kind of policy that may select a pod beside ours.
type otherKind struct {
	schema.GroupVersionKind
	clusterwide bool
	// selects says whether the policy selects the pod.
	selects func(subject, *unstructured.Unstructured) bool
}

// otherKinds are those of Kubernetes, of its network policy API, and of Cilium. Each counts where it is served.
func otherKinds() []otherKind {
	kind := func(group, version, kind string) schema.GroupVersionKind {
		return schema.GroupVersionKind{Group: group, Version: version, Kind: kind}
	}
	return []otherKind{
		{coreKind(), false, subject.selectedByCore},
		{ciliumKind(), false, subject.selectedByCilium},
		{kind("cilium.io", "v2", "CiliumClusterwideNetworkPolicy"), true, subject.selectedByCilium},
		{kind("policy.networking.k8s.io", "v1alpha1", "AdminNetworkPolicy"), true, subject.selectedByAdmin},
		{kind("policy.networking.k8s.io", "v1alpha1", "BaselineAdminNetworkPolicy"), true, subject.selectedByAdmin},
		// Its tier Admin is decided before ours: it alone can let the pod out again, see hack/ciliumpolicy.
		{kind("policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy"), true, subject.selectedByAdmin},
	}
}

// others names the policies, not ours, that selected the pod when it was contained: an analyst needs them to tell what
// the pod could reach before.
func (p *Policies) others(ctx context.Context, pod v1alpha1.PodRef, podLabels map[string]string) ([]v1alpha1.PolicyRef, error) {
	selected := subject{namespace: pod.Namespace, labels: podLabels}
	var err error
	if selected.namespaceLabels, err = p.namespaceLabels(ctx, pod.Namespace); err != nil {
		return nil, err
	}
	var refs []v1alpha1.PolicyRef
	for _, kind := range otherKinds() {
		list, err := p.list(ctx, kind, pod.Namespace)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if ours(&list[i]) || !kind.selects(selected, &list[i]) {
				continue
			}
			ref := v1alpha1.Ref{Name: list[i].GetName(), UID: string(list[i].GetUID())}
			refs = append(refs, v1alpha1.PolicyRef{Kind: kind.Kind, Ref: ref})
		}
	}
	slices.SortFunc(refs, func(a, b v1alpha1.PolicyRef) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return refs, nil
}

// list is empty for a kind that is not served, or not any more.
func (p *Policies) list(ctx context.Context, kind otherKind, namespace string) ([]unstructured.Unstructured, error) {
	served, err := p.detector.serves(kind.GroupVersionKind)
	if err != nil || !served {
		return nil, err
	}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	var where []client.ListOption
	if !kind.clusterwide {
		where = append(where, client.InNamespace(namespace))
	}
	err = p.live.List(ctx, list, where...)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s that may select a pod of %s: %w", kind.Kind, namespace, err)
	}
	return list.Items, nil
}

// namespaceLabels is empty for a namespace that is gone: so is the pod, or soon.
func (p *Policies) namespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if err := p.live.Get(ctx, client.ObjectKey{Name: name}, namespace); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read the labels of namespace %s: %w", name, err)
	}
	return namespace.Labels, nil
}

func ours(policy *unstructured.Unstructured) bool {
	uid := policy.GetLabels()[v1alpha1.LabelPodUID]
	return uid != "" && policy.GetName() == Name(uid)
}

// isGone says whether there is no such object, or no such kind: a client that knew the kind before it went learns of it
// from the object.
func isGone(err error) bool { return apierrors.IsNotFound(err) || meta.IsNoMatchError(err) }
