package order

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
)

// onWrite has the agent write every status through a check.
func (w *world) onWrite(check func(context.Context) error) {
	w.t.Helper()
	base, ok := w.client.(client.WithWatch)
	if !ok {
		w.t.Fatalf("client %T", w.client)
	}
	w.agent.node.Client = interceptor.NewClient(base, interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, name string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			if err := check(ctx); err != nil {
				return err
			}
			return c.SubResource(name).Patch(ctx, object, patch, options...)
		},
	})
}

// deafTo has the next writes of a status meet an error each.
func (w *world) deafTo(writes ...error) {
	w.t.Helper()
	w.onWrite(func(context.Context) error {
		if len(writes) == 0 {
			return nil
		}
		next := writes[0]
		writes = writes[1:]
		return next
	})
}

func TestEndThatCouldNotBeWrittenIsWrittenAndNotReachedAgain(t *testing.T) {
	away := errors.New("the API server is away")
	tests := map[string]struct {
		step   v1alpha1.Step
		action v1alpha1.Action
		writes []error
		done   []string
	}{
		"containment": {
			v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased),
			[]error{away},
			[]string{"drop", "freeze", "drop", "hold id-web", "hold id-side"},
		},
		"release": {
			v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false),
			[]error{nil, away},
			[]string{"release id-web", "release id-side", "thaw id-web", "thaw id-side", "start strays", "detach"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.deafTo(tt.writes...)
			soon := metav1.NewTime(time.Now().Add(time.Minute))
			order := w.order(tt.step, tt.action, func(r *v1alpha1.EventResponse) { r.Spec.Deadline = &soon })
			if record, err := w.carryOut(order); !errors.Is(err, away) || record.Status.CompletedAt != nil {
				t.Fatalf("error %v, status %+v", err, record.Status)
			}
			// What would be found now is less than was reached, and the deadline has passed.
			noted := w.agent.node.Known.noted(order.UID)
			w.agent.node.Clock = later{time.Hour}
			w.dropped, w.pod.Containers = Dropped{}, nil
			record, err := w.carryOut(order)
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, v1alpha1.ResponseSucceeded, tt.done...)
			same := cmp.Comparer(func(a, b *metav1.MicroTime) bool {
				return a == b || (a != nil && b != nil && a.UnixMicro() == b.UnixMicro())
			})
			if diff := cmp.Diff(noted.Status.Containment.Containers, record.Status.Containment.Containers, same); diff != "" {
				t.Errorf("containers (-noted +written):\n%s", diff)
			}
			if record.Status.Attempts != noted.Status.Attempts || record.Status.Reporter == nil || record.Status.StartedAt == nil {
				t.Errorf("status %+v", record.Status)
			}
		})
	}
}

func TestEndThatCouldNotBeWrittenDoesNotReplaceOneOfSomebodyElse(t *testing.T) {
	w := newWorld(t)
	w.deafTo(errors.New("the API server is away"))
	order := w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))
	if _, err := w.carryOut(order); err == nil {
		t.Fatal("the write was refused and nobody said so")
	}
	var cached, final v1alpha1.EventResponse
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(order), &cached); err != nil {
		t.Fatal(err)
	}
	closed(v1alpha1.ResponseFailed)(order)
	if err := w.client.Status().Update(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	// The cache does not show that yet.
	if err := w.agent.finish(t.Context(), newRecord(w.agent.node, &cached), w.agent.node.Known.noted(order.UID).Status); err != nil {
		t.Error(err)
	}
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(order), &final); err != nil {
		t.Fatal(err)
	}
	if final.Status.Phase != v1alpha1.ResponseFailed || final.Status.Containment != nil {
		t.Errorf("a closed record was written: %+v", final.Status)
	}
}

// later is a clock that is ahead.
type later struct{ by time.Duration }

func (l later) Now() time.Time { return time.Now().Add(l.by) }

func (l later) Since(then time.Time) time.Duration { return l.Now().Sub(then) }

// wholeSeconds is a time as the API server keeps it.
func wholeSeconds(at time.Time) metav1.Time { return metav1.NewTime(at.Truncate(time.Second)) }

// begun makes an order one that an earlier agent began.
func begun(r *v1alpha1.EventResponse) {
	at := metav1.NowMicro()
	r.Status.StartedAt, r.Status.Attempts = &at, 1
}

// made gives an order a deadline, so long after it was made by the API server's clock.
func made(at time.Time, within time.Duration) func(*v1alpha1.EventResponse) {
	return func(r *v1alpha1.EventResponse) {
		deadline := metav1.NewTime(at.Add(within))
		r.CreationTimestamp, r.Spec.Deadline = metav1.NewTime(at), &deadline
	}
}

func TestClockOfTheNodeDoesNotEndTheTimeOfAnOrder(t *testing.T) {
	now := time.Now()
	freeze, release := podFreeze(v1alpha1.FreezeUntilReleased), podUnfreeze(v1alpha1.DispositionResume, false)
	frozen := []string{"drop", "freeze", "drop", "hold id-web", "hold id-side"}
	released := []string{"release id-web", "release id-side", "thaw id-web", "thaw id-side", "start strays", "detach"}
	tests := map[string]struct {
		step    v1alpha1.Step
		action  v1alpha1.Action
		server  time.Time
		changes []func(*v1alpha1.EventResponse)
		phase   v1alpha1.ResponsePhase
		done    []string
	}{
		"a new containment, API server's clock not known": {v1alpha1.StepFreeze, freeze, time.Time{}, []func(*v1alpha1.EventResponse){made(now, time.Minute)}, v1alpha1.ResponseSucceeded, frozen},
		"a new containment that comes late":               {v1alpha1.StepFreeze, freeze, now, []func(*v1alpha1.EventResponse){made(now.Add(-time.Hour), time.Minute)}, v1alpha1.ResponseSucceeded, frozen},
		"a containment in time":                           {v1alpha1.StepFreeze, freeze, now, []func(*v1alpha1.EventResponse){made(now, time.Minute), begun}, v1alpha1.ResponseSucceeded, frozen},
		"a containment past its time":                     {v1alpha1.StepFreeze, freeze, now, []func(*v1alpha1.EventResponse){made(now.Add(-time.Hour), time.Minute), begun}, v1alpha1.ResponseFailed, nil},
		"a release in time":                               {v1alpha1.StepUnfreeze, release, now, []func(*v1alpha1.EventResponse){made(now, time.Minute)}, v1alpha1.ResponseSucceeded, released},
		"a release past its time":                         {v1alpha1.StepUnfreeze, release, now, []func(*v1alpha1.EventResponse){made(now.Add(-time.Hour), time.Minute)}, v1alpha1.ResponseFailed, nil},
		"made after the API server's last answer":         {v1alpha1.StepUnfreeze, release, now.Add(-24 * time.Hour), []func(*v1alpha1.EventResponse){made(now, -time.Minute)}, v1alpha1.ResponseFailed, nil},
	}
	for name, tt := range tests {
		for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
			t.Run(name+" "+off.String(), func(t *testing.T) {
				w := newWorld(t)
				w.observed = nil
				w.agent.node.Clock = later{off}
				w.agent.node.APIServerNow = func() time.Time { return tt.server }
				record, err := w.carryOut(w.order(tt.step, tt.action, tt.changes...))
				if err != nil {
					t.Fatal(err)
				}
				w.demand(record, tt.phase, tt.done...)
				if len(w.agent.sights.seen) != 0 {
					t.Errorf("a closed order is still known: %v", w.agent.sights.seen)
				}
			})
		}
	}
}

func TestTimeOfAnOrderIsCountedFromItsFirstSight(t *testing.T) {
	var all sights
	now := time.Now()
	order := new(v1alpha1.EventResponse)
	order.Name, order.UID = "er", "one"
	made(now, time.Hour)(order)
	seen, first := all.of(order, now)
	if left := time.Until(seen.ends); !first || left > time.Hour || left < time.Hour-time.Minute {
		t.Errorf("first %t, %v left", first, left)
	}
	if again, first := all.of(order, now.Add(24*time.Hour)); first || again != seen {
		t.Errorf("first %t, another sight of the same order: %+v", first, again)
	}
	order.UID = "another"
	if another, first := all.of(order, now.Add(24*time.Hour)); !first || another == seen || time.Until(another.ends) > 0 {
		t.Errorf("first %t, sight of another order by the same name: %+v", first, another)
	}
}

// TestClockOfTheNodeDoesNotLetAPodGo has a suspect set the node's clock past the end of its incident.
func TestClockOfTheNodeDoesNotLetAPodGo(t *testing.T) {
	w := newWorld(t)
	incident := w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
	due := metav1.NewTime(time.Now().Add(time.Hour))
	incident.Status.UnfreezeAt = &due
	if err := w.client.Status().Update(t.Context(), incident); err != nil {
		t.Fatal(err)
	}
	w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
	w.agent.node.Clock = later{24 * time.Hour}
	w.agent.node.APIServerNow = time.Now
	known, err := intents(t.Context(), w.agent.node)
	if err != nil || !known[podUID].contained || len(known[podUID].overdue) > 0 {
		t.Errorf("intent %+v, error %v", known[podUID], err)
	}
}

func TestContainmentPastItsDeadlineIsRecordedWhenThePodIsCutOffAlready(t *testing.T) {
	past := metav1.NewTime(time.Now().Add(-time.Minute))
	overdue := func(r *v1alpha1.EventResponse) {
		r.Spec.Deadline = &past
		begun(r)
	}
	tests := map[string]struct {
		observed []v1alpha1.Hook
		find     error
		phase    v1alpha1.ResponsePhase
		done     []string
	}{
		"cut off":                {[]v1alpha1.Hook{{ID: "hook"}}, nil, v1alpha1.ResponseSucceeded, []string{"drop", "freeze", "drop", "hold id-web", "hold id-side"}},
		"cut off and not found":  {[]v1alpha1.Hook{{ID: "hook"}}, errors.New("the runtime is away"), v1alpha1.ResponseFailed, nil},
		"not cut off and so not": {nil, nil, v1alpha1.ResponseFailed, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.observed = tt.observed
			w.find = func(ctx context.Context, _ string) error {
				w.within(ctx, 30*time.Second)
				return tt.find
			}
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), overdue))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, tt.phase, tt.done...)
			if got := record.Status.Containment; (got != nil) != (tt.done != nil) {
				t.Errorf("containment %+v", got)
			}
			if reason := record.Status.Conditions[0].Reason; (reason == v1alpha1.ReasonDeadlineExceeded) != (tt.done == nil) {
				t.Errorf("reason %s", reason)
			}
			if tt.find != nil {
				w.sayWhy(record, tt.find.Error())
			}
		})
	}
}

func TestContainmentThatMeetsItsDeadlineBeforeItLooksIsRecordedWhenThePodIsCutOffAlready(t *testing.T) {
	w := newWorld(t)
	looks := 0
	w.find = func(ctx context.Context, _ string) error {
		if looks++; looks > 1 {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	soon := wholeSeconds(time.Now().Add(4 * time.Second))
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), begun, func(r *v1alpha1.EventResponse) { r.Spec.Deadline = &soon }))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponseSucceeded, "drop", "freeze", "drop", "hold id-web", "hold id-side")
}
