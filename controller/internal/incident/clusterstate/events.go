package clusterstate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// maxEvents of one pod. The API server merges equal ones and lets them go after an hour.
const maxEvents = 500

// events adds the Kubernetes events about the pod.
func (s *state) events(ctx context.Context, pod v1alpha1.PodRef) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "EventList"})
	name := "events of Pod " + pod.Namespace + "/" + pod.Name
	err := ask(ctx, func(ctx context.Context) error {
		return s.reader.List(ctx, list, client.InNamespace(pod.Namespace), client.Limit(maxEvents),
			client.MatchingFields{"involvedObject.uid": pod.UID})
	})
	if err != nil {
		s.missing(name, err)
		return
	}
	if list.GetContinue() != "" {
		s.gap(gapTruncated, name, fmt.Sprintf("more than %d", maxEvents))
	}
	slices.SortFunc(list.Items, func(a, b unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	for i := range list.Items {
		event := &list.Items[i]
		s.add(title("Event", client.ObjectKeyFromObject(event)), event.Object)
	}
}
