package order

import (
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"ugallu.io/forensics/api/v1alpha1"
)

// TestKeeperLooksAtEverythingOnlyWhereSomethingMayHaveChanged looks again and again at a contained pod.
func TestKeeperLooksAtEverythingOnlyWhereSomethingMayHaveChanged(t *testing.T) {
	tests := map[string]struct {
		processes v1alpha1.FreezeProcesses
		arrange   func(*world)
		later     func(*world, *clocktesting.FakePassiveClock)
		whole     bool
	}{
		"nothing changed":       {v1alpha1.FreezeUntilReleased, nil, nil, false},
		"a container runs":      {v1alpha1.FreezeUntilReleased, nil, func(w *world, _ *clocktesting.FakePassiveClock) { w.thawed = true }, true},
		"the pins are gone":     {v1alpha1.FreezeUntilReleased, nil, func(w *world, _ *clocktesting.FakePassiveClock) { w.unpinned = true }, true},
		"a while passed":        {v1alpha1.FreezeUntilReleased, nil, func(_ *world, c *clocktesting.FakePassiveClock) { c.SetTime(c.Now().Add(wholeEvery)) }, true},
		"its processes go on":   {v1alpha1.FreezeNever, nil, nil, true},
		"it is cut off in part": {v1alpha1.FreezeUntilReleased, func(w *world) { w.dropped.Shortfalls = []string{"a device"} }, nil, true},
		"strays came and were stopped": {v1alpha1.FreezeUntilReleased, func(w *world) {
			w.strays = [][]Stray{{{Process: 100, Started: 1}}, {{Process: 101, Started: 2}}}
		}, nil, false},
		"strays come again and again": {v1alpha1.FreezeUntilReleased, func(w *world) {
			for process := 100; process <= 100+strayRounds; process++ {
				w.strays = append(w.strays, []Stray{{Process: process, Started: 1}})
			}
		}, nil, true},
		"it is in the node's pid namespace":  {v1alpha1.FreezeUntilReleased, func(w *world) { w.strayErr = ErrSharedNamespace }, nil, true},
		"it may reach its sandbox's process": {v1alpha1.FreezeUntilReleased, func(w *world) { w.strayErr = ErrSandboxRuns }, nil, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			now := clocktesting.NewFakePassiveClock(time.Now())
			w.agent.node.Clock = now
			w.incident(incidentName, incidentUID, tt.processes)
			w.order(v1alpha1.StepFreeze, podFreeze(tt.processes), closed(v1alpha1.ResponseSucceeded))
			if tt.arrange != nil {
				tt.arrange(w)
			}
			keeper := &keeper{node: w.agent.node, pods: w.agent.pods}
			look := func() (drops int) {
				t.Helper()
				w.done = nil
				if err := keeper.look(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, done := range w.done {
					if done == "drop" {
						drops++
					}
				}
				return drops
			}
			if drops := look(); drops != 1 {
				t.Fatalf("the first look at everything: %d", drops)
			}
			if tt.later != nil {
				tt.later(w, now)
			}
			if drops := look(); (drops == 1) != tt.whole {
				t.Errorf("looked at everything again: %d, want %t", drops, tt.whole)
			}
		})
	}
}
