package order

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

func TestStraysAreStoppedUntilNoneIsLeft(t *testing.T) {
	one, two := Stray{Process: 100, Started: 1}, Stray{Process: 101, Started: 2}
	three, four := Stray{Process: 102, Started: 3}, Stray{Process: 103, Started: 4}
	tests := map[string]struct {
		processes v1alpha1.FreezeProcesses
		strays    [][]Stray
		failing   error
		before    int
		found     int32
		stopped   int32
		stops     int
		phase     v1alpha1.ResponsePhase
	}{
		"none":                          {v1alpha1.FreezeUntilReleased, nil, nil, 0, 0, 0, 0, v1alpha1.ResponseSucceeded},
		"one that started another":      {v1alpha1.FreezeUntilReleased, [][]Stray{{one}, {two}}, nil, 0, 2, 2, 2, v1alpha1.ResponseSucceeded},
		"one beside one stopped":        {v1alpha1.FreezeUntilReleased, [][]Stray{{one}}, nil, 1, 2, 2, 1, v1alpha1.ResponseSucceeded},
		"one that cannot be":            {v1alpha1.FreezeUntilReleased, [][]Stray{{one}}, errors.New("process 100: no"), 0, 1, 0, 1, v1alpha1.ResponsePartial},
		"none is to be frozen":          {v1alpha1.FreezeNever, [][]Stray{{one}}, nil, 0, 1, 0, 0, v1alpha1.ResponsePartial},
		"none is to be frozen, one was": {v1alpha1.FreezeNever, [][]Stray{{one}}, nil, 1, 2, 1, 0, v1alpha1.ResponsePartial},
		"more come than are caught":     {v1alpha1.FreezeUntilReleased, [][]Stray{{one}, {two}, {three}, {four}}, nil, 0, 4, 3, 3, v1alpha1.ResponsePartial},
		"one is there again and again":  {v1alpha1.FreezeUntilReleased, [][]Stray{{one}, {one}, {one}, {one}}, nil, 0, 1, 0, 3, v1alpha1.ResponsePartial},
		"the last look finds none":      {v1alpha1.FreezeUntilReleased, [][]Stray{{one}, {two}, {three}}, nil, 0, 3, 3, 3, v1alpha1.ResponseSucceeded},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.strays, w.stopped, w.failing = tt.strays, tt.before, map[string]error{"stop strays": tt.failing}
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(tt.processes)))
			if err != nil {
				t.Fatal(err)
			}
			got := record.Status.Containment
			stops := len(slices.DeleteFunc(w.done, func(did string) bool { return did != "stop strays" }))
			if got.EscapedProcesses != tt.found || got.StoppedProcesses != tt.stopped || stops != tt.stops || record.Status.Phase != tt.phase {
				t.Errorf("%d found, %d stopped in %d rounds, phase %s, want %d, %d, %d, %s: %s", got.EscapedProcesses, got.StoppedProcesses, stops,
					record.Status.Phase, tt.found, tt.stopped, tt.stops, tt.phase, record.Status.Conditions[0].Message)
			}
		})
	}
}

func TestOneThatCannotBeStoppedDoesNotKeepTheNext(t *testing.T) {
	one, two := Stray{Process: 100, Started: 1}, Stray{Process: 101, Started: 2}
	w := newWorld(t)
	w.strays = [][]Stray{{one}, {one, two}, {one}, {one}}
	w.stop = func(asked []Stray) (int, error) {
		return len(asked) - 1, errors.New("process 100: no")
	}
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	got := record.Status.Containment
	if got.EscapedProcesses != 2 || got.StoppedProcesses != 1 || got.Level != v1alpha1.LevelPartial {
		t.Errorf("%d found, %d stopped, level %s", got.EscapedProcesses, got.StoppedProcesses, got.Level)
	}
	w.sayWhy(record, "process 100: no", "1 processes of the pod left its cgroups and run")
}

// TestWhatIsFoundBesideAnErrorIsStopped: a process that could not be looked at does not keep those that could.
func TestWhatIsFoundBesideAnErrorIsStopped(t *testing.T) {
	w := newWorld(t)
	w.strays, w.strayErr = [][]Stray{{{Process: 100, Started: 1}}}, errors.New("process 7: not readable")
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponsePartial, "drop", "freeze", "stop strays", "drop", "hold id-web", "hold id-side")
	w.sayWhy(record, "process 7: not readable")
}

func TestStraysAreStoppedAndTheirNetworksCutOffBeforeTheHolds(t *testing.T) {
	first, second := time.Now().Add(-time.Minute).Truncate(time.Microsecond), time.Now().Truncate(time.Microsecond)
	at := metav1.NewMicroTime(first)
	hook := v1alpha1.Hook{ID: "hook", Verified: true}
	probed := hook
	probed.ProbedAt = &at
	later := v1alpha1.Hook{ID: "hook of the stray", Verified: true}
	tests := map[string]struct {
		second    Dropped
		secondErr error
		level     v1alpha1.ContainmentLevel
		hooks     []v1alpha1.Hook
		at        time.Time
		phase     v1alpha1.ResponsePhase
		drops     []string
	}{
		"reached": {
			Dropped{Level: v1alpha1.LevelFull, ContainedAt: second, Hooks: []v1alpha1.Hook{hook, later}},
			nil,
			v1alpha1.LevelFull,
			[]v1alpha1.Hook{probed, later},
			second, v1alpha1.ResponseSucceeded,
			[]string{"drop"},
		},
		"in part": {
			Dropped{Level: v1alpha1.LevelPartial, ContainedAt: second, Hooks: []v1alpha1.Hook{hook}, Shortfalls: []string{"no"}},
			nil,
			v1alpha1.LevelPartial,
			[]v1alpha1.Hook{probed},
			second, v1alpha1.ResponsePartial,
			[]string{"drop"},
		},
		"not": {
			Dropped{},
			errors.New("no such device"),
			v1alpha1.LevelPartial,
			[]v1alpha1.Hook{probed},
			first, v1alpha1.ResponsePartial,
			[]string{"drop", "drop"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.strays = [][]Stray{{{Process: 100, Started: 1}}, {{Process: 101, Started: 2}}}
			w.attach = func(cut Cut) (Dropped, error) {
				if cut.Probe {
					return Dropped{Level: v1alpha1.LevelFull, ContainedAt: first, Hooks: []v1alpha1.Hook{probed}}, nil
				}
				return tt.second, tt.secondErr
			}
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
			if err != nil {
				t.Fatal(err)
			}
			done := append([]string{"drop", "freeze", "stop strays", "stop strays"}, append(tt.drops, "hold id-web", "hold id-side")...)
			w.demand(record, tt.phase, done...)
			if diff := cmp.Diff([][]int{{10, 11}, {10, 11, 100, 101}}, w.processes[:2]); diff != "" {
				t.Errorf("processes that were cut off (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]Cut{{Probe: true}, {}}, w.cuts[:2]); diff != "" {
				t.Errorf("cuts (-want +got):\n%s", diff)
			}
			got := record.Status.Containment
			if got.Level != tt.level || !got.ContainedAt.Time.Equal(tt.at) {
				t.Errorf("level %s at %v, want %s at %v", got.Level, got.ContainedAt, tt.level, tt.at)
			}
			if diff := cmp.Diff(tt.hooks, got.Hooks); diff != "" {
				t.Errorf("hooks (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWhatAPodChangedBeforeItWasFrozenIsFound: the drop is repeated once the pod stands still.
func TestWhatAPodChangedBeforeItWasFrozenIsFound(t *testing.T) {
	first, second := time.Now().Add(-time.Minute).Truncate(time.Microsecond), time.Now().Add(time.Hour).Truncate(time.Microsecond)
	before, after := metav1.NewMicroTime(first), metav1.NewMicroTime(second)
	old, fresh := v1alpha1.Hook{ID: "old", Verified: true, AttachedAt: &before}, v1alpha1.Hook{ID: "new", Verified: true, AttachedAt: &after}
	once := Dropped{Level: v1alpha1.LevelFull, ContainedAt: first, Hooks: []v1alpha1.Hook{old}}
	tests := map[string]struct {
		first, second Dropped
		level         v1alpha1.ContainmentLevel
		hooks         []v1alpha1.Hook
		at            time.Time
	}{
		"that the hooks work": {
			Dropped{Level: v1alpha1.LevelPolicyOnly, Hooks: []v1alpha1.Hook{{ID: "old", AttachedAt: &before}}},
			Dropped{Level: v1alpha1.LevelFull, ContainedAt: second, Hooks: []v1alpha1.Hook{old}},
			v1alpha1.LevelFull,
			[]v1alpha1.Hook{old},
			second,
		},
		"nothing": {
			once,
			Dropped{Level: v1alpha1.LevelFull, ContainedAt: second, Hooks: []v1alpha1.Hook{old}},
			v1alpha1.LevelFull,
			[]v1alpha1.Hook{old},
			first,
		},
		"a device": {
			once,
			Dropped{Level: v1alpha1.LevelFull, ContainedAt: second, Hooks: []v1alpha1.Hook{old, fresh}},
			v1alpha1.LevelFull,
			[]v1alpha1.Hook{old, fresh},
			second,
		},
		"a way out": {
			once,
			Dropped{Level: v1alpha1.LevelPartial, ContainedAt: second, Hooks: []v1alpha1.Hook{old}, Shortfalls: []string{"a program"}},
			v1alpha1.LevelPartial,
			[]v1alpha1.Hook{old},
			first,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.attach = func(Cut) (Dropped, error) {
				if len(w.done) == 1 {
					return tt.first, nil
				}
				return tt.second, nil
			}
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
			if err != nil {
				t.Fatal(err)
			}
			got := record.Status.Containment
			if got.Level != tt.level || !got.ContainedAt.Time.Equal(tt.at) {
				t.Errorf("level %s at %v, want %s at %v", got.Level, got.ContainedAt, tt.level, tt.at)
			}
			if diff := cmp.Diff(tt.hooks, got.Hooks); diff != "" {
				t.Errorf("hooks (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"drop", "freeze", "drop"}, w.done[:3]); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStraysOfAPodThatRunsAreCutOffAsRunning(t *testing.T) {
	w := newWorld(t)
	w.strays = [][]Stray{{{Process: 100, Started: 1}}}
	if _, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeNever))); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Cut{{Running: true, Probe: true}, {Running: true}}, w.cuts); diff != "" {
		t.Errorf("cuts (-want +got):\n%s", diff)
	}
}

// TestShortfallMakesTheLevelPartial: Full says that nothing was left out, however the processes are stopped.
func TestShortfallMakesTheLevelPartial(t *testing.T) {
	for _, processes := range []v1alpha1.FreezeProcesses{v1alpha1.FreezeUntilReleased, v1alpha1.FreezeDuringCapture, v1alpha1.FreezeNever} {
		t.Run(string(processes), func(t *testing.T) {
			w := newWorld(t)
			w.holdErr = errors.New("no space left")
			record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(processes)))
			if err != nil {
				t.Fatal(err)
			}
			if got := record.Status.Containment.Level; got != v1alpha1.LevelPartial || record.Status.Phase != v1alpha1.ResponsePartial {
				t.Errorf("level %s, phase %s", got, record.Status.Phase)
			}
		})
	}
}

func TestASocketSampleThatDoesNotEndIsGivenUp(t *testing.T) {
	w := newWorld(t)
	over := make(chan struct{})
	defer close(over)
	w.sockets = func() { <-over }
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	w.demand(record, v1alpha1.ResponsePartial, "drop", "freeze", "drop", "hold id-web", "hold id-side")
	w.sayWhy(record, "sockets: not sampled in time")
	if got := record.Status.Containment; got.SocketsBefore != nil || got.SocketsAfter != nil {
		t.Errorf("samples %+v, %+v", got.SocketsBefore, got.SocketsAfter)
	}
}

func TestFreezeDoesNotWaitForTheSocketSample(t *testing.T) {
	w := newWorld(t)
	frozen := make(chan struct{})
	w.onFreeze = sync.OnceFunc(func() { close(frozen) })
	w.sockets = func() {
		select {
		case <-frozen:
		case <-time.After(10 * time.Second):
			t.Error("the freeze waited for the sample")
		}
	}
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	// A freeze that waits for so long as a sample is waited for leaves none.
	if got := record.Status.Containment; got.SocketsBefore == nil {
		t.Errorf("containment %+v", got)
	}
}

func TestFirstSampleIsTakenBesideTheDrop(t *testing.T) {
	w := newWorld(t)
	began := make(chan struct{}, 2)
	w.sockets = func() { began <- struct{}{} }
	w.onDrop = sync.OnceFunc(func() {
		select {
		case <-began:
		case <-time.After(10 * time.Second):
			t.Error("the sample waited for the drop")
		}
	})
	if _, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))); err != nil {
		t.Fatal(err)
	}
}

func TestStraysOfAPodThatIsKeptFrozenAreStopped(t *testing.T) {
	for name, shared := range map[string]error{"own namespace": nil, "shares the node's": ErrSharedNamespace} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.strays, w.strayErr = [][]Stray{{{Process: 100, Started: 1}}}, shared
			if _, err := freezeAgain(context.Background(), w.agent.node, w.pod); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff([]string{"freeze", "stop strays"}, w.done); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
			w.strays, w.failing = [][]Stray{{{Process: 100, Started: 1}}}, map[string]error{"stop strays": errors.New("no")}
			if _, err := freezeAgain(context.Background(), w.agent.node, w.pod); err == nil {
				t.Error("a stray that runs is not told of")
			}
		})
	}
}
