//go:build integration

package integration

import (
	"strings"
	"testing"
	"time"

	"ugallu.io/forensics/api/v1alpha1"
)

// stillness is how long a contained pod is watched after its response says contained. TCP repeats what was not
// acknowledged within 0.2 s, 0.4 s, 0.8 s, 1.6 s, so a leak of an established stream shows in this time.
const stillness = 5 * time.Second

func TestContainmentEstablishedStreamStops(t *testing.T) {
	held := suite.held.get(t, heldScene)
	freeze := suite.responses(t, held)[v1alpha1.StepFreeze]
	containment := freeze.Status.Containment
	if containment == nil || containment.ContainedAt == nil {
		t.Fatalf("podfreeze does not say contained\n%s", suite.account(t.Context(), held))
	}
	contained := containment.ContainedAt.Time
	if wait := time.Until(contained.Add(stillness)); wait > 0 {
		time.Sleep(wait)
	}
	for _, protocol := range []string{"tcp", "udp"} {
		t.Run(protocol, func(t *testing.T) {
			arrivals := suite.mustArrivals(t, held, protocol)
			first, last := arrivals[0], arrivals[len(arrivals)-1]
			if last.at.Before(held.emitted) {
				t.Fatalf("the stream ended %s before the event, so its end proves nothing", held.emitted.Sub(last.at))
			}
			if last.at.After(contained) {
				t.Errorf("a byte arrived %s after containedAt", last.at.Sub(contained))
			}
			t.Logf("%d bytes in %d arrivals over %s; the last %s after the event, %s before containedAt", last.total,
				len(arrivals), last.at.Sub(first.at).Round(time.Millisecond),
				last.at.Sub(held.emitted).Round(time.Millisecond), contained.Sub(last.at).Round(100*time.Microsecond))
			time.Sleep(stillness)
			again := suite.mustArrivals(t, held, protocol)
			if grown := again[len(again)-1].total - last.total; grown != 0 {
				t.Errorf("%d bytes arrived after the pod had been contained", grown)
			}
		})
	}
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
