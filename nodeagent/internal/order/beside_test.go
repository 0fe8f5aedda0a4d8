package order

import (
	"context"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// meeting ends for nobody before so many have come.
type meeting struct {
	t     *testing.T
	group sync.WaitGroup
	all   chan struct{}
}

func newMeeting(t *testing.T, size int) *meeting {
	t.Helper()
	m := &meeting{t: t, all: make(chan struct{})}
	m.group.Add(size)
	go func() {
		m.group.Wait()
		close(m.all)
	}()
	return m
}

func (m *meeting) come(who string) {
	m.group.Done()
	select {
	case <-m.all:
	case <-time.After(10 * time.Second):
		m.t.Errorf("%s waits for the others", who)
	}
}

// slowNode has several pods, of one container each. A freeze ends when the meeting does, as does a detachment.
type slowNode struct {
	*world
	meeting *meeting
}

// Pod implements Containers.
func (s slowNode) Pod(_ context.Context, uid string) (Pod, error) {
	return Pod{UID: uid, Sandboxes: 1, Processes: []int{10}, Containers: []Container{{ID: "of " + uid, Process: 10}}}, nil
}

// Freeze implements Freezer.
func (s slowNode) Freeze(_ context.Context, container Container) (bool, error) {
	s.meeting.come("the freeze of " + container.ID)
	return true, nil
}

// Detach implements Dropper.
func (s slowNode) Detach(uid string) error {
	s.meeting.come("the release of " + uid)
	return nil
}

func (w *world) slow(size int) Node {
	w.t.Helper()
	fakes := slowNode{w, newMeeting(w.t, size)}
	node := w.agent.node
	node.Containers, node.Freeze, node.Drop = fakes, fakes, fakes
	return node
}

// TestPodThatDoesNotFreezeKeepsNoOtherFromItsTurn has the keeper restore two pods and let a third go.
func TestPodThatDoesNotFreezeKeepsNoOtherFromItsTurn(t *testing.T) {
	const overduePod, overdueName, overdueUID = "33333333-2222-3333-4444-555555555555", "00112233445566ff", "77777777-2222-3333-4444-555555555555"
	w := newWorld(t)
	w.bothHeld()
	incident := w.incident(overdueName, overdueUID, v1alpha1.FreezeUntilReleased)
	due := metav1.NewTime(time.Now().Add(-2 * patience))
	incident.Status.UnfreezeAt = &due
	if err := w.client.Status().Update(t.Context(), incident); err != nil {
		t.Fatal(err)
	}
	w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded), func(r *v1alpha1.EventResponse) {
		r.Name, r.UID = v1alpha1.ResponseName(overdueName, v1alpha1.StepFreeze, 1), "overdue"
		r.Spec.IncidentName, r.Spec.IncidentUID, r.Spec.PodRef.UID = overdueName, overdueUID, overduePod
	})
	keeper := &keeper{node: w.slow(3), pods: w.agent.pods}
	if err := keeper.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !keeper.isDone(overduePod, overdueName) || !keeper.isKept(podUID) || keeper.isKept(overduePod) {
		t.Errorf("done %v, kept %v", keeper.done, keeper.kept)
	}
}

func TestContainersOfAPodThatIsKeptFrozenAreFrozenSideBySide(t *testing.T) {
	w := newWorld(t)
	if still, err := freezeAgain(t.Context(), w.slow(2), w.pod); err != nil || !still {
		t.Errorf("still %t, %v", still, err)
	}
}
