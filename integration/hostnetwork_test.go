//go:build integration

package integration

import (
	"strings"
	"testing"

	"ugallu.io/forensics/api/v1alpha1"
)

// TestContainmentHostNetwork states what holds for a pod in the node's network: its sockets are cut off, its processes
// are frozen, and the raw frames that it sends in between are the gap that the record names.
func TestContainmentHostNetwork(t *testing.T) {
	pod := newPod(suite.namespace(t), victimName, idle("only"))
	pod.Spec.HostNetwork = true
	s := suite.stagePod(t, pod)
	suite.strikeAfter(t, s)
	suite.installProbe(t, s, victimName, "only")
	s.outside = suite.receive(t, s)
	sockets, frames := []string{"flood", "tcp", "udp", "icmp", "raw"}, []string{"packet", "bypass"}
	suite.stream(t, s, "only", s.outside, senders(s.outside, append(sockets, frames...)...))
	suite.detect(t, s)
	containment := suite.containment(t, s)
	demandCgroupHooks(t, containment)
	freeze := suite.responses(t, s)[v1alpha1.StepFreeze]
	told := describe(freeze.Status.Conditions)
	if containment.Level != v1alpha1.LevelPartial || freeze.Status.Phase != v1alpha1.ResponsePartial {
		t.Errorf("level is %s and podfreeze %s, want both Partial\n%s", containment.Level, freeze.Status.Phase, told)
	}
	if !strings.Contains(told, "node's network") || !strings.Contains(told, "raw frames") {
		t.Errorf("the record does not name the gap: raw frames of a pod in the node's network\n%s", told)
	}
	demandFrozen(t, s, containment)
	t.Run("sockets", func(t *testing.T) {
		demandSilence(t, s, s.outside, containment.ContainedAt.Time, sockets...)
	})
	t.Run("frames", func(t *testing.T) {
		if len(containment.Containers) != 1 || containment.Containers[0].FrozenAt == nil {
			t.Fatalf("containers are %+v, want one that is frozen", containment.Containers)
		}
		demandSilence(t, s, s.outside, containment.Containers[0].FrozenAt.Time, frames...)
	})
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
}

// demandCgroupHooks demands both directions on the pod's cgroup, and nothing on the node's own devices.
func demandCgroupHooks(t *testing.T, containment v1alpha1.Containment) {
	t.Helper()
	directions := map[v1alpha1.HookDirection]bool{}
	for _, hook := range containment.Hooks {
		if hook.Program != v1alpha1.HookCgroupSkb || !hook.Verified {
			t.Errorf("hook %s is a %s on %s, verified %t", hook.ID, hook.Program, hook.Device, hook.Verified)
		}
		directions[hook.Direction] = true
	}
	if len(directions) != 2 {
		t.Errorf("hooks are %+v, want both directions of the pod's cgroup", containment.Hooks)
	}
}
