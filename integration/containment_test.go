//go:build integration

package integration

import (
	"strings"
	"testing"

	"ugallu.io/forensics/api/v1alpha1"
)

func TestContainmentEstablishedStreamStops(t *testing.T) {
	held := suite.held.get(t, heldScene)
	containment := suite.containment(t, held)
	demandSilence(t, held, held.outside, containment.ContainedAt.Time, "tcp", "udp")
}

func TestContainmentNothingEnters(t *testing.T) {
	held := suite.held.get(t, heldScene)
	address := suite.pod(t, held.suspect()).Status.PodIP + ":80"
	said := suite.refused(t, "-n", held.namespace, "exec", receiverName, "--", "/tmp/probe", "dial", address)
	// The probe ran and its dial ran out of time: nothing else that can go wrong says so.
	if !strings.Contains(said, "i/o timeout") {
		t.Errorf("the dial ended with %s, want a timeout", said)
	}
}

func TestContainmentIsVerified(t *testing.T) {
	held := suite.held.get(t, heldScene)
	freeze := suite.responses(t, held)[v1alpha1.StepFreeze]
	containment := freeze.Status.Containment
	if freeze.Status.Phase != v1alpha1.ResponseSucceeded || containment == nil || containment.Level != v1alpha1.LevelFull {
		t.Fatalf("podfreeze is %q with containment %+v\n%s", freeze.Status.Phase, containment, describe(freeze.Status.Conditions))
	}
	programs := map[v1alpha1.HookProgram]int{}
	for _, hook := range containment.Hooks {
		programs[hook.Program]++
		if !hook.Verified || hook.AttachedAt == nil || hook.AttachedAt.After(containment.ContainedAt.Time) {
			t.Errorf("hook %s: verified %t, attached %v, contained %v", hook.ID, hook.Verified, hook.AttachedAt, containment.ContainedAt)
		}
	}
	if programs[v1alpha1.HookCgroupSkb] < 2 || programs[v1alpha1.HookTcx]+programs[v1alpha1.HookClsact] < 2 {
		t.Errorf("hooks are %v, want both directions on the cgroup and on the device", programs)
	}
	names := map[string]bool{}
	for _, container := range containment.Containers {
		names[container.Name] = container.FrozenAt != nil && container.HeldAt != nil
	}
	if !names[webName] || !names[sideName] {
		t.Errorf("frozen and held are %v, want %s and %s", names, webName, sideName)
	}
}
