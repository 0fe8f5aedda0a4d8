package policy

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// Resources asks the API server which resources it serves; discovery.DiscoveryInterface has it.
type Resources interface {
	ServerResourcesForGroupVersion(groupVersion string) (*metav1.APIResourceList, error)
}

// Detector finds out which kind of policy the cluster offers.
type Detector struct {
	resources Resources
}

// NewDetector asks resources anew at every call: a CNI can be installed, or removed, at any time.
func NewDetector(resources Resources) *Detector { return &Detector{resources: resources} }

// Backend is Cilium while the API server serves CiliumNetworkPolicy, and CoreV1 otherwise.
func (d *Detector) Backend(_ context.Context) (v1alpha1.FreezeBackend, error) {
	list, err := d.resources.ServerResourcesForGroupVersion(ciliumKind().GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return v1alpha1.BackendCoreV1, nil
	}
	if err != nil {
		return "", fmt.Errorf("discover %s: %w", ciliumKind().GroupVersion(), err)
	}
	for i := range list.APIResources {
		if list.APIResources[i].Kind == ciliumKind().Kind {
			return v1alpha1.BackendCilium, nil
		}
	}
	return v1alpha1.BackendCoreV1, nil
}
