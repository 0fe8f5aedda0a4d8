package order

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// TestFrozenContainerIsNotSaidToGoOnUnlessItDoes has the thaw of one container find nothing to set going.
func TestFrozenContainerIsNotSaidToGoOnUnlessItDoes(t *testing.T) {
	tests := map[string]struct {
		cgroup string
		still  bool
		// frozen by podfreeze; ended says that it does not run any more at the second look.
		frozen, ended bool
		phase         v1alpha1.ResponsePhase
		why           string
	}{
		"its cgroup is not known":     {"", false, true, false, v1alpha1.ResponsePartial, "container web was frozen, and its cgroup is not known any more"},
		"it is elsewhere":             {"/cgroup/pod/web", true, true, false, v1alpha1.ResponsePartial, "container web was frozen, and nothing is in its cgroup any more"},
		"it froze a part of itself":   {"/cgroup/pod/web", false, true, false, v1alpha1.ResponseSucceeded, "container web is set going, but what it froze of itself is not"},
		"it ended":                    {"/cgroup/pod/web", true, true, true, v1alpha1.ResponseSucceeded, "1 containers thawed"},
		"it was never frozen":         {"", false, false, false, v1alpha1.ResponseSucceeded, "1 containers thawed"},
		"it was never frozen, v2 too": {"/cgroup/pod/web", true, false, false, v1alpha1.ResponseSucceeded, "1 containers thawed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.agent.node.Freeze = empty{Freezer: w, id: "id-web", still: tt.still}
			w.pod.Containers[0].Cgroup = tt.cgroup
			at := metav1.NowMicro()
			web, side := v1alpha1.ContainerFreeze{ContainerID: "id-web", Name: "web"}, v1alpha1.ContainerFreeze{ContainerID: "id-side", Name: "side", FrozenAt: &at}
			if tt.frozen {
				web.FrozenAt = &at
			}
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded), func(r *v1alpha1.EventResponse) {
				r.Status.Containment = &v1alpha1.Containment{Containers: []v1alpha1.ContainerFreeze{web, side}}
			})
			looks := 0
			w.find = func(context.Context, string) error {
				if looks++; looks == 2 && tt.ended {
					w.pod.Containers = []Container{{ID: "id-web", Name: "web"}, w.pod.Containers[1]}
				}
				return nil
			}
			record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
			if err != nil {
				t.Fatal(err)
			}
			w.demand(record, tt.phase, "release id-web", "release id-side", "thaw id-side", "start strays", "detach")
			w.sayWhy(record, tt.why)
			got := record.Status.Containment.Containers
			if len(got) != 2 || got[0].ThawedAt != nil || got[1].ThawedAt == nil {
				t.Errorf("containers %+v", got)
			}
		})
	}
}
