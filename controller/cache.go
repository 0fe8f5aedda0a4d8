package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/config"
	"ugallu.io/forensics/controller/internal/options"
)

// cacheOptions keeps out of memory what would grow with the cluster instead of with its incidents: of pods and network
// policies only the metadata of those that carry our labels is cached, of definitions only the one of Cilium's policies,
// and of bundles not the signed envelopes, unless this process seals them. A kind that the cluster may lack takes no
// selector: of Cilium's policies all are cached, each as little as slim leaves of it.
func cacheOptions(o options.Options) cache.Options {
	byObject := map[client.Object]cache.ByObject{
		&corev1.Pod{}:                 {Label: carries(v1alpha1.LabelFrozen)},
		&networkingv1.NetworkPolicy{}: {Label: carries(v1alpha1.LabelPodUID)},
		config.Definition():           {Field: fields.OneTermEqualSelector("metadata.name", config.DefinitionName)},
	}
	if !runsAny(o, []string{options.Attestor, options.Readback}) {
		byObject[&v1alpha1.AttestationBundle{}] = cache.ByObject{Transform: withoutEnvelope}
	}
	return cache.Options{DefaultTransform: slim, ByObject: byObject}
}

// clientOptions reads Secrets and ConfigMaps one by one: caching them would need the right to list them all.
func clientOptions() client.Options {
	return client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}, &corev1.ConfigMap{}}}}
}

func carries(label string) labels.Selector {
	// The key is one of our constants, which are valid; without values there is nothing else to refuse.
	requirement, err := labels.NewRequirement(label, selection.Exists, nil)
	if err != nil {
		return labels.Nothing()
	}
	return labels.NewSelector().Add(*requirement)
}

// slim keeps of metadata what an object is and the labels that select: whoever may edit a namespace can make any number of policies,
// and write the rest as large as the API server takes it. Whole objects lose their managed fields.
func slim(object any) (any, error) {
	whole, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return cache.TransformStripManagedFields()(object)
	}
	ours := map[string]string{}
	for _, key := range []string{v1alpha1.LabelFrozen, v1alpha1.LabelPodUID} {
		if value, carried := whole.Labels[key]; carried {
			ours[key] = value
		}
	}
	return &metav1.PartialObjectMetadata{TypeMeta: whole.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Namespace: whole.Namespace, Name: whole.Name, UID: whole.UID, ResourceVersion: whole.ResourceVersion, Labels: ours,
	}}, nil
}

func withoutEnvelope(object any) (any, error) {
	bundle, ok := object.(*v1alpha1.AttestationBundle)
	if !ok {
		return nil, fmt.Errorf("transform a bundle: got %T", object)
	}
	bundle.Status.Staged = nil
	bundle.ManagedFields = nil
	return bundle, nil
}
