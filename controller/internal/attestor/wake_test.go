package attestor

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/v1alpha1"
)

func TestAnIncidentWakesWhatItNames(t *testing.T) {
	before, after := &v1alpha1.Incident{}, &v1alpha1.Incident{}
	after.Status.Responses = []v1alpha1.Ref{{Name: "er-1-podfreeze", UID: "response"}}
	after.Status.CompletionEvent = &v1alpha1.Ref{Name: "se-1-failed", UID: "event"}
	passes := namesChanged()
	if !passes.Create(event.CreateEvent{Object: after}) {
		t.Error("an incident that comes into the cache wakes nothing")
	}
	if !passes.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after}) || passes.Update(event.UpdateEvent{ObjectOld: after, ObjectNew: after}) {
		t.Error("not what changed the names, or more than that, passes")
	}
	want := []reconcile.Request{
		{NamespacedName: client.ObjectKey{Name: v1alpha1.BundleName("response")}}, {NamespacedName: client.ObjectKey{Name: v1alpha1.BundleName("event")}},
	}
	if diff := cmp.Diff(want, namedOf(t.Context(), after)); diff != "" {
		t.Errorf("woken (-want +got):\n%s", diff)
	}
}
