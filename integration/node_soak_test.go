//go:build integration && soak

package integration

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// The control plane's node, where the kubelet runs the API server for as long as its manifest is in the folder.
const (
	serverManifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
	awayManifest   = "/etc/kubernetes/kube-apiserver.yaml"
	// shortGrace is autoUnfreezeAfter while the API server is away; guardPatience is what the agent waits longer.
	shortGrace    = 90 * time.Second
	guardPatience = 30 * time.Second
)

// controlPlane is the name of the node with the API server.
func (c *cluster) controlPlane(tb testing.TB) string {
	tb.Helper()
	var nodes corev1.NodeList
	if err := c.List(tb.Context(), &nodes, client.HasLabels{"node-role.kubernetes.io/control-plane"}); err != nil || len(nodes.Items) != 1 {
		tb.Fatalf("find the control plane's node: %v, %d nodes", err, len(nodes.Items))
	}
	return nodes.Items[0].Name
}

// nodeAddress is the node's address in the cluster's network.
func (c *cluster) nodeAddress(tb testing.TB, name string) string {
	tb.Helper()
	var node corev1.Node
	c.look(tb, client.ObjectKey{Name: name}, &node)
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return address.Address
		}
	}
	tb.Fatalf("node %s has no internal address: %v", name, node.Status.Addresses)
	return ""
}

// serverAway takes the API server away and returns what brings it back, which happens in any case.
func (c *cluster) serverAway(tb testing.TB) (back func(ctx context.Context) error) {
	tb.Helper()
	node := c.controlPlane(tb)
	if _, err := onNode(tb.Context(), node, "mv", serverManifest, awayManifest); err != nil {
		tb.Fatal(err)
	}
	back = func(ctx context.Context) error {
		if _, err := onNode(ctx, node, "sh", "-c", fmt.Sprintf("[ ! -e %[1]s ] || mv %[1]s %[2]s", awayManifest, serverManifest)); err != nil {
			return err
		}
		return eventually(ctx, 3*time.Minute, func(ctx context.Context) (bool, string, error) {
			var nodes corev1.NodeList
			err := c.List(ctx, &nodes)
			return err == nil, fmt.Sprint(err), nil
		})
	}
	tb.Cleanup(func() {
		if err := back(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	err := eventually(tb.Context(), time.Minute, func(ctx context.Context) (bool, string, error) {
		var nodes corev1.NodeList
		err := c.List(ctx, &nodes)
		return err != nil, "the API server answers", nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return back
}

// TestContainmentHoldsAndEndsWithoutTheAPIServer takes the API server away from a contained pod, then ends the agent: the one
// that starts after that knows of the pod from its node alone, keeps it, and lets it go in time.
func TestContainmentHoldsAndEndsWithoutTheAPIServer(t *testing.T) {
	short := strings.Replace(recipeConfig, "autoUnfreezeAfter: 4h", "autoUnfreezeAfter: "+shortGrace.String(), 1)
	if _, err := suite.apply(t.Context(), short); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := suite.apply(context.WithoutCancel(t.Context()), recipeConfig); err != nil {
			t.Error(err)
		}
	})
	s := suite.stage(t, idle("only"))
	suite.strikeAfter(t, s)
	suite.installProbe(t, s, victimName, "only")
	node := s.victim.Spec.NodeName
	s.outside = suite.receiveOnNode(t, node, "away", "9107", suite.nodeAddress(t, node)+":9107")
	suite.stream(t, s, "only", s.outside, senders(s.outside, "udp"))
	suite.detect(t, s)
	containment := suite.containment(t, s)
	incident := suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	if incident.Status.UnfreezeAt == nil {
		incident = suite.awaitUnfreezeAt(t, s)
	}
	time.Sleep(15 * time.Second) // the agent's look, which writes down what it knows, comes every 10 s
	_, process := suite.agent(t, node)
	back := suite.serverAway(t)
	if _, err := onNode(t.Context(), node, "kill", "-9", process); err != nil {
		t.Fatal(err)
	}
	let := incident.Status.UnfreezeAt.Add(guardPatience)
	time.Sleep(time.Until(let.Add(-5 * time.Second)))
	if late := s.outside.must(t)["udp"].after(containment.ContainedAt.Time); late != 0 {
		t.Errorf("%d bytes arrived before the pod's time was up", late)
	}
	if err := s.outside.awaitFlows(t, let, 90*time.Second, "udp"); err != nil {
		t.Errorf("the pod was not let go without the API server: %v", err)
	}
	if err := back(t.Context()); err != nil {
		t.Fatal(err)
	}
	suite.await(t, s, v1alpha1.ConditionReleased, 4*time.Minute)
	demandRestored(t, s, s.outside, "udp")
}

func (c *cluster) awaitUnfreezeAt(tb testing.TB, s *scene) (incident v1alpha1.Incident) {
	tb.Helper()
	err := eventually(tb.Context(), captureTime, func(ctx context.Context) (bool, string, error) {
		err := c.Get(ctx, client.ObjectKey{Name: s.incident}, &incident)
		return err == nil && incident.Status.UnfreezeAt != nil, "no unfreezeAt", err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return incident
}

// synced is how long after its restart the kubelet has looked at every pod of its node: each has its turn within a minute.
const synced = time.Minute

// TestContainmentOutlivesTheKubelet restarts the kubelet alone under a contained pod. The same containers stand still when it
// has looked at all of its pods.
func TestContainmentOutlivesTheKubelet(t *testing.T) {
	s := talkingScene(t)
	suite.detect(t, s)
	containment := suite.containment(t, s)
	demandFrozen(t, s, containment)
	before := suite.vitals(t, s)
	node := s.victim.Spec.NodeName
	if _, err := onNode(t.Context(), node, "systemctl", "restart", "kubelet"); err != nil {
		t.Fatal(err)
	}
	restarted := time.Now()
	suite.must(t, "wait", "node/"+node, "--for=condition=Ready", "--timeout=80s")
	if _, err := onNode(t.Context(), node, "systemctl", "is-active", "kubelet"); err != nil {
		t.Fatal(err)
	}
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	watchStill(restarted.Add(synced - stillness))
	demandSilence(t, s, s.outside, containment.ContainedAt.Time, talkative...)
	demandPaused(t, s)
	demandUntouched(t, s, before)
	letGoAtLast(t, s)
}

// powerLoss ends every container at once, frozen or not, and what would start them again, as a machine that loses its power
// does. The engine cannot: a process that is frozen in the v1 freezer ends once it is thawed, and dies before it runs.
const powerLoss = `systemctl stop kubelet containerd
for procs in $(find /sys/fs/cgroup -path '*kubepods*' -name cgroup.procs); do
	for process in $(cat $procs); do kill -9 $process; done
done
for state in $(find /sys/fs/cgroup -path '*kubepods*' -name freezer.state); do echo THAWED > $state; done`

// awaitWebhook waits until the webhook, whose pod may have been on the node, refuses an acknowledgement of ours.
func (c *cluster) awaitWebhook(tb testing.TB, s *scene) {
	tb.Helper()
	err := eventually(tb.Context(), 2*time.Minute, func(ctx context.Context) (bool, string, error) {
		_, err := c.run(ctx, "annotate", "securityevent", "se-"+s.incident+"-completed", v1alpha1.AnnotationAcknowledged+"=true")
		if err == nil {
			return false, "", errors.New("an account that may not acknowledge did")
		}
		return strings.Contains(err.Error(), "may not acknowledge"), err.Error(), nil
	})
	if err != nil {
		tb.Fatalf("the webhook does not answer: %v", err)
	}
}

// TestContainmentIsRestoredAfterTheNodeRestarts restarts the node of a contained pod: its containers are new ones, which
// send as they start. How long they do until the agent is there is logged; from then on nothing comes.
func TestContainmentIsRestoredAfterTheNodeRestarts(t *testing.T) {
	s := &scene{namespace: suite.namespace(t)}
	control := suite.controlPlane(t)
	s.outside = suite.receiveOnNode(t, control, "restart", "9108", suite.nodeAddress(t, control)+":9108")
	one, side := idle("only"), idle(sideName)
	side.VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: sharedDir}}
	one.VolumeMounts = side.VolumeMounts
	probe := sharedDir + "/probe"
	one.Command = []string{"sh", "-c", fmt.Sprintf("until [ -x %[1]s ]; do sleep 0.1; done; exec %[1]s send udp %[2]s life", probe, s.outside.address)}
	pod := newPod(s.namespace, victimName, one, side)
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	pod.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	startWithProbe(t, s, pod)
	suite.strikeAfter(t, s)
	if err := s.outside.awaitFlows(t, time.Time{}, 30*time.Second, "life"); err != nil {
		t.Fatal(err)
	}
	suite.detect(t, s)
	containment := suite.containment(t, s)
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	demandSilence(t, s, s.outside, containment.ContainedAt.Time, "life")
	suite.leaveStore(t)
	if out, err := onNode(t.Context(), s.victim.Spec.NodeName, "sh", "-c", powerLoss); err != nil {
		t.Fatalf("end what runs on the node: %v: %s", err, out)
	}
	restarted := time.Now()
	if out, err := exec.CommandContext(t.Context(), "docker", "restart", s.victim.Spec.NodeName).CombinedOutput(); err != nil { // #nosec G204 -- a node of ours
		t.Fatalf("restart the node: %v: %s", err, out)
	}
	suite.must(t, "wait", "node/"+s.victim.Spec.NodeName, "--for=condition=Ready", "--timeout=80s")
	suite.agent(t, s.victim.Spec.NodeName)
	demandPaused(t, s)
	covered := time.Now()
	watchStill(covered)
	sent := s.outside.must(t)["life"]
	if late := sent.after(covered); late != 0 {
		t.Errorf("%d bytes arrived after the agent had restored the containment", late)
	}
	t.Logf("%d bytes arrived after the restart of the node, the last one %s after it", sent.after(restarted), sent.last().Sub(restarted).Round(time.Millisecond))
	suite.awaitWebhook(t, s)
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}
