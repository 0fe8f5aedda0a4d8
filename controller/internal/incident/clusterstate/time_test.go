package clusterstate

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
)

// answerLists has the lists of a kind answered by answer, all else by the world, in time.
func (w *world) answerLists(kind string, answer func(ctx context.Context, list client.ObjectList) error) {
	w.r.Live = interceptor.NewClient(w.base, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if kindOf(w.t, w.base, list) == kind {
				return answer(ctx, list)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return c.List(ctx, list, opts...)
		},
	})
}

// unreadable wants as many gaps, and every binding of the account.
func (w *world) unreadable(gaps int64) {
	w.t.Helper()
	got := w.recorded().Gaps
	for i := range got {
		got[i].Message = ""
	}
	if diff := cmp.Diff([]v1alpha1.GapCount{{Reason: gapUnreadable, Count: gaps}}, got); diff != "" {
		w.t.Error(diff)
	}
	_, documents := w.documents()
	summary := documents[len(documents)-1]
	if bindings, _, err := unstructured.NestedSlice(summary, "bindings"); err != nil || len(bindings) != 3 {
		w.t.Errorf("bindings %v of %v, %v", bindings, summary["kind"], err)
	}
}

// TestEventsLeaveTimeForTheBindings: whoever may edit a namespace has the list of the pod's events take long, and as many
// pages as they like.
func TestEventsLeaveTimeForTheBindings(t *testing.T) {
	w := newWorld(t, unchanged)
	now := clocktesting.NewFakePassiveClock(time.Now())
	w.r.Clock = now
	asked := 0
	w.answerLists("EventList", func(ctx context.Context, list client.ObjectList) error {
		asked++
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now.SetTime(now.Now().Add(tryTimeout - time.Second))
		list.SetContinue("more")
		return nil
	})
	w.must()
	w.unreadable(1)
	if asked != 4 {
		t.Errorf("events were asked for %d times, want three in a third of the time, and one after it", asked)
	}
}

func TestBindingsLeaveTimeForTheirRules(t *testing.T) {
	w := newWorld(t, unchanged)
	now := clocktesting.NewFakePassiveClock(time.Now())
	w.r.Clock = now
	w.answerLists("RoleBindingList", func(ctx context.Context, list client.ObjectList) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now.SetTime(now.Now().Add(tryTimeout - time.Second))
		list.SetContinue("more")
		return nil
	})
	w.must()
	if got := w.recorded().Gaps; len(got) != 1 || got[0].Reason != gapUnreadable || got[0].Count != 1 {
		t.Errorf("gaps %+v, want the bindings of namespaces alone", got)
	}
}

// TestWaitForOtherStatesIsAGap: the pages of other states never end, and the state is stored while the manifest waits for it.
func TestWaitForOtherStatesIsAGap(t *testing.T) {
	const manifestWaits = 2 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, unchanged)
		began := time.Now()
		w.r.pages() <- struct{}{}
		w.must()
		state := w.recorded()
		if state.Object == nil || len(state.Gaps) != 1 || state.Gaps[0].Count != 3 {
			t.Errorf("object %v, gaps %+v, want the events and two kinds of bindings", state.Object, state.Gaps)
		}
		if took := time.Since(began); took+storeTimeout >= manifestWaits {
			t.Errorf("the state was stored after %s", took)
		}
	})
}

// TestTriesKeepNoOtherStateOut: a state that waits has its page between the tries of the one that it waits for.
func TestTriesKeepNoOtherStateOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, unchanged)
		var order []string
		read := func(page client.ObjectList, look func()) {
			s := &state{reader: w.r.Live, clock: w.r.Clock, left: readTimeout, reading: w.r.pages()}
			if _, err := s.page(t.Context(), page, look); err != nil {
				t.Errorf("%T: %v", page, err)
			}
		}
		w.answerLists("EventList", func(context.Context, client.ObjectList) error {
			if order = append(order, "try"); len(order) > 1 {
				return nil
			}
			go read(&rbacv1.RoleBindingList{}, func() { order = append(order, "other") })
			synctest.Wait()
			return errors.New("hiccup")
		})
		read(&corev1.EventList{}, func() { order = append(order, "page") })
		synctest.Wait()
		if want := []string{"try", "other", "try", "page"}; !slices.Equal(order, want) {
			t.Errorf("read %v, want %v", order, want)
		}
	})
}

// TestTriesEndWithTheTime: a state whose time is used up asks no second time.
func TestTriesEndWithTheTime(t *testing.T) {
	now := clocktesting.NewFakePassiveClock(time.Now())
	s := &state{clock: now, left: tryTimeout}
	asked := 0
	err := s.ask(t.Context(), func(context.Context) error {
		asked++
		now.SetTime(now.Now().Add(tryTimeout))
		return errors.New("hiccup")
	})
	if err == nil || asked != 1 || s.left != 0 {
		t.Errorf("asked %d times with %s left: %v", asked, s.left, err)
	}
}
