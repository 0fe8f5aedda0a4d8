package config

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// DefinitionName is the CustomResourceDefinition that is there while Cilium's policies are.
const DefinitionName = "ciliumnetworkpolicies.cilium.io"

// Definition is the kind to watch for it: of definitions only the metadata is read.
func Definition() *metav1.PartialObjectMetadata {
	definition := &metav1.PartialObjectMetadata{}
	definition.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	return definition
}

// again is when to look at the cluster again. Discovery, which tells the backend, lags by about a second when the
// definition comes or goes, and no event says that it has caught up.
func (r *Reconciler) again(ctx context.Context, backend v1alpha1.FreezeBackend) (time.Duration, error) {
	err := r.Client.Get(ctx, client.ObjectKey{Name: DefinitionName}, Definition())
	if client.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("read CustomResourceDefinition %s: %w", DefinitionName, err)
	}
	if defined := err == nil; defined != (backend == v1alpha1.BackendCilium) {
		return lagging, nil
	}
	return lookAgain, nil
}
