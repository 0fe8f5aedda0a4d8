package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
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
// policies only those that carry our labels are cached, of definitions only the one of Cilium's policies, and of bundles
// not the signed envelopes, unless this process seals them.
func cacheOptions(o options.Options) cache.Options {
	byObject := map[client.Object]cache.ByObject{
		&corev1.Pod{}:                 {Label: carries(v1alpha1.LabelFrozen)},
		&networkingv1.NetworkPolicy{}: {Label: carries(v1alpha1.LabelPodUID)},
		config.Definition():           {Field: fields.OneTermEqualSelector("metadata.name", config.DefinitionName)},
	}
	if !runsAny(o, []string{options.Attestor, options.Readback}) {
		byObject[&v1alpha1.AttestationBundle{}] = cache.ByObject{Transform: withoutEnvelope}
	}
	return cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: byObject}
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

func withoutEnvelope(object any) (any, error) {
	bundle, ok := object.(*v1alpha1.AttestationBundle)
	if !ok {
		return nil, fmt.Errorf("transform a bundle: got %T", object)
	}
	bundle.Status.Staged = nil
	bundle.ManagedFields = nil
	return bundle, nil
}
