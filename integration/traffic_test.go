//go:build integration

package integration

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// receiverName is the pod that counts what the victim sends.
const receiverName = "receiver"

// sinkPort and sinkLog are where the receiver listens and notes what arrives.
const (
	sinkPort = "9000"
	sinkLog  = "/tmp/arrivals"
	saidLog  = "/tmp/said"
)

// enough bytes of a sender show that it gets through: twenty of the probe's messages.
const enough = 20 * 64

// arrival is one line of a receiver's log about one sender: when the last byte so far came, and how many in all. The time
// is the kernel's, when it took the packet from the device. Pods of this cluster share one kernel and so one clock with
// the node agents, which makes it comparable with what a response says.
type arrival struct {
	at    time.Time
	total int
}

// flow is everything that is logged of one sender, in order.
type flow []arrival

// total, first and last are zero when nothing arrived. First is the end of the first slice of time that is logged.
func (f flow) total() int {
	if len(f) == 0 {
		return 0
	}
	return f[len(f)-1].total
}

func (f flow) first() time.Time {
	if len(f) == 0 {
		return time.Time{}
	}
	return f[0].at
}

func (f flow) last() time.Time {
	if len(f) == 0 {
		return time.Time{}
	}
	return f[len(f)-1].at
}

// after is how many bytes arrived later than a time of the API, which has whole microseconds. Some of those that came just
// before it are counted as well, when others of the same slice came after it.
func (f flow) after(at time.Time) int {
	before := 0
	for _, arrival := range f {
		if !arrival.at.After(at.Add(time.Microsecond)) {
			before = arrival.total
		}
	}
	return f.total() - before
}

// receiver is a place outside the victim that counts, and how its log is read.
type receiver struct {
	address string
	read    func(ctx context.Context) (log string, err error)
}

// flows reads the log by sender.
func (r receiver) flows(ctx context.Context) (map[string]flow, error) {
	log, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]flow{}
	lines := bufio.NewScanner(strings.NewReader(log))
	for lines.Scan() {
		var nanos int64
		var tag string
		var total int
		if _, err := fmt.Sscan(lines.Text(), &nanos, &tag, &total); err != nil {
			continue // The last line may be half written.
		}
		found[tag] = append(found[tag], arrival{at: time.Unix(0, nanos), total: total})
	}
	return found, lines.Err()
}

// must is flows for a test that cannot go on without. The runtime that it asks through may be restarting.
func (r receiver) must(tb testing.TB) (found map[string]flow) {
	tb.Helper()
	err := eventually(tb.Context(), 30*time.Second, func(ctx context.Context) (bool, string, error) {
		var err error
		if found, err = r.flows(ctx); err != nil {
			return false, err.Error(), nil //nolint:nilerr // told when the time is over
		}
		return true, "", nil
	})
	if err != nil {
		tb.Fatalf("read the receiver's log: %v", err)
	}
	return found
}

// awaitFlows waits until enough of every tag has arrived after a time.
func (r receiver) awaitFlows(tb testing.TB, after time.Time, within time.Duration, tags ...string) error {
	tb.Helper()
	return eventually(tb.Context(), within, func(ctx context.Context) (bool, string, error) {
		found, err := r.flows(ctx)
		if err != nil {
			return false, err.Error(), nil //nolint:nilerr // told when the time is over
		}
		var missing []string
		for _, tag := range tags {
			if fresh := found[tag].after(after); fresh < enough {
				missing = append(missing, fmt.Sprintf("%s: %d bytes", tag, fresh))
			}
		}
		return len(missing) == 0, strings.Join(missing, "\n"), nil
	})
}

// receive starts a receiver in a pod of its own.
func (c *cluster) receive(tb testing.TB, s *scene) receiver {
	tb.Helper()
	c.startPod(tb, newPod(s.namespace, receiverName, idle(receiverName)))
	c.installProbe(tb, s, receiverName, receiverName)
	c.background(tb, s, receiverName, receiverName, "/tmp/probe sink "+sinkPort+" "+sinkLog)
	pod := c.pod(tb, client.ObjectKey{Namespace: s.namespace, Name: receiverName})
	return receiver{address: pod.Status.PodIP + ":" + sinkPort, read: func(ctx context.Context) (string, error) {
		return c.run(ctx, "-n", s.namespace, "exec", receiverName, "--", "cat", sinkLog)
	}}
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

// background starts commands in a container that outlive the exec session.
func (c *cluster) background(tb testing.TB, s *scene, pod, container string, commands ...string) {
	tb.Helper()
	lines := make([]string, len(commands))
	for i, command := range commands {
		lines[i] = "(" + command + ") </dev/null >>" + saidLog + " 2>&1 &"
	}
	c.exec(tb, s, pod, container, "sh", "-c", strings.Join(lines, "\n"))
}

// sender is a command of the probe that sends to an address under a tag.
func sender(kind, address, tag string) string {
	return "/tmp/probe send " + kind + " " + address + " " + tag
}

// senders are the kinds of sender that send to a receiver, each under its own name.
func senders(to receiver, kinds ...string) map[string]string {
	commands := make(map[string]string, len(kinds))
	for _, kind := range kinds {
		commands[kind] = sender(kind, to.address, kind)
	}
	return commands
}

// stream starts commands by tag in a container of the victim, and waits until all of them get through.
func (c *cluster) stream(tb testing.TB, s *scene, container string, to receiver, commands map[string]string) {
	tb.Helper()
	tags := slices.Sorted(maps.Keys(commands))
	lines := make([]string, len(tags))
	for i, tag := range tags {
		lines[i] = commands[tag]
	}
	c.background(tb, s, victimName, container, lines...)
	c.getThrough(tb, s, container, to, tags...)
}

// getThrough waits until every sender of a container of the victim gets through.
func (c *cluster) getThrough(tb testing.TB, s *scene, container string, to receiver, tags ...string) {
	tb.Helper()
	if err := to.awaitFlows(tb, time.Time{}, 30*time.Second, tags...); err != nil {
		said, _ := c.run(tb.Context(), "-n", s.namespace, "exec", victimName, "-c", container, "--", "cat", saidLog)
		tb.Fatalf("before the event not everything gets through, so its end would prove nothing: %v\n%s", err, said)
	}
}
