// Package kubernetes builds the Kubernetes programs of the cluster's version from source.
package kubernetes
