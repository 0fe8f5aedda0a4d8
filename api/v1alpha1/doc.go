// Package v1alpha1 holds the objects that the binaries exchange through the API server.
//
// +kubebuilder:object:generate=true
// +groupName=security.ugallu.io
package v1alpha1
