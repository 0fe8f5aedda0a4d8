//go:build integration

package integration

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// Containers of the pod that tries every way out at once, and the folder that they share.
const (
	stormOne  = "one"
	stormTwo  = "two"
	sharedDir = "/shared"
)

// stormNodePort is where the storm's node counts; lateDevice is a device of the pod that comes after the freeze.
const (
	stormNodePort = "9001"
	lateDevice    = "eth9"
)

// storm is what is known of the stormy scene beside the scene itself.
type storm struct {
	// sctp: the kernel has it. linkLocal: the pod's device has such an address.
	sctp, linkLocal bool
	// onNode counts in the network of the victim's node; answers counts the replies of the victim's kernel to pings from
	// its node, answers6 those by IPv6.
	onNode, answers, answers6 receiver
}

// outsideKinds of sender reach the receiver's pod.
func (s storm) outsideKinds() []string {
	kinds := []string{"flood", "tcp", "mptcp", "udp", "icmp", "ping", "raw", "packet", "bypass"}
	if s.sctp {
		kinds = append(kinds, "sctp")
	}
	return kinds
}

// stormScene is an incident on a pod that sends in every way that is known to pass some kind of wall. It stays frozen.
func stormScene(tb testing.TB) *scene {
	tb.Helper()
	one, two := idle(stormOne), idle(stormTwo)
	one.VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: sharedDir}}
	two.VolumeMounts = one.VolumeMounts
	pod := newPod(suite.namespace(tb), victimName, one, two)
	pod.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ping_group_range", Value: "0 2147483647"}},
	}
	s := suite.stagePod(tb, pod)
	suite.installProbe(tb, s, victimName, stormOne)
	suite.installProbe(tb, s, victimName, stormTwo)
	s.outside = suite.receive(tb, s)
	suite.storm.sctp = suite.exec(tb, s, victimName, stormOne, "/tmp/probe", "sctp") == "true\n"
	handOver(tb, s)
	crossNode(tb, s)
	suite.stream(tb, s, stormOne, s.outside, senders(s.outside, suite.storm.outsideKinds()...))
	suite.detect(tb, s)
	// Registered before anything can fail, so that the pod is let go whatever the incident does.
	suite.stormy.scene = s
	suite.await(tb, s, v1alpha1.ConditionUploaded, captureTime)
	return s
}

// handedTags are those of the sockets that are handed over.
var handedTags = []string{"handed-tcp", "handed-udp"}

// handOver has the first container open sockets that only the second one holds from then on.
func handOver(tb testing.TB, s *scene) {
	tb.Helper()
	path := sharedDir + "/hand"
	suite.background(tb, s, victimName, stormTwo, "/tmp/probe take "+path)
	suite.exec(tb, s, victimName, stormTwo, "sh", "-c", "until [ -S "+path+" ]; do sleep 0.1; done")
	suite.exec(tb, s, victimName, stormOne, "/tmp/probe", "give", path, s.outside.address)
	suite.getThrough(tb, s, stormTwo, s.outside, handedTags...)
}

// crossNode starts what goes between the pod and its own node: pings, and senders to the link-local address of the node's
// side. A tap on that device would see packets before they are dropped, so sockets in the node's network receive.
func crossNode(tb testing.TB, s *scene) {
	tb.Helper()
	node, key := s.victim.Spec.NodeName, s.namespace
	device := suite.hostDevice(tb, s, stormOne)
	suite.storm.answers = suite.pingFromNode(tb, node, key+"-4", s.victim.Status.PodIP, device)
	suite.storm.onNode = suite.receiveOnNode(tb, node, key+"-sink", stormNodePort, "")
	waiting := sender("udp", lateNodeAddress+":"+stormNodePort, "late") + " " + lateDevice
	suite.background(tb, s, victimName, stormOne, waiting)
	here, there := stormLinkLocal(tb, s, device)
	if suite.storm.linkLocal = here.IsValid() && there.IsValid(); !suite.storm.linkLocal {
		return
	}
	suite.storm.answers6 = suite.pingFromNode(tb, node, key+"-6", here.String()+"%"+device, device)
	address := there.String() + "%eth0"
	suite.stream(tb, s, stormOne, suite.storm.onNode, map[string]string{
		"udp6":  sender("udp", "["+address+"]:"+stormNodePort, "udp6"),
		"icmp6": sender("icmp", address, "icmp6"),
	})
}

// stormLinkLocal are the link-local addresses of the pod's and the node's side, not valid where there is none.
func stormLinkLocal(tb testing.TB, s *scene, device string) (pod, node netip.Addr) {
	tb.Helper()
	inPod := suite.exec(tb, s, victimName, stormOne, "cat", "/proc/net/if_inet6")
	outside, err := onNode(tb.Context(), s.victim.Spec.NodeName, "cat", "/proc/net/if_inet6")
	if err != nil {
		tb.Fatal(err)
	}
	return linkLocal(inPod, "eth0"), linkLocal(outside, device)
}

func TestContainmentEveryWayOut(t *testing.T) {
	s := suite.stormy.get(t, stormScene)
	containment := suite.containment(t, s)
	if containment.Level != v1alpha1.LevelFull {
		t.Errorf("level is %s, want Full\n%s", containment.Level, suite.account(t.Context(), s))
	}
	demandFrozen(t, s, containment)
	tags := append(suite.storm.outsideKinds(), handedTags...)
	demandSilence(t, s, s.outside, containment.ContainedAt.Time, tags...)
	if !suite.storm.sctp {
		t.Log("not run: SCTP, which this kernel has not")
	}
}

func TestContainmentLinkLocal(t *testing.T) {
	s := suite.stormy.get(t, stormScene)
	if !suite.storm.linkLocal {
		t.Log("not run: IPv6, for which the pod's device has no address")
		return
	}
	demandSilence(t, s, suite.storm.onNode, suite.containment(t, s).ContainedAt.Time, "udp6", "icmp6")
}

// TestContainmentKernelDoesNotAnswer pings the frozen pod from its node: the pod's kernel answers for it.
func TestContainmentKernelDoesNotAnswer(t *testing.T) {
	s := suite.stormy.get(t, stormScene)
	since := suite.containment(t, s).ContainedAt.Time
	t.Run("IPv4", func(t *testing.T) { demandSilence(t, s, suite.storm.answers, since, "reply") })
	if !suite.storm.linkLocal {
		t.Log("not run: IPv6, for which the pod's device has no address")
		return
	}
	t.Run("IPv6", func(t *testing.T) { demandSilence(t, s, suite.storm.answers6, since, "reply") })
}

// allowAll lets every pod of its namespace do everything, as far as network policies go.
const allowAll = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-all, namespace: %s}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}
`

// TestContainmentPolicyIsNotWhatHolds takes away, as the cluster's administrator, what the API server can be asked for.
func TestContainmentPolicyIsNotWhatHolds(t *testing.T) {
	s := suite.stormy.get(t, stormScene)
	since := suite.containment(t, s).ContainedAt.Time
	for _, attempt := range [][]string{
		{"delete", "networkpolicies", "--all"},
		{"label", "pod", victimName, v1alpha1.LabelFrozen + "-"},
	} {
		// Refused or repaired: either will do.
		out, err := suite.run(t.Context(), append([]string{"-n", s.namespace}, attempt...)...)
		t.Logf("%s: %s%v", strings.Join(attempt, " "), out, err)
	}
	if _, err := suite.apply(t.Context(), fmt.Sprintf(allowAll, s.namespace)); err != nil {
		t.Fatal(err)
	}
	watchStill(time.Now())
	demandSilence(t, s, s.outside, since, append(suite.storm.outsideKinds(), handedTags...)...)
	demandPaused(t, s)
	demandRepaired(t, s)
}

// demandRepaired waits until the label and our policy stand, whether they had been refused to go or were put back.
func demandRepaired(t *testing.T, s *scene) {
	t.Helper()
	err := eventually(t.Context(), time.Minute, func(ctx context.Context) (bool, string, error) {
		policies, err := suite.run(ctx, "-n", s.namespace, "get", "networkpolicies", "-o", "name")
		if err != nil {
			return false, "", err
		}
		label := suite.pod(t, s.suspect()).Labels[v1alpha1.LabelFrozen]
		return label != "" && strings.Contains(policies, string(s.victim.UID)), fmt.Sprintf("label %q, policies %s", label, policies), nil
	})
	if err != nil {
		t.Errorf("label and policy do not stand: %v", err)
	}
}
