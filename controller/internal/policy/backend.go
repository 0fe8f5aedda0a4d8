package policy

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ugallu.io/forensics/api/v1alpha1"
)

// Resources asks the API server which resources it serves; discovery.DiscoveryInterfaceWithContext has it.
type Resources interface {
	ServerResourcesForGroupVersionWithContext(ctx context.Context, groupVersion string) (*metav1.APIResourceList, error)
}

// Detector finds out which kind of policy the cluster offers.
type Detector struct {
	resources Resources
}

// NewDetector asks resources anew at every call: a CNI can be installed, or removed, at any time.
func NewDetector(resources Resources) *Detector { return &Detector{resources: resources} }

// Backend is Cilium while the API server serves CiliumNetworkPolicy, and CoreV1 otherwise.
func (d *Detector) Backend(ctx context.Context) (v1alpha1.FreezeBackend, error) {
	cilium, err := d.serves(ctx, ciliumKind())
	if err != nil {
		return "", err
	}
	if cilium {
		return v1alpha1.BackendCilium, nil
	}
	return v1alpha1.BackendCoreV1, nil
}

func (d *Detector) serves(ctx context.Context, kind schema.GroupVersionKind) (bool, error) {
	list, err := d.resources.ServerResourcesForGroupVersionWithContext(ctx, kind.GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("discover %s: %w", kind.GroupVersion(), err)
	}
	for i := range list.APIResources {
		if list.APIResources[i].Kind == kind.Kind {
			return true, nil
		}
	}
	return false, nil
}
