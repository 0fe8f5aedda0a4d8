//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// nodeProbePath is where the probe lies on a node while tests run: /run may not be executable.
const nodeProbePath = "/usr/local/bin/forensics-probe"

// onNode runs a command in a node of the kind cluster, which is a container of the local engine.
func onNode(ctx context.Context, node string, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", append([]string{"exec", node}, command...)...).Output() // #nosec G204 -- a node of ours
	if err != nil {
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			err = fmt.Errorf("%w: %s", err, ended.Stderr)
		}
		return "", fmt.Errorf("%s on node %s: %w", strings.Join(command, " "), node, err)
	}
	return string(out), nil
}

// nodeProbe puts the probe on a node, where it stays until all tests are over.
func (c *cluster) nodeProbe(tb testing.TB, node string) string {
	tb.Helper()
	c.opening.Lock()
	defer c.opening.Unlock()
	if c.nodes[node] {
		return nodeProbePath
	}
	if out, err := exec.CommandContext(tb.Context(), "docker", "cp", c.probe, node+":"+nodeProbePath).CombinedOutput(); err != nil { // #nosec G204 -- a node of ours
		tb.Fatalf("copy the probe to %s: %v: %s", node, err, out)
	}
	c.nodes[node] = true
	c.tidyings = append(c.tidyings, func(ctx context.Context) error {
		_, err := onNode(ctx, node, "rm", nodeProbePath)
		return err
	})
	return nodeProbePath
}

// nodeBackground runs the probe on a node until all tests are over. The file name serves to find its process again.
func (c *cluster) nodeBackground(tb testing.TB, node, name, arguments string) {
	tb.Helper()
	binary, file := c.nodeProbe(tb, node), "/run/forensics-"+name
	line := fmt.Sprintf("(echo $BASHPID >%s.pid; exec %s %s) </dev/null >%s.said 2>&1 &", file, binary, arguments, file)
	if _, err := onNode(tb.Context(), node, "bash", "-c", line); err != nil {
		tb.Fatal(err)
	}
	c.opening.Lock()
	defer c.opening.Unlock()
	c.tidyings = append(c.tidyings, func(ctx context.Context) error {
		_, err := onNode(ctx, node, "sh", "-c", "kill $(cat "+file+".pid); rm -f "+file+".*")
		return err
	})
}

// nodeLog is a receiver whose log lies on a node.
func nodeLog(node, name, address string) receiver {
	return receiver{address: address, read: func(ctx context.Context) (string, error) {
		return onNode(ctx, node, "cat", "/run/forensics-"+name+".log")
	}}
}

// receiveOnNode starts a receiver in the node's own network.
func (c *cluster) receiveOnNode(tb testing.TB, node, name, port, address string) receiver {
	tb.Helper()
	c.nodeBackground(tb, node, name, "sink "+port+" /run/forensics-"+name+".log")
	return nodeLog(node, name, address)
}

// pingFromNode has a node ping an address through one of its devices; replies come in under the tag reply.
func (c *cluster) pingFromNode(tb testing.TB, node, name, address, device string) receiver {
	tb.Helper()
	c.nodeBackground(tb, node, name, "ping "+address+" "+device+" /run/forensics-"+name+".log")
	return nodeLog(node, name, address)
}

// hostDevice is the node's side of the victim's eth0.
func (c *cluster) hostDevice(tb testing.TB, s *scene, container string) string {
	tb.Helper()
	index := strings.TrimSpace(c.exec(tb, s, victimName, container, "cat", "/sys/class/net/eth0/iflink"))
	found, err := onNode(tb.Context(), s.victim.Spec.NodeName, "sh", "-c", "grep -lx "+index+" /sys/class/net/*/ifindex")
	if err != nil {
		tb.Fatal(err)
	}
	parts := strings.Split(strings.TrimSpace(found), "/")
	if len(parts) != 6 {
		tb.Fatalf("the device with index %s on the node is %q", index, found)
	}
	return parts[4]
}

// linkLocal finds a device's link-local address in the text of /proc/net/if_inet6; it is not valid when there is none.
func linkLocal(text, device string) netip.Addr {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 6 || fields[5] != device || fields[3] != "20" || len(fields[0]) != 32 {
			continue
		}
		var groups []string
		for i := 0; i < 32; i += 4 {
			groups = append(groups, fields[0][i:i+4])
		}
		if address, err := netip.ParseAddr(strings.Join(groups, ":")); err == nil {
			return address
		}
	}
	return netip.Addr{}
}
