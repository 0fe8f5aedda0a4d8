//go:build integration

package integration

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// receiverName is the pod that counts what the victim sends.
const receiverName = "receiver"

// sinkPort and sinkLog are where the receiver listens and notes each arrival.
const (
	sinkPort = "9000"
	sinkLog  = "/tmp/arrivals"
)

// arrival is one line of the receiver's log. Pods of this cluster share one kernel and so one clock with the node
// agents, which makes its time comparable with what a response says.
type arrival struct {
	at    time.Time
	total int
}

// receive starts a receiver in its own pod and returns its address.
func (c *cluster) receive(tb testing.TB, s *scene) string {
	tb.Helper()
	c.startPod(tb, s.namespace, receiverName, idle(receiverName))
	c.installProbe(tb, s, receiverName, receiverName)
	c.background(tb, s, receiverName, receiverName, "/tmp/probe sink "+sinkPort+" "+sinkLog)
	pod := c.pod(tb, client.ObjectKey{Namespace: s.namespace, Name: receiverName})
	return pod.Status.PodIP + ":" + sinkPort
}

// installProbe puts the probe into a container through its shell.
func (c *cluster) installProbe(tb testing.TB, s *scene, pod, container string) {
	tb.Helper()
	binary, err := os.Open(c.probe)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := binary.Close(); err != nil {
			tb.Error(err)
		}
	}()
	_, err = c.runWith(tb.Context(), binary, "-n", s.namespace, "exec", "-i", pod, "-c", container, "--",
		"sh", "-c", "cat > /tmp/probe && chmod 755 /tmp/probe")
	if err != nil {
		tb.Fatal(err)
	}
}

// background starts a command in a container that outlives the exec session.
func (c *cluster) background(tb testing.TB, s *scene, pod, container, command string) {
	tb.Helper()
	c.exec(tb, s, pod, container, "sh", "-c", command+" </dev/null >/dev/null 2>&1 &")
}

// stream opens an upload from the victim and waits until its bytes arrive.
func (c *cluster) stream(tb testing.TB, s *scene, container, protocol, address string) {
	tb.Helper()
	c.background(tb, s, victimName, container, "/tmp/probe send "+protocol+" "+address)
	err := eventually(tb.Context(), 20*time.Second, func(ctx context.Context) (bool, string, error) {
		arrivals, err := c.arrivals(ctx, s, protocol)
		return len(arrivals) > 100, fmt.Sprintf("%d arrivals", len(arrivals)), err
	})
	if err != nil {
		tb.Fatalf("the %s stream did not start: %v", protocol, err)
	}
}

// arrivals reads the receiver's log of one protocol.
func (c *cluster) arrivals(ctx context.Context, s *scene, protocol string) ([]arrival, error) {
	log, err := c.run(ctx, "-n", s.namespace, "exec", receiverName, "--", "cat", sinkLog)
	if err != nil {
		return nil, err
	}
	var found []arrival
	lines := bufio.NewScanner(strings.NewReader(log))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || fields[1] != protocol {
			continue
		}
		nanos, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			continue // The last line may be half written.
		}
		total, err := strconv.Atoi(fields[2])
		if err != nil {
			continue
		}
		found = append(found, arrival{at: time.Unix(0, nanos), total: total})
	}
	return found, lines.Err()
}

// mustArrivals is arrivals for a test that has a stream running.
func (c *cluster) mustArrivals(tb testing.TB, s *scene, protocol string) []arrival {
	tb.Helper()
	found, err := c.arrivals(tb.Context(), s, protocol)
	if err != nil {
		tb.Fatal(err)
	}
	if len(found) == 0 {
		tb.Fatalf("nothing ever arrived over %s", protocol)
	}
	return found
}
