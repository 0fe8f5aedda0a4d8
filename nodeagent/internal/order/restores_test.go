package order

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

const anotherPod = "22222222-2222-3333-4444-555555555555"

// bothHeld makes two pods contained, each by an incident of its own.
func (w *world) bothHeld() {
	w.t.Helper()
	w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
	w.incident(anotherName, anotherUID, v1alpha1.FreezeUntilReleased)
	w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
	w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), ofAnother,
		func(r *v1alpha1.EventResponse) { r.UID, r.Spec.PodRef.UID = "another", anotherPod })
}

// looked counts the looks at each pod, which end when their turn is over.
type looked struct {
	mutex sync.Mutex
	pods  []string
	wait  map[string]chan struct{}
}

func (l *looked) find(_ context.Context, podUID string) error {
	l.mutex.Lock()
	l.pods = append(l.pods, podUID)
	wait := l.wait[podUID]
	l.mutex.Unlock()
	if wait != nil {
		<-wait
	}
	// Nothing of the pod is to be done: what counts is that it had its turn.
	return errors.New("away")
}

func (l *looked) count(podUID string) int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return len(slices.DeleteFunc(slices.Clone(l.pods), func(pod string) bool { return pod != podUID }))
}

// eventually waits for what another goroutine does.
func eventually(t *testing.T, what string, seen func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !seen(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

func TestPodThatIsBusyDoesNotKeepTheEventsOfOthers(t *testing.T) {
	w := newWorld(t)
	w.bothHeld()
	seen := new(looked)
	w.find = seen.find
	unlock := w.agent.pods.lock(podUID)
	guard := w.guard()
	guard.DeviceChanged(t.Context(), podUID)
	guard.watcher.started(t.Context(), "id-new")
	guard.DeviceChanged(t.Context(), anotherPod)
	eventually(t, "the other pod's turn", func() bool { return seen.count(anotherPod) == 1 })
	if seen.count(podUID) != 0 {
		t.Error("the pod's lock was not respected")
	}
	unlock()
	guard.restores.end()
	if seen.count(podUID) == 0 {
		t.Error("the pod that was busy had no turn")
	}
}

func TestPodThatIsToldOfWhileItIsRestoredIsRestoredOnceMore(t *testing.T) {
	w := newWorld(t)
	w.bothHeld()
	turn := make(chan struct{})
	seen := &looked{wait: map[string]chan struct{}{podUID: turn}}
	w.find = seen.find
	restores := newRestores(w.agent.node, w.agent.pods)
	restores.tell(t.Context(), podUID)
	eventually(t, "the first turn", func() bool { return seen.count(podUID) == 1 })
	for range 5 {
		restores.tell(t.Context(), podUID)
	}
	close(turn)
	restores.end()
	if got := seen.count(podUID); got != 2 {
		t.Errorf("%d turns, want 2", got)
	}
	restores.tell(t.Context(), podUID)
	restores.group.Wait()
	if got := seen.count(podUID); got != 2 || len(restores.again) != 0 {
		t.Errorf("%d turns after the end, %v under way", got, restores.again)
	}
}

func TestGuardWaitsForThePodsThatAreBeingRestored(t *testing.T) {
	w := newWorld(t)
	w.bothHeld()
	turn := make(chan struct{})
	seen := &looked{wait: map[string]chan struct{}{podUID: turn}}
	w.find = seen.find
	guard := w.guard()
	ctx, cancel := context.WithCancel(t.Context())
	guard.DeviceChanged(ctx, podUID)
	eventually(t, "the pod's turn", func() bool { return seen.count(podUID) == 1 })
	guard.DeviceChanged(ctx, podUID)
	cancel()
	ended := make(chan error)
	go func() { ended <- guard.Start(ctx) }()
	select {
	case err := <-ended:
		t.Fatalf("the guard ended while a pod was being restored: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(turn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := seen.count(podUID); got != 1 {
		t.Errorf("%d turns, want no other after the end", got)
	}
}

func TestKeeperLeavesOutAPodThatIsBusy(t *testing.T) {
	due := metav1.NewTime(time.Now().Add(-2 * patience))
	tests := map[string]func(*world){
		"contained": func(w *world) { w.bothHeld() },
		"overdue": func(w *world) {
			incident := w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
			incident.Status.UnfreezeAt = &due
			if err := w.client.Status().Update(w.t.Context(), incident); err != nil {
				w.t.Fatal(err)
			}
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
		},
		"gone": func(*world) {},
	}
	for name, arrange := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			arrange(w)
			seen := new(looked)
			w.find = seen.find
			keeper := &keeper{node: w.agent.node, pods: w.agent.pods}
			unlock := w.agent.pods.lock(podUID)
			ended := make(chan error)
			go func() { ended <- keeper.look(t.Context()) }()
			select {
			case err := <-ended:
				t.Log("the look ended:", err)
			case <-time.After(10 * time.Second):
				unlock()
				t.Fatal("the keeper waits for a pod that is busy")
			}
			unlock()
			if seen.count(podUID) != 0 {
				t.Error("the pod's lock was not respected")
			}
			if name == "contained" && seen.count(anotherPod) != 1 {
				t.Error("the other pod was not looked at")
			}
			if _ = keeper.look(t.Context()); seen.count(podUID) == 0 {
				t.Error("the pod was not looked at once it was free")
			}
			if len(w.agent.pods.held) != 0 {
				t.Errorf("locks are left: %v", w.agent.pods.held)
			}
		})
	}
}

// within demands that a context ends by itself, in time.
func (w *world) within(ctx context.Context, bound time.Duration) {
	w.t.Helper()
	if at, ok := ctx.Deadline(); !ok || time.Until(at) > bound {
		w.t.Errorf("may take until %v, want within %v", at, bound)
	}
}

// slow is a runtime that takes its time to say whose container started.
type slow struct {
	tasks
	podOf func(context.Context)
}

func (s slow) PodOf(ctx context.Context, container string) (string, error) {
	s.podOf(ctx)
	return s.tasks.PodOf(ctx, container)
}

func TestRuntimeThatDoesNotAnswerForOnePodIsNotWaitedFor(t *testing.T) {
	tests := map[string]func(*world) error{
		"restore": func(w *world) error {
			w.bothHeld()
			return restore(w.t.Context(), w.agent.node, podUID)
		},
		"orphan": func(w *world) error {
			return (&keeper{node: w.agent.node, pods: w.agent.pods}).orphan(w.t.Context(), podUID)
		},
		"unfreeze": func(w *world) error {
			_, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
			return err
		},
	}
	for name, act := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			asked := 0
			w.find = func(ctx context.Context, _ string) error {
				asked++
				w.within(ctx, lookWithin)
				return context.DeadlineExceeded
			}
			if err := act(w); !errors.Is(err, context.DeadlineExceeded) || asked == 0 {
				t.Errorf("error %v, asked %d times", err, asked)
			}
		})
	}
	t.Run("newcomer", func(t *testing.T) {
		w := newWorld(t)
		w.bothHeld()
		guard := newGuard(w.agent.node, w.agent.pods, slow{tasks{"nobody"}, func(ctx context.Context) { w.within(ctx, lookWithin) }})
		if err := guard.watcher.newcomer(t.Context(), "id-new"); err != nil {
			t.Error(err)
		}
	})
}

func TestKeeperWritesTheJournal(t *testing.T) {
	w := newWorld(t)
	w.bothHeld()
	if err := (&keeper{node: w.agent.node, pods: w.agent.pods}).look(t.Context()); err != nil {
		t.Fatal(err)
	}
	restarted := w.agent.node
	restarted.Known = NewKnown(w.client, filepath.Dir(w.agent.node.Known.journal))
	known, err := intents(t.Context(), restarted)
	if err != nil || !known[podUID].contained || !known[anotherPod].frozen {
		t.Errorf("known after a restart: %+v (%v)", known, err)
	}
}

func TestDiskThatHangsDoesNotKeepAnOrderFromBeingKnown(t *testing.T) {
	w := newWorld(t)
	order := w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))
	known, writing, hang := w.agent.node.Known, make(chan struct{}), make(chan struct{})
	known.replace = func(path string, content []byte) error {
		close(writing)
		<-hang
		return os.WriteFile(path, content, 0o600)
	}
	saved := make(chan error)
	go func() { saved <- known.save(t.Context()) }()
	<-writing
	read := make(chan error)
	go func() {
		known.note(order)
		_, err := known.read(t.Context())
		read <- err
	}()
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("what is known waits for the disk")
	}
	close(hang)
	if err := <-saved; err != nil {
		t.Error(err)
	}
}

// reachable is a cache of an API server that answers for the kinds it was asked for.
type reachable struct {
	cache.Cache
	asked []string
}

func (r *reachable) GetInformer(_ context.Context, object client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	switch object.(type) {
	case *v1alpha1.EventResponse:
		r.asked = append(r.asked, "orders")
	case *v1alpha1.Incident:
		r.asked = append(r.asked, "incidents")
	}
	return nil, nil
}

func TestLearnerTurnsFromTheJournalToTheCache(t *testing.T) {
	w := newWorld(t)
	w.bothHeld()
	known, api := NewKnown(w.client, t.TempDir()), new(reachable)
	if last, err := known.read(t.Context()); err != nil || len(last.Responses) != 0 {
		t.Fatalf("before: %+v (%v)", last, err)
	}
	if err := (&learner{cache: api, known: known}).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := known.read(t.Context()); err != nil || len(now.Responses) != 2 {
		t.Errorf("after: %+v (%v)", now, err)
	}
	if diff := cmp.Diff([]string{"orders", "incidents"}, api.asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
}
