package policy

import (
	"context"
	"fmt"
	"slices"

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
	kinds, err := d.kinds(ctx, ciliumKind().GroupVersion())
	if err != nil {
		return "", err
	}
	if slices.Contains(kinds, ciliumKind().Kind) {
		return v1alpha1.BackendCilium, nil
	}
	return v1alpha1.BackendCoreV1, nil
}

// kinds are those that the API server serves of a group version.
func (d *Detector) kinds(ctx context.Context, version schema.GroupVersion) ([]string, error) {
	list, err := d.resources.ServerResourcesForGroupVersionWithContext(ctx, version.String())
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("discover %s: %w", version, err)
	}
	var kinds []string
	for i := range list.APIResources {
		kinds = append(kinds, list.APIResources[i].Kind)
	}
	return kinds, nil
}
