//go:build integration

package integration

import (
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/integration/internal/tree"
)

// Containers of the rich victim, and the folder that the probe plants in both.
const (
	webName   = "web"
	sideName  = "side"
	plantedAt = "/srv/planted"
)

// heldScene is an incident on a pod of two containers that held an established stream; it stays frozen.
func heldScene(tb testing.TB) *scene {
	tb.Helper()
	s := suite.stage(tb, web(webName), idle(sideName))
	for _, container := range []string{webName, sideName} {
		suite.installProbe(tb, s, victimName, container)
		suite.exec(tb, s, victimName, container, "mkdir", "-p", "/srv")
		suite.exec(tb, s, victimName, container, "/tmp/probe", "plant", plantedAt)
	}
	s.outside = suite.receive(tb, s)
	suite.stream(tb, s, webName, s.outside, senders(s.outside, "tcp"))
	suite.stream(tb, s, sideName, s.outside, senders(s.outside, "udp"))
	// What must not get through later gets through now.
	suite.exec(tb, s, receiverName, receiverName, "/tmp/probe", "dial", suite.pod(tb, s.suspect()).Status.PodIP+":80")
	suite.detect(tb, s)
	// Registered before anything can fail, so that the pod is let go whatever the incident does.
	suite.held.scene = s
	suite.await(tb, s, v1alpha1.ConditionUploaded, captureTime)
	return s
}

// releasedScene is an incident on a small pod that an authorised account has acknowledged.
func releasedScene(tb testing.TB) *scene {
	tb.Helper()
	s := suite.stage(tb, idle("only"))
	suite.exec(tb, s, victimName, "only", "sh", "-c", "echo planted > /evidence")
	suite.detect(tb, s)
	suite.released.scene = s
	suite.await(tb, s, v1alpha1.ConditionUploaded, captureTime)
	if err := suite.release(tb.Context(), s); err != nil {
		tb.Fatal(err)
	}
	return s
}

// containerIDs maps the names of a pod's containers to their ids in the runtime.
func (c *cluster) containerIDs(tb testing.TB, key client.ObjectKey) map[string]string {
	tb.Helper()
	pod := c.pod(tb, key)
	ids := map[string]string{}
	for _, status := range pod.Status.ContainerStatuses {
		ids[status.Name] = strings.TrimPrefix(status.ContainerID, "containerd://")
	}
	return ids
}

// liveTree lists a container's root filesystem on its node, as the runtime mounted it.
func (c *cluster) liveTree(tb testing.TB, node, containerID string) tree.Tree {
	tb.Helper()
	lines, err := onNode(tb.Context(), node, c.nodeProbe(tb, node), "list", "/run/containerd/io.containerd.runtime.v2.task/k8s.io/"+containerID+"/rootfs")
	if err != nil {
		tb.Fatal(err)
	}
	listed, err := tree.Read(strings.NewReader(lines))
	if err != nil {
		tb.Fatal(err)
	}
	return listed
}
