package policy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// pageSize of lists of policies: one of 1.5 MiB, all an API server stores, is 100 MiB once it is decoded, if it has a
	// great many rules without content. Whoever may edit a namespace can write any number of them.
	pageSize = 1
	// maxPages of a kind, and lookFor, for all kinds together and with the wait for the readings of other pods, end the
	// reading: the walk of one incident occupies a worker that other pods' containment needs, and its own capture waits.
	maxPages = 2000
	lookFor  = 5 * time.Second
)

// otherKind is a kind of policy that may select a pod beside ours.
type otherKind struct {
	schema.GroupVersionKind
	clusterwide bool
	// selects says whether the policy selects the pod.
	selects func(subject, *unstructured.Unstructured) bool
}

// otherKinds are those of Kubernetes, of its network policy API, and of Cilium. Each counts where it is
// served, and where no time was left to ask.
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
// the pod could reach before. A kind that cannot be read counts as one that is omitted, and its error is logged: what
// cuts the pod off stands without it. The error is that of ctx.
func (p *Policies) others(ctx context.Context, pod v1alpha1.PodRef, podLabels map[string]string) (seen, error) {
	within, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	of := subject{namespace: pod.Namespace, labels: podLabels}
	namespace := sync.OnceValues(func() (map[string]string, error) { return p.namespaceLabels(within, pod.Namespace) })
	served := map[schema.GroupVersion]func() ([]string, error){}
	for _, kind := range otherKinds() {
		version := kind.GroupVersion()
		served[version] = sync.OnceValues(func() ([]string, error) { return p.served(within, version) })
	}
	var refs []v1alpha1.PolicyRef
	unread := 0
	for _, kind := range otherKinds() {
		found, whole, err := p.ofKind(within, kind, of, served[kind.GroupVersion()], namespace)
		if ctx.Err() != nil {
			return seen{}, fmt.Errorf("list %s that may select a pod of %s: %w", kind.Kind, pod.Namespace, ctx.Err())
		}
		if err != nil {
			log.FromContext(ctx).Error(err, "other policies of a kind are not all read", "policyKind", kind.Kind)
		}
		if !whole {
			unread++
		}
		refs = append(refs, found...)
	}
	slices.SortFunc(refs, func(a, b v1alpha1.PolicyRef) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	named := refs[:min(len(refs), v1alpha1.MaxOthers)]
	return seen{others: named, omitted: int32(len(refs) - len(named) + unread)}, nil // #nosec G115 -- what was read fits
}

// ofKind names the policies of one kind that count as selecting the pod, and says whether all were read. With an error it
// returns what it had read. Of a kind that the API server does not serve there are none; with an error that is not known.
func (p *Policies) ofKind(
	ctx context.Context, kind otherKind, of subject, served func() ([]string, error), namespace func() (map[string]string, error),
) (refs []v1alpha1.PolicyRef, whole bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, fmt.Errorf("no time is left: %w", err)
	}
	kinds, err := served()
	if err != nil || !slices.Contains(kinds, kind.Kind) {
		return nil, err == nil, err
	}
	if !kind.clusterwide {
		err = ask(ctx, func(ctx context.Context) (err error) {
			refs, err = p.labelled(ctx, kind, of.namespace)
			return err
		})
	}
	// Kubernetes' own kind alone never selects by the labels of the pod's namespace.
	if err == nil && kind.GroupVersionKind != coreKind() {
		of.namespaceLabels, err = namespace()
	}
	var found []v1alpha1.PolicyRef
	if err == nil {
		found, whole, err = p.selecting(ctx, kind, of)
	}
	if isGone(err) {
		return nil, true, nil
	}
	return append(refs, found...), whole, err
}

// selecting names the policies of a kind that select the pod, and says whether all were read. A list that expires while it
// is read is begun again once; then what was read of it has to do.
func (p *Policies) selecting(ctx context.Context, kind otherKind, of subject) (refs []v1alpha1.PolicyRef, whole bool, err error) {
	for range 2 {
		if refs, whole, err = p.pages(ctx, kind, of); !expired(err) {
			return refs, whole, err
		}
	}
	return refs, false, nil
}

// pages reads one page after the other until a bound is reached. With an error it returns what it had read.
func (p *Policies) pages(ctx context.Context, kind otherKind, of subject) (refs []v1alpha1.PolicyRef, whole bool, err error) {
	next := ""
	for range maxPages {
		var found []v1alpha1.PolicyRef
		if found, next, err = p.page(ctx, kind, of, next); err != nil {
			return refs, false, err
		}
		refs = append(refs, found...)
		if next == "" {
			return refs, true, nil
		}
	}
	return refs, false, nil
}

// page reads one page. Between two tries at it, those of other pods are read.
func (p *Policies) page(ctx context.Context, kind otherKind, of subject, from string) (refs []v1alpha1.PolicyRef, next string, err error) {
	where := []client.ListOption{client.Limit(pageSize), client.Continue(from)}
	if !kind.clusterwide {
		foreign, err := labels.Parse("!" + v1alpha1.LabelPodUID)
		if err != nil {
			return nil, "", fmt.Errorf("select policies: %w", err)
		}
		where = append(where, client.InNamespace(of.namespace), client.MatchingLabelsSelector{Selector: foreign})
	}
	err = retry(ctx, func() (err error) {
		refs, next, err = p.tryPage(ctx, kind, of, where)
		return err
	})
	return refs, next, err
}

// tryPage keeps the policies of one page in memory, of one page in the whole process. Those with our label are left to
// labelled.
func (p *Policies) tryPage(
	ctx context.Context, kind otherKind, of subject, where []client.ListOption,
) (refs []v1alpha1.PolicyRef, next string, err error) {
	select {
	case p.reading <- struct{}{}:
		defer func() { <-p.reading }()
	case <-ctx.Done():
		return nil, "", fmt.Errorf("wait for the readings of other pods: %w", ctx.Err())
	}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	if err := once(ctx, func(ctx context.Context) error { return p.live.List(ctx, list, where...) }); err != nil {
		return nil, "", fmt.Errorf("read a page: %w", err)
	}
	for i := range list.Items {
		if one := &list.Items[i]; kind.selects(of, one) {
			refs = append(refs, kind.ref(one))
		}
	}
	return refs, list.GetContinue(), nil
}

// labelled names the policies that carry our label and are not ours. What they select is not read: they count as selecting.
// The cache has the metadata of every policy that carries the label, and of Cilium's also of those that do not.
func (p *Policies) labelled(ctx context.Context, kind otherKind, namespace string) ([]v1alpha1.PolicyRef, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	if err := p.client.List(ctx, list, client.InNamespace(namespace), client.HasLabels{v1alpha1.LabelPodUID}); err != nil {
		return nil, fmt.Errorf("read those with our label: %w", err)
	}
	var refs []v1alpha1.PolicyRef
	for i := range list.Items {
		if one := &list.Items[i]; one.Name != Name(one.Labels[v1alpha1.LabelPodUID]) {
			refs = append(refs, kind.ref(one))
		}
	}
	return refs, nil
}

func (k otherKind) ref(policy client.Object) v1alpha1.PolicyRef {
	return v1alpha1.PolicyRef{Kind: k.Kind, Ref: v1alpha1.Ref{Name: policy.GetName(), UID: string(policy.GetUID())}}
}

// served are the kinds that the API server serves of a group version.
func (p *Policies) served(ctx context.Context, version schema.GroupVersion) (kinds []string, err error) {
	err = ask(ctx, func(ctx context.Context) (err error) {
		kinds, err = p.detector.kinds(ctx, version)
		return err
	})
	return kinds, err
}

// namespaceLabels is empty for a namespace that is gone: so is the pod, or soon.
func (p *Policies) namespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	err := ask(ctx, func(ctx context.Context) error { return p.live.Get(ctx, client.ObjectKey{Name: name}, namespace) })
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read the labels of namespace %s: %w", name, err)
	}
	return namespace.Labels, nil
}

// expired says that a list cannot be gone on with.
func expired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

// isGone says whether there is no such object, or no such kind: a client that knew the kind before it went learns of it
// from the object.
func isGone(err error) bool { return apierrors.IsNotFound(err) || meta.IsNoMatchError(err) }
