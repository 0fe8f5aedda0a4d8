package incident

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
)

// removed counts how often the policy was taken away.
type removed int

func (r *removed) Ensure(
	context.Context, v1alpha1.PodRef, map[string]string, *v1alpha1.AppliedPolicy, func() error,
) (*v1alpha1.AppliedPolicy, error) {
	return &v1alpha1.AppliedPolicy{}, nil
}

func (r *removed) Remove(context.Context, v1alpha1.PodRef) error {
	*r++
	return nil
}

func openIncident(name string, created time.Time) *v1alpha1.Incident {
	return &v1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(created),
			Labels: map[string]string{v1alpha1.LabelOpen: "true", v1alpha1.LabelPodUID: "pod-uid"},
		},
		Spec: v1alpha1.IncidentSpec{
			Pod:         v1alpha1.PodRef{Namespace: "sandbox", Name: "victim", UID: "pod-uid", NodeName: "worker"},
			Disposition: v1alpha1.DispositionResume,
		},
	}
}

func fakeClient(t *testing.T, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.SecurityEvent{}).Build()
}

// TestTwoIncidentsReleasedAtOnceLeaveNothingOnThePod lets both see the other still open, as two workers may.
func TestTwoIncidentsReleasedAtOnceLeaveNothingOnThePod(t *testing.T) {
	for name, bOrdered := range map[string]bool{"both are on their way": true, "one still holds": false} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			a, b := openIncident("aaaaaaaaaaaaaaaa", now), openIncident("bbbbbbbbbbbbbbbb", now.Add(time.Second))
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Namespace: "sandbox", Name: "victim", UID: "pod-uid", Labels: map[string]string{v1alpha1.LabelFrozen: string(a.UID)},
			}}
			a.Status.Policy = &v1alpha1.AppliedPolicy{Backend: v1alpha1.BackendCoreV1}
			objects := []client.Object{a, b, pod}
			if bOrdered {
				objects = append(objects, &v1alpha1.EventResponse{
					ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.ResponseName(b.Name, v1alpha1.StepUnfreeze, 1)},
				})
			}
			c, gone := fakeClient(t, objects...), new(removed)
			release := &releaseStep{
				orders: &orders{client: c, live: c, clock: clocktesting.NewFakePassiveClock(now)},
				hold:   &hold{client: c, live: c, policies: gone},
			}
			done, err := release.letGo(t.Context(), newScene(a, now), nil)
			if err != nil || !done {
				t.Fatalf("let go %t (%v)", done, err)
			}
			var left corev1.Pod
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(pod), &left); err != nil {
				t.Fatal(err)
			}
			label, policies := string(b.UID), removed(0)
			if bOrdered {
				label, policies = "", 1
			}
			if left.Labels[v1alpha1.LabelFrozen] != label || *gone != policies {
				t.Errorf("label %q, policy removed %d times, want %q and %d", left.Labels[v1alpha1.LabelFrozen], *gone, label, policies)
			}
		})
	}
}

// TestOrderOutlivesItsIncident lets the only incident that is left go, which does not delete the pod itself.
func TestOrderOutlivesItsIncident(t *testing.T) {
	now := time.Now()
	left := openIncident("bbbbbbbbbbbbbbbb", now)
	pod := left.Spec.Pod
	other, elsewhere := pod, pod
	other.UID, elsewhere.UID, elsewhere.NodeName = "other-uid", "elsewhere-uid", "worker-2"
	for name, tt := range map[string]struct {
		of      string
		pod     v1alpha1.PodRef
		says    v1alpha1.Disposition
		deletes bool
	}{
		"one that is gone deletes the pod":         {"aaaaaaaaaaaaaaaa", pod, v1alpha1.DispositionDelete, true},
		"its own deletes the pod":                  {left.Name, pod, v1alpha1.DispositionDelete, true},
		"one that is gone let the pod go on":       {"aaaaaaaaaaaaaaaa", pod, v1alpha1.DispositionResume, false},
		"one that is gone deletes another pod":     {"aaaaaaaaaaaaaaaa", other, v1alpha1.DispositionDelete, false},
		"one that is gone deletes on another node": {"aaaaaaaaaaaaaaaa", elsewhere, v1alpha1.DispositionDelete, false},
	} {
		t.Run(name, func(t *testing.T) {
			order := &v1alpha1.EventResponse{
				ObjectMeta: metav1.ObjectMeta{
					Name:   v1alpha1.ResponseName(tt.of, v1alpha1.StepUnfreeze, 1),
					Labels: map[string]string{v1alpha1.LabelStep: string(v1alpha1.StepUnfreeze), v1alpha1.LabelPodUID: tt.pod.UID},
				},
				Spec: v1alpha1.EventResponseSpec{NodeName: tt.pod.NodeName, PodRef: tt.pod, Action: v1alpha1.Action{
					Type: v1alpha1.ActionPodUnfreeze, PodUnfreeze: &v1alpha1.PodUnfreezeAction{Disposition: tt.says},
				}},
			}
			victim := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID)}}
			var own *v1alpha1.EventResponse
			if tt.of == left.Name {
				// It is not looked for.
				own, order = order, &v1alpha1.EventResponse{ObjectMeta: metav1.ObjectMeta{Name: order.Name}}
			}
			c, gone := fakeClient(t, left.DeepCopy(), order, victim), new(removed)
			release := &releaseStep{
				orders: &orders{client: c, live: c, clock: clocktesting.NewFakePassiveClock(now)},
				hold:   &hold{client: c, live: c, policies: gone},
			}
			done, err := release.letGo(t.Context(), newScene(left.DeepCopy(), now), own)
			if err != nil || done == tt.deletes || (*gone == 0) != tt.deletes {
				t.Errorf("let go %t (%v) with the policy removed %d times", done, err, *gone)
			}
			err = c.Get(t.Context(), client.ObjectKeyFromObject(victim), victim)
			if client.IgnoreNotFound(err) != nil || (err != nil) != tt.deletes {
				t.Errorf("pod read after: %v, want it deleted: %t", err, tt.deletes)
			}
		})
	}
}

// TestAcknowledgementThatCannotBeCheckedDoesNotStopTheDeadline has no key: its Secret is gone.
func TestAcknowledgementThatCannotBeCheckedDoesNotStopTheDeadline(t *testing.T) {
	now := time.Now()
	event := &v1alpha1.SecurityEvent{ObjectMeta: metav1.ObjectMeta{
		Name: "se-aaaaaaaaaaaaaaaa-completed", UID: "event-uid", Annotations: map[string]string{v1alpha1.AnnotationAcknowledged: "true"},
	}}
	incident := openIncident("aaaaaaaaaaaaaaaa", now)
	incident.Spec.RequiredAcknowledgements = 1
	incident.Status.CompletionEvent = &v1alpha1.Ref{Name: event.Name, UID: "event-uid"}
	due := metav1.NewTime(now.Add(time.Hour))
	incident.Status.UnfreezeAt = &due
	step := &acknowledgeStep{client: fakeClient(t, event)}
	for _, tt := range []struct {
		now    time.Time
		reason string
		next   progress
	}{
		{now, v1alpha1.ReasonWaiting, waiting(keyRetry)},
		{due.Add(time.Second), v1alpha1.ReasonDeadlineReached, finished()},
	} {
		s := newScene(incident.DeepCopy(), tt.now)
		next, err := step.run(t.Context(), s)
		if err != nil || next != tt.next {
			t.Errorf("at %s: %+v (%v), want %+v", tt.now, next, err, tt.next)
		}
		got := meta.FindStatusCondition(s.incident.Status.Conditions, v1alpha1.ConditionAcknowledged)
		if got == nil || got.Status != metav1.ConditionFalse || got.Reason != tt.reason {
			t.Errorf("at %s: condition %+v, want %s", tt.now, got, tt.reason)
		}
	}
}

// TestDeadlineIsTheIncidentsOwn finds the outcome event announced, as after a restart, with a deadline that somebody wrote.
func TestDeadlineIsTheIncidentsOwn(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	own, never := metav1.NewTime(now.Add(4*time.Hour)), metav1.Duration{}
	sooner, later := metav1.NewTime(now.Add(-time.Hour)), metav1.NewTime(now.Add(1000*time.Hour))
	for name, tt := range map[string]struct {
		after   metav1.Duration
		written *metav1.Time
		want    *metav1.Time
	}{
		"none yet":              {metav1.Duration{Duration: 4 * time.Hour}, nil, &own},
		"its own":               {metav1.Duration{Duration: 4 * time.Hour}, &own, &own},
		"sooner":                {metav1.Duration{Duration: 4 * time.Hour}, &sooner, &own},
		"later":                 {metav1.Duration{Duration: 4 * time.Hour}, &later, &own},
		"no whole seconds":      {metav1.Duration{Duration: 4*time.Hour + time.Millisecond}, nil, &own},
		"never":                 {never, nil, nil},
		"one where it is never": {never, &sooner, nil},
	} {
		t.Run(name, func(t *testing.T) {
			incident := openIncident("aaaaaaaaaaaaaaaa", now)
			incident.Spec.AutoUnfreezeAfter = tt.after
			s := newScene(incident, now)
			event := outcome(s, v1alpha1.EventCaptureFailed, nil)
			event.CreationTimestamp, event.Status.UnfreezeAt = metav1.NewTime(now), tt.written
			c := fakeClient(t, event)
			if err := (&announcer{client: c, live: c}).announce(t.Context(), s, v1alpha1.EventCaptureFailed, nil); err != nil {
				t.Fatal(err)
			}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(event), event); err != nil {
				t.Fatal(err)
			}
			if got := s.incident.Status.UnfreezeAt; !got.Equal(tt.want) || !event.Status.UnfreezeAt.Equal(tt.want) {
				t.Errorf("unfreezeAt is %v on the incident and %v on the event, want %v", got, event.Status.UnfreezeAt, tt.want)
			}
		})
	}
}

// TestNodeIsGoneAMinuteAfterTheFirstAnswer: when it is asked again, not when that is answered.
func TestNodeIsGoneAMinuteAfterTheFirstAnswer(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(time.Now())
	var broken error
	live := interceptor.NewClient(fakeClient(t), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			clock.SetTime(clock.Now().Add(nodeCheck / 2))
			return cmp.Or(broken, c.Get(ctx, key, o, opts...))
		},
	})
	release := &releaseStep{orders: &orders{client: live, live: live, clock: clock}}
	s := newScene(openIncident("aaaaaaaaaaaaaaaa", clock.Now()), clock.Now())
	looks := func(want bool) {
		t.Helper()
		if gone, err := release.nodeGone(t.Context(), s); err != nil || gone != want {
			t.Errorf("gone %t (%v), want %t", gone, err, want)
		}
	}
	looks(false)
	clock.SetTime(clock.Now().Add(nodeCheck / 2))
	looks(false)
	looks(true)
	broken = errors.New("broken")
	if gone, err := release.nodeGone(t.Context(), s); !errors.Is(err, broken) || gone {
		t.Errorf("gone %t (%v) where that cannot be told", gone, err)
	}
}

// TestWhatHoldsAReleaseStandsWhereTheNodeIsNotRead: of a silent agent, and after the last attempt.
func TestWhatHoldsAReleaseStandsWhereTheNodeIsNotRead(t *testing.T) {
	broken, now := errors.New("broken"), time.Now()
	for name, tt := range map[string]struct {
		failed int32
		want   string
	}{
		"a silent agent":   {0, v1alpha1.ReasonWaiting},
		"the last attempt": {attempts, v1alpha1.ReasonFailed},
	} {
		t.Run(name, func(t *testing.T) {
			incident := openIncident("aaaaaaaaaaaaaaaa", now)
			objects := []client.Object{incident}
			for attempt := int32(1); attempt <= max(tt.failed, 1); attempt++ {
				objects = append(objects, attempted(incident, attempt, now, tt.failed > 0))
			}
			c := fakeClient(t, objects...)
			live := interceptor.NewClient(c, interceptor.Funcs{
				Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
					if o.GetObjectKind().GroupVersionKind() == nodeKind() {
						return broken
					}
					return c.Get(ctx, key, o, opts...)
				},
			})
			release := &releaseStep{
				orders: &orders{client: c, live: live, clock: clocktesting.NewFakePassiveClock(now)},
				hold:   &hold{client: c, live: live, policies: new(removed)},
			}
			s := newScene(incident, now)
			if _, err := release.run(t.Context(), s); !errors.Is(err, broken) {
				t.Errorf("released with %v", err)
			}
			if got := s.reason(v1alpha1.ConditionReleased); got != tt.want {
				t.Errorf("Released is %q, want %q", got, tt.want)
			}
		})
	}
}

// attempted is an order of an hour ago, which failed or was not ended.
func attempted(incident *v1alpha1.Incident, attempt int32, now time.Time, failed bool) *v1alpha1.EventResponse {
	s := newScene(incident, now)
	var parent *v1alpha1.Ref
	if attempt > 1 {
		parent = &v1alpha1.Ref{Name: v1alpha1.ResponseName(incident.Name, v1alpha1.StepUnfreeze, attempt-1)}
	}
	response := order{
		step: v1alpha1.StepUnfreeze, attempt: attempt, node: incident.Spec.Pod.NodeName, parent: parent,
		action: v1alpha1.Action{Type: v1alpha1.ActionPodUnfreeze, PodUnfreeze: &v1alpha1.PodUnfreezeAction{
			Reason: releaseReason(s), Disposition: incident.Spec.Disposition,
		}},
	}.response(incident, now)
	response.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
	if failed {
		response.Status.Phase = v1alpha1.ResponseFailed
		response.Status.CompletedAt = &metav1.MicroTime{Time: now.Add(-time.Hour)}
	}
	return response
}
