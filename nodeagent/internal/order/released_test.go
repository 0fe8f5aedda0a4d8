package order

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/v1alpha1"
)

// TestAnAgentThatDiesWithinAReleaseDoesNotContainThePodAgain has it die at each effect of the release, or at its end before
// the node's disk knows of that, and begin again without the API server.
func TestAnAgentThatDiesWithinAReleaseDoesNotContainThePodAgain(t *testing.T) {
	for _, last := range []string{"release id-web", "thaw id-web", "start strays", "detach", ""} {
		w := newWorld(t)
		w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
		if _, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))); err != nil {
			t.Fatal(err)
		}
		release := w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))
		w.held, w.failing = []string{"id-web", "id-side"}, map[string]error{last: errors.New("killed")}
		w.agent.node.Known.replace = dies(w.agent.node.Known.replace)
		if _, err := w.carryOut(release); (err == nil) != (last == "") {
			t.Fatalf("killed at %q: %v", last, err)
		}
		w.agent.node.Known = NewKnown(w.client, filepath.Dir(w.agent.node.Known.journal))
		w.done, w.failing = nil, nil
		if err := (&keeper{node: w.agent.node, pods: w.agent.pods}).look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(w.done, "drop") || slices.Contains(w.done, "freeze") {
			t.Errorf("killed at %q: the pod is contained again: %v", last, w.done)
		}
	}
}

// dies writes the journal once.
func dies(replace func(string, []byte) error) func(string, []byte) error {
	written := false
	return func(path string, content []byte) error {
		if written {
			return errors.New("killed")
		}
		written = true
		return replace(path, content)
	}
}

// TestKeeperLetsAReleasedPodGoThatIsCutOff is about a pod that an agent contained as it was last known.
func TestKeeperLetsAReleasedPodGoThatIsCutOff(t *testing.T) {
	type change = func(*v1alpha1.EventResponse)
	again := []string{"thaw id-web", "thaw id-side", "start strays", "detach"}
	for name, tt := range map[string]struct {
		disposition v1alpha1.Disposition
		keep        bool
		release     []change
		others      func(w *world)
		unpinned    bool
		unreached   bool
		want        []string
	}{
		"released":                 {release: []change{closed(v1alpha1.ResponseSucceeded)}, want: again},
		"released in part":         {release: []change{closed(v1alpha1.ResponsePartial)}, want: again},
		"not cut off":              {release: []change{closed(v1alpha1.ResponseSucceeded)}, unpinned: true},
		"release under way":        {},
		"to stay contained":        {keep: true, release: []change{closed(v1alpha1.ResponseSucceeded)}},
		"to be deleted":            {disposition: v1alpha1.DispositionDelete, release: []change{closed(v1alpha1.ResponseSucceeded)}, want: []string{"drop", "freeze"}},
		"another that is not over": {release: []change{closed(v1alpha1.ResponseSucceeded)}, others: (*world).another, want: []string{"drop", "freeze"}},
		"another that failed, as far as anybody knows": {release: []change{closed(v1alpha1.ResponseSucceeded)}, others: func(w *world) {
			w.incident(anotherName, anotherUID, v1alpha1.FreezeUntilReleased)
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), ofAnother, closed(v1alpha1.ResponseFailed))
		}},
		"another without an order": {release: []change{closed(v1alpha1.ResponseSucceeded)}, others: func(w *world) {
			w.incident(anotherName, anotherUID, v1alpha1.FreezeUntilReleased)
		}},
		"a second attempt under way": {release: []change{closed(v1alpha1.ResponsePartial)}, others: func(w *world) {
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false), func(r *v1alpha1.EventResponse) {
				r.Name, r.UID, r.Spec.Attempt = "a-second-attempt", "uid-second-attempt", 2
			})
		}},
		"the API server is not reached": {release: []change{closed(v1alpha1.ResponseSucceeded)}, unreached: true},
		"another under way": {release: []change{closed(v1alpha1.ResponseSucceeded)}, others: func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), ofAnother, func(r *v1alpha1.EventResponse) {
				r.Status.CompletedAt, r.Status.Phase = nil, ""
			})
		}},
		"another that is not known any more": {release: []change{closed(v1alpha1.ResponseSucceeded)}, others: func(w *world) {
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), ofAnother)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if tt.disposition == "" {
				tt.disposition = v1alpha1.DispositionResume
			}
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
			w.order(v1alpha1.StepUnfreeze, podUnfreeze(tt.disposition, tt.keep), tt.release...)
			if tt.others != nil {
				tt.others(w)
			}
			w.unpinned = tt.unpinned
			if tt.unreached {
				if err := w.agent.node.Known.save(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.agent.node.Known = NewKnown(w.client, filepath.Dir(w.agent.node.Known.journal))
			}
			keeper := &keeper{node: w.agent.node, pods: w.agent.pods}
			if err := keeper.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.done = slices.DeleteFunc(w.done, func(effect string) bool { return strings.HasPrefix(effect, "hold ") })
			if diff := cmp.Diff(tt.want, w.done); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
		})
	}
}

// another incident contains the pod.
func (w *world) another() {
	w.t.Helper()
	w.incident(anotherName, anotherUID, v1alpha1.FreezeUntilReleased)
	w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), ofAnother)
}
