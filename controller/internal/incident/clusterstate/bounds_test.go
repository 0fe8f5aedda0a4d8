package clusterstate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/incident/clusterstate"
	"ugallu.io/forensics/internal/apitest"
	"ugallu.io/forensics/internal/worm"
)

// answers are how many objects the lists of a kind had.
type answers struct{ most, all map[string]int }

func (a *answers) list(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
	if err := c.List(ctx, list, opts...); err != nil {
		return err
	}
	kind, err := c.GroupVersionKindFor(list)
	if err != nil {
		return err
	}
	length := meta.LenList(list)
	a.most[kind.Kind] = max(a.most[kind.Kind], length)
	a.all[kind.Kind] += length
	return nil
}

func clients(t *testing.T, server *rest.Config) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.NewWithWatch(server, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestStateIsReadWithinBounds: whoever may edit a namespace writes events and bindings into it, of any number and size.
func TestStateIsReadWithinBounds(t *testing.T) {
	c := clients(t, apitest.Start(t))
	incident := victim(t, c)
	for i := range 30 {
		create(t, c, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: fmt.Sprintf("more-%d", i)},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		})
	}
	for i := range 20 {
		create(t, c, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: "sandbox", Name: fmt.Sprintf("large-%02d", i)},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "sandbox", Name: "victim", UID: types.UID(incident.Spec.Pod.UID)},
			Message:        strings.Repeat("x", 1<<20),
		})
	}
	seen := &answers{most: map[string]int{}, all: map[string]int{}}
	r := &clusterstate.Reconciler{
		Client: c, Live: interceptor.NewClient(c, interceptor.Funcs{List: seen.list}), Clock: clock.RealClock{},
		Open: func(context.Context, v1alpha1.Destination) (worm.Store, error) { return worm.NewMemory(), nil },
	}
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(incident)}); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(incident), incident); err != nil {
		t.Fatal(err)
	}
	state := incident.Status.ClusterState
	// The second page has no room beside what is kept for the account's rights, and what follows it is not read.
	if len(state.Gaps) != 1 || state.Gaps[0].Reason != "ClusterStateTruncated" || state.Gaps[0].Count != 6 || state.Object.Size > 8<<20 {
		t.Errorf("gaps %+v, %d bytes", state.Gaps, state.Object.Size)
	}
	if seen.most["EventList"] != 5 || seen.all["EventList"] != 10 {
		t.Errorf("%d events were read, %d at a time", seen.all["EventList"], seen.most["EventList"])
	}
	if seen.most["RoleBindingList"] != 5 || seen.all["RoleBindingList"] < 31 {
		t.Errorf("%d bindings were read, %d at a time", seen.all["RoleBindingList"], seen.most["RoleBindingList"])
	}
}
