package clusterstate

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// maxDepth of owners: a CronJob's pod has two above it.
	maxDepth = 4
	// maxOwners that are read. Whoever may edit the pod may write references, as many as she likes.
	maxOwners = 16
)

// owners adds the owners of an object and theirs, the nearest first. A reference is the pod owner's to write: only kinds
// that own pods in every cluster are read, and only in the pod's own namespace.
func (s *state) owners(ctx context.Context, of *unstructured.Unstructured) {
	seen := map[string]bool{string(of.GetUID()): true}
	level := []*unstructured.Unstructured{of}
	for range maxDepth {
		var next []*unstructured.Unstructured
		for _, object := range level {
			for _, reference := range object.GetOwnerReferences() {
				if seen[string(reference.UID)] {
					continue
				}
				seen[string(reference.UID)] = true
				if len(seen) > maxOwners+1 {
					s.gap(gapTruncated, "owners", fmt.Sprintf("more than %d", maxOwners))
					return
				}
				if owner := s.owner(ctx, object.GetNamespace(), reference); owner != nil {
					next = append(next, owner)
				}
			}
		}
		level = next
	}
}

func (s *state) owner(ctx context.Context, namespace string, reference metav1.OwnerReference) *unstructured.Unstructured {
	key := client.ObjectKey{Namespace: namespace, Name: reference.Name}
	kind := schema.FromAPIVersionAndKind(reference.APIVersion, reference.Kind)
	if !ownsPods(kind) {
		s.gap(gapKind, title(reference.Kind, key), "owners of "+strings.TrimPrefix(kind.GroupKind().String(), ".")+" are not read")
		return nil
	}
	// The version is the reference's author's to choose, and any is the same object.
	kind.Version = "v1"
	return s.object(ctx, kind, key, string(reference.UID))
}

func ownsPods(kind schema.GroupVersionKind) bool {
	switch kind.Group {
	case "apps":
		return kind.Kind == "ReplicaSet" || kind.Kind == "Deployment" || kind.Kind == "StatefulSet" || kind.Kind == "DaemonSet"
	case "batch":
		return kind.Kind == "Job" || kind.Kind == "CronJob"
	}
	return false
}
