//go:build integration

package integration

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// containRounds of one benchmark, each an order to contain and one to let go, of the same pod: enough for a 99th percentile.
const containRounds = 100

// betweenRounds lets the servers sign and seal the steps of the last round, each a second or more after it: on two processors
// they would be measured with the agent.
const betweenRounds = 1500 * time.Millisecond

// BenchmarkContain measures the agent alone, from the order's creation, with the pod's number of processes. An order's
// creation time in the API has whole seconds, so its appearance in a watch of this process, a few milliseconds later,
// stands for it.
func BenchmarkContain(b *testing.B) {
	for _, processes := range []int{1, 10, 50, 200} {
		b.Run(fmt.Sprintf("processes=%d", processes), func(b *testing.B) {
			var once sync.Once
			for b.Loop() {
				once.Do(func() { benchmarkContain(b, processes) })
			}
		})
	}
}

func benchmarkContain(b *testing.B, processes int) {
	b.Helper()
	s := suite.stage(b, idle("only"))
	suite.installProbe(b, s, victimName, "only")
	s.outside = suite.receive(b, s)
	suite.stream(b, s, "only", s.outside, senders(s.outside, "udp"))
	suite.exec(b, s, victimName, "only", "sh", "-c",
		fmt.Sprintf("i=2; while [ $i -lt %d ]; do sleep 100000 >/dev/null 2>&1 & i=$((i+1)); done", processes))
	watched, err := suite.Watch(b.Context(), &v1alpha1.EventResponseList{})
	if err != nil {
		b.Fatal(err)
	}
	defer watched.Stop()
	rounds, controller := make([]containRound, containRounds), suite.controller(b)
	for i := range rounds {
		rounds[i] = runContainRound(b, s, controller, watched)
	}
	found, sent := samples{}, s.outside.must(b)["udp"]
	for _, round := range rounds {
		round.add(b, found, sent)
	}
	found.report(b)
	for name, p50 := range found.medians() {
		b.ReportMetric(p50, name+"-p50-ms")
	}
	if _, err := suite.run(b.Context(), "delete", "namespace", s.namespace, "--wait=false"); err != nil {
		b.Error(err)
	}
}

// containRound is one order and what came of it.
type containRound struct {
	ordered, released time.Time
	containment       v1alpha1.Containment
}

func runContainRound(b *testing.B, s *scene, controller client.Client, watched watch.Interface) containRound {
	b.Helper()
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		b.Fatal(err)
	}
	to := direct{s, controller, watched, hex.EncodeToString(id[:])}
	freeze := v1alpha1.Action{Type: v1alpha1.ActionPodFreeze, PodFreeze: &v1alpha1.PodFreezeAction{
		Processes: v1alpha1.FreezeUntilReleased, Memory: v1alpha1.MemoryNone,
	}}
	var round containRound
	var done v1alpha1.EventResponse
	round.ordered, done = to.order(b, v1alpha1.StepFreeze, freeze)
	if done.Status.Containment == nil || done.Status.Containment.ContainedAt == nil {
		b.Fatalf("not contained: %s", describe(done.Status.Conditions))
	}
	round.containment = *done.Status.Containment
	time.Sleep(50 * time.Millisecond)
	round.released = time.Now()
	to.order(b, v1alpha1.StepUnfreeze, v1alpha1.Action{
		Type: v1alpha1.ActionPodUnfreeze, PodUnfreeze: &v1alpha1.PodUnfreezeAction{
			Reason: v1alpha1.ReleaseAcknowledged, Disposition: v1alpha1.DispositionResume,
		},
	})
	time.Sleep(betweenRounds)
	return round
}

// direct gives the agent orders as the controller does, of an incident that there is not.
type direct struct {
	*scene
	controller client.Client
	watched    watch.Interface
	incident   string
}

// controller is a client in the name of the one account that may give orders.
func (c *cluster) controller(b *testing.B) client.Client {
	b.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", c.env.Kubeconfig)
	if err != nil {
		b.Fatal(err)
	}
	config.Impersonate.UserName = "system:serviceaccount:ugallu-system:ugallu-forensics"
	made, err := client.New(config, client.Options{Scheme: c.Scheme()})
	if err != nil {
		b.Fatal(err)
	}
	return made
}

// order waits for the order's end.
func (d direct) order(b *testing.B, step v1alpha1.Step, action v1alpha1.Action) (appeared time.Time, done v1alpha1.EventResponse) {
	b.Helper()
	s, incident := d.scene, d.incident
	uid := fmt.Sprintf("%s-%s-4000-8000-%s", incident[:8], incident[8:12], strings.Repeat(incident[12:], 3))
	deadline := metav1.NewTime(time.Now().Add(time.Minute))
	order := &v1alpha1.EventResponse{
		ObjectMeta: metav1.ObjectMeta{
			Name:   v1alpha1.ResponseName(incident, step, 1),
			Labels: map[string]string{v1alpha1.LabelIncidentUID: uid, v1alpha1.LabelStep: string(step)},
		},
		Spec: v1alpha1.EventResponseSpec{
			IncidentName: incident, IncidentUID: uid, Attempt: 1, NodeName: s.victim.Spec.NodeName, Deadline: &deadline, Action: action,
			SecurityEventRef: v1alpha1.Ref{Name: "benchmark", UID: uid},
			PodRef: v1alpha1.PodRef{
				Namespace: s.namespace, Name: victimName, UID: string(s.victim.UID), NodeName: s.victim.Spec.NodeName,
			},
		},
	}
	if step == v1alpha1.StepUnfreeze {
		order.Spec.Deadline = nil
	}
	if err := d.controller.Create(b.Context(), order); err != nil {
		b.Fatalf("order %s: %v", step, err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			b.Fatalf("order %s was not carried out", order.Name)
		case change := <-d.watched.ResultChan():
			now, is := change.Object.(*v1alpha1.EventResponse)
			if !is || client.ObjectKeyFromObject(now) != client.ObjectKeyFromObject(order) {
				continue
			}
			if appeared.IsZero() {
				appeared = time.Now()
			}
			if now.Status.CompletedAt != nil {
				return appeared, *now
			}
		}
	}
}

func (r containRound) add(b *testing.B, found samples, sent flow) {
	b.Helper()
	first, last := time.Time{}, time.Time{}
	for _, hook := range r.containment.Hooks {
		if hook.AttachedAt == nil {
			b.Fatalf("hook %s is not attached", hook.ID)
		}
		if first.IsZero() || hook.AttachedAt.Time.Before(first) {
			first = hook.AttachedAt.Time
		}
		if hook.AttachedAt.After(last) {
			last = hook.AttachedAt.Time
		}
	}
	found.add("order-to-first-hook", first.Sub(r.ordered))
	found.add("order-to-all-hooks", last.Sub(r.ordered))
	for _, container := range r.containment.Containers {
		if container.FrozenAt != nil {
			found.add("order-to-frozen", container.FrozenAt.Sub(r.ordered))
		}
	}
	lastByte := r.ordered
	for _, arrival := range sent {
		if arrival.at.After(lastByte) && arrival.at.Before(r.released) {
			lastByte = arrival.at
		}
	}
	found.add("order-to-last-byte", lastByte.Sub(r.ordered))
}

// medians of each kind, in milliseconds.
func (s samples) medians() map[string]float64 {
	out := make(map[string]float64, len(s))
	for name, all := range s {
		out[name] = float64(all[len(all)/2].Microseconds()) / 1000 // report has sorted them
	}
	return out
}
