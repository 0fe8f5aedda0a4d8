// Package registry keeps an image registry beside the cluster's nodes, which they ask before Docker Hub.
package registry
