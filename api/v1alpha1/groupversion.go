package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of every object in this package.
var GroupVersion = schema.GroupVersion{Group: "security.ugallu.io", Version: "v1alpha1"}

// AddToScheme registers every object of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&SecurityEvent{}, &SecurityEventList{},
		&Incident{}, &IncidentList{},
		&EventResponse{}, &EventResponseList{},
		&AttestationBundle{}, &AttestationBundleList{},
		&ForensicsConfig{}, &ForensicsConfigList{},
		&WORMConfig{}, &WORMConfigList{},
		&AttestorConfig{}, &AttestorConfigList{},
		&TTLConfig{}, &TTLConfigList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
