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

const (
	// maxEvents of one pod. The API server merges equal ones and lets them go after an hour.
	maxEvents = 500
	// eventsPage is small: whoever may edit a namespace writes events as large as an object can be, of which five are 8 MiB,
	// and several times that while they are decoded.
	eventsPage = 5
)

// events adds the Kubernetes events about the pod, while there is room for them.
func (s *state) events(ctx context.Context, pod v1alpha1.PodRef) {
	name := "events of Pod " + pod.Namespace + "/" + pod.Name
	first, next := len(s.documents), ""
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "EventList"})
	for read, fit := 0, true; ; {
		var err error
		next, err = s.page(ctx, list, func() {
			read += len(list.Items)
			for i := range list.Items {
				event := &list.Items[i]
				fit = s.add(title("Event", client.ObjectKeyFromObject(event)), event.Object) && fit
			}
		}, client.InNamespace(pod.Namespace), client.Limit(eventsPage), client.Continue(next), client.MatchingFields{"involvedObject.uid": pod.UID})
		if err != nil {
			s.missing(name, err)
			break
		}
		if next == "" {
			break
		}
		if read >= maxEvents || !fit {
			s.gap(gapTruncated, name, fmt.Sprintf("more than %d", read))
			break
		}
	}
	slices.SortFunc(s.documents[first:], func(a, b document) int { return strings.Compare(a.name, b.name) })
}
