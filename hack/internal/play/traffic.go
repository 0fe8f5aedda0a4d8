package play

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// sinkPort and sinkLog are where the receiver listens and notes each arrival.
const (
	sinkPort = "9000"
	sinkLog  = "/tmp/arrivals"
)

// stillness is how long the receiver is watched after containment. TCP repeats what was not acknowledged within
// 0.2 s, 0.4 s, 0.8 s and 1.6 s, so a leak shows in this time.
const stillness = 5 * time.Second

// count is what the receiver has seen of the suspect's upload. The pods of a local cluster share one clock.
type count struct {
	bytes int
	last  time.Time
}

func (p *Play) before(ctx context.Context) (string, error) {
	for _, pod := range []string{suspect, receiver} {
		if err := p.installProbe(ctx, pod); err != nil {
			return "", err
		}
	}
	if err := p.background(ctx, receiver, "/tmp/probe sink "+sinkPort+" "+sinkLog); err != nil {
		return "", err
	}
	var counting corev1.Pod
	if err := p.Get(ctx, client.ObjectKey{Namespace: sandbox, Name: receiver}, &counting); err != nil {
		return "", fmt.Errorf("get the receiver: %w", err)
	}
	p.sink = counting.Status.PodIP + ":" + sinkPort
	if err := p.background(ctx, suspect, "/tmp/probe send tcp "+p.sink); err != nil {
		return "", err
	}
	if err := p.dial(ctx, receiver, p.pod.Status.PodIP+":80"); err != nil {
		return "", fmt.Errorf("reach the suspect's web server: %w", err)
	}
	p.screen.note("receiver → suspect port 80: answered")
	time.Sleep(time.Second)
	first, err := p.counted(ctx)
	if err != nil {
		return "", err
	}
	time.Sleep(time.Second)
	second, err := p.counted(ctx)
	if err != nil {
		return "", err
	}
	if second.bytes <= first.bytes {
		return "", errors.New("the suspect's upload does not flow")
	}
	rate := float64(second.bytes-first.bytes) / second.last.Sub(first.last).Seconds()
	return fmt.Sprintf("an established upload at %.0f bytes/s, and its web server answers", rate), nil
}

// dial tries to open a connection from a pod of the sandbox.
func (p *Play) dial(ctx context.Context, pod, address string) error {
	_, err := p.kubectl(ctx, "-n", sandbox, "exec", pod, "--", "/tmp/probe", "dial", address)
	return err
}

// counted reads the last complete line of the receiver's log.
func (p *Play) counted(ctx context.Context) (count, error) {
	tail, err := p.kubectl(ctx, "-n", sandbox, "exec", receiver, "--", "tail", "-n", "1", sinkLog)
	if err != nil {
		return count{}, err
	}
	fields := strings.Fields(tail)
	if len(fields) != 3 {
		return count{}, fmt.Errorf("the receiver's log ends in %q", tail)
	}
	nanos, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return count{}, fmt.Errorf("time in the receiver's log: %w", err)
	}
	total, err := strconv.Atoi(fields[2])
	if err != nil {
		return count{}, fmt.Errorf("total in the receiver's log: %w", err)
	}
	return count{bytes: total, last: time.Unix(0, nanos)}, nil
}

func (p *Play) after(ctx context.Context) (string, error) {
	freeze, err := p.response(ctx, v1alpha1.StepFreeze)
	if err != nil {
		return "", err
	}
	containment := freeze.Status.Containment
	if containment == nil || containment.ContainedAt == nil {
		return "", errors.New("the podfreeze response does not say contained")
	}
	before, err := p.counted(ctx)
	if err != nil {
		return "", err
	}
	time.Sleep(stillness)
	after, err := p.counted(ctx)
	if err != nil {
		return "", err
	}
	var claims checks
	claims.demand(!after.last.After(containment.ContainedAt.Time), "a byte arrived %s after containedAt", after.last.Sub(containment.ContainedAt.Time))
	claims.demand(after.bytes == before.bytes, "%d bytes arrived within %s of a contained pod", after.bytes-before.bytes, stillness)
	claims.demand(after.last.After(p.emitted), "the upload had ended before the event, so that its end proves nothing")
	claims.demand(p.dial(ctx, receiver, p.pod.Status.PodIP+":80") != nil, "the contained pod still answers on port 80")
	if err := claims.err(); err != nil {
		return "", err
	}
	p.screen.note("last byte arrived %s after the event, %s before the response says contained",
		millis(after.last.Sub(p.emitted)), millis(containment.ContainedAt.Sub(after.last)))
	p.screen.note("receiver → suspect port 80: no answer")
	return fmt.Sprintf("0 bytes in %s, after %d that had arrived", seconds(stillness), after.bytes), nil
}

func (p *Play) again(ctx context.Context) (string, error) {
	var pod corev1.Pod
	if err := p.Get(ctx, client.ObjectKey{Namespace: sandbox, Name: suspect}, &pod); err != nil {
		return "", fmt.Errorf("get the suspect: %w", err)
	}
	var claims checks
	claims.demand(pod.UID == p.pod.UID, "the pod was replaced")
	claims.demand(pod.Status.Phase == corev1.PodRunning, "the pod is %s", pod.Status.Phase)
	claims.demand(pod.Labels[v1alpha1.LabelFrozen] == "", "the pod is still labelled %s", pod.Labels[v1alpha1.LabelFrozen])
	for _, status := range pod.Status.ContainerStatuses {
		claims.demand(status.RestartCount == 0, "container %s was restarted", status.Name)
	}
	for from, to := range map[string]string{suspect: p.sink, receiver: p.pod.Status.PodIP + ":80"} {
		err := p.dial(ctx, from, to)
		claims.demand(err == nil, "%s cannot connect to %s: %w", from, to, err)
	}
	if err := claims.err(); err != nil {
		return "", err
	}
	return "same pod, no restart, it sends and answers", nil
}
