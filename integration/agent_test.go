//go:build integration

package integration

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// agent waits for the ready agent of a node and returns it with the process of its container there.
func (c *cluster) agent(tb testing.TB, node string) (pod corev1.Pod, process string) {
	tb.Helper()
	err := eventually(tb.Context(), 2*time.Minute, func(ctx context.Context) (bool, string, error) {
		var pods corev1.PodList
		if err := c.List(ctx, &pods, client.InNamespace(v1alpha1.NamespacePrivileged)); err != nil {
			return false, "", err
		}
		running, err := tasks(ctx, node)
		if err != nil {
			return false, "", err
		}
		for _, pod = range pods.Items {
			agent := strings.HasPrefix(pod.Name, "ugallu-forensics-nodeagent-") && pod.Spec.NodeName == node
			if !agent || pod.DeletionTimestamp != nil || !ready(pod) || len(pod.Status.ContainerStatuses) != 1 {
				continue
			}
			id := strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "containerd://")
			// Just after its end the pod is still said to be ready.
			process = running[id].process
			return running[id].state == "running", pod.Name + " is " + running[id].state, nil
		}
		return false, "no agent is ready", nil
	})
	if err != nil {
		tb.Fatalf("the agent of %s: %v", node, err)
	}
	return pod, process
}

// armed has the node kill a process as soon as a file appears there. What it returns waits for it and tells when it was.
func (c *cluster) armed(tb testing.TB, node, pattern, process string) (struck func() (time.Time, error)) {
	tb.Helper()
	binary := c.nodeProbe(tb, node)
	type ending struct {
		said string
		err  error
	}
	ended := make(chan ending, 1)
	go func() {
		said, err := onNode(tb.Context(), node, binary, "strike", pattern, process)
		ended <- ending{said, err}
	}()
	return func() (time.Time, error) {
		end := <-ended
		if end.err != nil {
			return time.Time{}, end.err
		}
		nanos, err := strconv.ParseInt(strings.TrimSpace(end.said), 10, 64)
		return time.Unix(0, nanos), err
	}
}

// TestContainmentAgentKilledWhileAttaching kills the agent with SIGKILL at the points of its attach that show on the node.
// Each round is an incident of its own on one pod, which talks again in between.
func TestContainmentAgentKilledWhileAttaching(t *testing.T) {
	s := talkingScene(t)
	folder := "/sys/fs/bpf/ugallu/" + string(s.victim.UID)
	points := []struct{ name, pattern string }{
		{"before the first hook", folder},
		{"after the first hook", folder + "/cgroup-*"},
		{"after a hook of the device", folder + "/tcx-*"},
	}
	for _, point := range points {
		t.Run(point.name, func(t *testing.T) {
			agent, process := suite.agent(t, s.victim.Spec.NodeName)
			began := time.Now()
			if err := s.outside.awaitFlows(t, began, 30*time.Second, talkative...); err != nil {
				t.Fatal(err)
			}
			struck := suite.armed(t, s.victim.Spec.NodeName, point.pattern, process)
			// The killer looks without a pause from when its process runs on the node.
			time.Sleep(time.Second)
			suite.detect(t, s)
			at, err := struck()
			if err != nil {
				t.Fatal(err)
			}
			// Its successor starts at once in a new pod; in the old one the kubelet would make it wait longer each time.
			if err := deletePod(t.Context(), agent); err != nil {
				t.Fatal(err)
			}
			containment := suite.containment(t, s)
			if contained := containment.ContainedAt.Time; contained.Before(at) {
				t.Errorf("the agent was killed %s after containedAt: not in the middle", at.Sub(contained))
			}
			t.Logf("killed %s after the event, contained %s after that", at.Sub(s.emitted), containment.ContainedAt.Sub(at))
			demandContained(t, s, containment)
			letGo(t, s)
		})
	}
}

// demandContained demands that a pod is contained in full.
func demandContained(t *testing.T, s *scene, containment v1alpha1.Containment) {
	t.Helper()
	if containment.Level != v1alpha1.LevelFull {
		t.Errorf("level is %s, want Full\n%s", containment.Level, suite.account(t.Context(), s))
	}
	demandFrozen(t, s, containment)
	demandSilence(t, s, s.outside, containment.ContainedAt.Time, talkative...)
}

// letGo waits for the end of the capture, releases the pod and demands that it talks again.
func letGo(t *testing.T, s *scene) {
	t.Helper()
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	demandRestored(t, s, s.outside, talkative...)
}

// TestContainmentAgentKilledBeforeAndAfter kills the agent just before the event, and again when the pod is contained,
// and then deletes it.
func TestContainmentAgentKilledBeforeAndAfter(t *testing.T) {
	s := talkingScene(t)
	node := s.victim.Spec.NodeName
	_, process := suite.agent(t, node)
	if _, err := onNode(t.Context(), node, "kill", "-9", process); err != nil {
		t.Fatal(err)
	}
	suite.detect(t, s)
	containment := suite.containment(t, s)
	demandContained(t, s, containment)
	agent, process := suite.agent(t, node)
	_, err := onNode(t.Context(), node, "kill", "-9", process)
	if err := errors.Join(err, deletePod(t.Context(), agent)); err != nil {
		t.Fatal(err)
	}
	t.Log("the agent is gone; hooks in place:\n" + demandPins(t, s))
	watchStill(time.Now())
	demandContained(t, s, containment)
	suite.agent(t, node)
	demandContained(t, s, containment)
	letGo(t, s)
}

// demandPins demands hooks on the pod's cgroup and on its device, and returns their names.
func demandPins(t *testing.T, s *scene) string {
	t.Helper()
	listed, err := pins(t.Context(), s)
	if err != nil || !strings.Contains(listed, "cgroup-") || strings.Count(listed, "tcx-") < 2 {
		t.Errorf("what keeps the pod cut off is %s (%v)", listed, err)
	}
	return listed
}
