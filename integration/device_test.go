//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Addresses of a link that is added to a pod after its freeze, from the range that is set aside for tests of networks
// (RFC 2544): nothing else of the cluster has one of them.
const (
	lateNodeAddress = "198.18.77.1"
	latePodAddress  = "198.18.77.2"
	lateNodeMAC     = "02:00:c6:12:4d:01"
	latePodMAC      = "02:00:c6:12:4d:02"
)

// lateLink is a second link between a node and a pod of it.
type lateLink struct {
	node  string
	index string
	// ready is when the pod's side was about to go up.
	ready time.Time
}

// addLink makes the node's side, lets before start what uses it there, and then moves the other side into the pod. Both
// sides know the other's hardware address: what is sent gets through from the first moment on.
func (c *cluster) addLink(tb testing.TB, s *scene, container, device string, before func()) lateLink {
	tb.Helper()
	ctx, node := tb.Context(), s.victim.Spec.NodeName
	tasks, err := tasks(ctx, node)
	if err != nil {
		tb.Fatal(err)
	}
	process := tasks[c.containerIDs(tb, s.suspect())[container]].process
	shell := func(ctx context.Context, script ...string) (string, error) {
		return onNode(ctx, node, "sh", "-ec", strings.Join(script, "\n"))
	}
	tb.Cleanup(func() {
		if _, err := shell(context.WithoutCancel(ctx), "if [ -e /sys/class/net/"+device+" ]; then ip link delete "+device+"; fi"); err != nil {
			tb.Error(err)
		}
	})
	_, err = shell(ctx,
		"ip link add name "+device+" address "+lateNodeMAC+" type veth peer name "+device+"p address "+latePodMAC,
		"ip address add "+lateNodeAddress+"/30 dev "+device,
		"ip link set "+device+" up",
		"ip neighbour replace "+latePodAddress+" lladdr "+latePodMAC+" nud permanent dev "+device)
	if err != nil {
		tb.Fatal(err)
	}
	before()
	inside := "nsenter --target " + process + " --net ip "
	told, err := shell(ctx,
		"ip link set "+device+"p netns "+process+" name "+lateDevice,
		inside+"address add "+latePodAddress+"/30 dev "+lateDevice,
		"date +%s%N",
		inside+"link set "+lateDevice+" up",
		inside+"neighbour replace "+lateNodeAddress+" lladdr "+lateNodeMAC+" nud permanent dev "+lateDevice,
		"cat /sys/class/net/"+device+"/ifindex")
	if err != nil {
		tb.Fatal(err)
	}
	var nanos int64
	link := lateLink{node: node}
	if _, err := fmt.Sscan(told, &nanos, &link.index); err != nil {
		tb.Fatalf("read %q: %v", told, err)
	}
	link.ready = time.Unix(0, nanos)
	return link
}

// awaitCovered waits until both directions of a link are among what keeps the pod cut off, and returns when they were.
func (c *cluster) awaitCovered(tb testing.TB, s *scene, link lateLink) time.Time {
	tb.Helper()
	err := eventually(tb.Context(), time.Minute, func(ctx context.Context) (bool, string, error) {
		listed, err := pins(ctx, s)
		covered := strings.Contains(listed, "ingress-"+link.index+"\n") && strings.Contains(listed, "egress-"+link.index+"\n")
		return covered, listed, err
	})
	if err != nil {
		tb.Fatalf("device %s, added to the pod after its freeze, is not cut off: %v", link.index, err)
	}
	return time.Now()
}

// demandCovered demands that nothing came over a link once it was cut off, and tells how long that took.
func demandCovered(t *testing.T, link lateLink, at receiver, covered time.Time, tag string) {
	t.Helper()
	watchStill(covered)
	f := at.must(t)[tag]
	if late := f.after(covered); late != 0 {
		t.Errorf("%s: %d bytes came after the new link had been cut off, the last one %s after it", tag, late, f.last().Sub(covered))
	}
	if f.total() == 0 {
		t.Logf("%s: nothing came over the new link; it was seen to be cut off %s after it was up", tag, covered.Sub(link.ready))
		return
	}
	t.Logf("%s: time to cover %s, in which %d bytes came over the new link; it was seen to be cut off %s after it was up", tag,
		f.last().Sub(link.ready).Round(100*time.Microsecond), f.total(), covered.Sub(link.ready).Round(time.Millisecond))
}

// TestContainmentLateDeviceOfAFrozenPod gives a frozen pod a second link. Its processes send nothing over it at all; its
// kernel, which nobody freezes, answers pings until the link is cut off.
func TestContainmentLateDeviceOfAFrozenPod(t *testing.T) {
	s := suite.stormy.get(t, stormScene)
	suite.containment(t, s)
	const device = "forensicslate0"
	var answers receiver
	link := suite.addLink(t, s, stormOne, device, func() {
		answers = suite.pingFromNode(t, s.victim.Spec.NodeName, s.namespace+"-late", latePodAddress, device)
	})
	covered := suite.awaitCovered(t, s, link)
	demandCovered(t, link, answers, covered, "reply")
	if sent := suite.storm.onNode.must(t)["late"].total(); sent != 0 {
		t.Errorf("%d bytes of a frozen process came over a link that was added after the freeze", sent)
	}
}
