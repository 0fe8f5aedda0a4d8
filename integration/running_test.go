//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"ugallu.io/forensics/api/v1alpha1"
)

// alive is how long a pod that is cut off has to answer its probes: ten times as long as it takes to have it killed.
const alive = 30 * time.Second

// TestContainmentOfARunningPodLetsOnlyProbesThrough cuts a pod off whose processes go on, at once or after the capture: the
// kubelet finds it healthy, and nobody else gets a byte in or out.
func TestContainmentOfARunningPodLetsOnlyProbesThrough(t *testing.T) {
	for _, processes := range []v1alpha1.FreezeProcesses{v1alpha1.FreezeNever, v1alpha1.FreezeDuringCapture} {
		t.Run(string(processes), func(t *testing.T) { containRunning(t, processes) })
	}
}

func containRunning(t *testing.T, processes v1alpha1.FreezeProcesses) {
	restore := freezing(t, processes)
	s := &scene{namespace: suite.namespace(t)}
	s.outside = suite.receive(t, s)
	startWithProbe(t, s, livingPod(s, 10))
	suite.strikeAfter(t, s)
	if err := s.outside.awaitFlows(t, time.Time{}, 30*time.Second, "life"); err != nil {
		t.Fatal(err)
	}
	before := restarts(t, s)
	suite.detect(t, s)
	containment := suite.containment(t, s)
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	if wanted := level(processes); containment.Level != wanted {
		t.Errorf("level is %s, want %s\n%s", containment.Level, wanted, suite.account(t.Context(), s))
	}
	cutOff := containment.ContainedAt.Time
	restore()
	t.Parallel() // from here on it mostly waits
	end := time.Now().Add(alive)
	demandUnreachable(t, s)
	time.Sleep(time.Until(end))
	demandSilence(t, s, s.outside, cutOff, "life")
	if pod := suite.pod(t, s.suspect()); restarts(t, s) != before || !ready(pod) {
		t.Errorf("%d restarts, before the event %d; ready %t", restarts(t, s), before, ready(pod))
	}
	demandUnreachable(t, s)
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	demandRestored(t, s, s.outside, "life")
}

// level of a pod whose device is cut off.
func level(processes v1alpha1.FreezeProcesses) v1alpha1.ContainmentLevel {
	if processes == v1alpha1.FreezeNever {
		return v1alpha1.LevelPartial
	}
	return v1alpha1.LevelFull
}

// freezing sets what incidents do to processes, until restore is called or the test ends.
func freezing(t *testing.T, processes v1alpha1.FreezeProcesses) (restore func()) {
	t.Helper()
	set := func(ctx context.Context, processes v1alpha1.FreezeProcesses) error {
		patch := fmt.Sprintf(`{"spec":{"freeze":{"processes":%q}}}`, processes)
		_, err := suite.run(ctx, "patch", "forensicsconfig", "default", "--type=merge", "-p", patch)
		return err
	}
	if err := set(t.Context(), processes); err != nil {
		t.Fatal(err)
	}
	restore = sync.OnceFunc(func() {
		if err := set(context.WithoutCancel(t.Context()), v1alpha1.FreezeUntilReleased); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(restore)
	return restore
}

func restarts(t *testing.T, s *scene) (count int32) {
	t.Helper()
	for _, status := range suite.pod(t, s.suspect()).Status.ContainerStatuses {
		count += status.RestartCount
	}
	return count
}

// demandUnreachable has another pod and the node try the port that the kubelet's probes get through to.
func demandUnreachable(t *testing.T, s *scene) {
	t.Helper()
	address := fmt.Sprintf("%s:%d", suite.pod(t, s.suspect()).Status.PodIP, livePort)
	said := suite.refused(t, "-n", s.namespace, "exec", receiverName, "--", "/tmp/probe", "dial", address)
	if !strings.Contains(said, "i/o timeout") {
		t.Errorf("another pod's dial ended with %s, want a timeout", said)
	}
	binary := suite.nodeProbe(t, s.victim.Spec.NodeName)
	if out, err := onNode(t.Context(), s.victim.Spec.NodeName, binary, "dial", address); err == nil || !strings.Contains(err.Error(), "i/o timeout") {
		t.Errorf("the node's dial ended with %s, %v, want a timeout", out, err)
	}
}
