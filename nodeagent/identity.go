package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/nodeagent/internal/options"
)

// errNotReady fails the readiness probe.
var errNotReady = errors.New("not ready")

// serverDate keeps the Date header of the API server's last answer: a clock that is not the suspect node's own.
type serverDate struct{ answer atomic.Pointer[answered] }

// answered is when the API server answered, by its clock and by this process's, whose monotonic part nobody sets.
type answered struct{ date, at time.Time }

// wrap returns a transport that reads the header of every answer.
func (d *serverDate) wrap(inner http.RoundTripper) http.RoundTripper {
	return roundTrip(func(request *http.Request) (*http.Response, error) {
		response, err := inner.RoundTrip(request)
		if err != nil {
			return nil, err
		}
		if date, parseErr := http.ParseTime(response.Header.Get("Date")); parseErr == nil {
			d.answer.Store(&answered{date, time.Now()})
		}
		return response, nil
	})
}

func (d *serverDate) last() time.Time {
	answer := d.answer.Load()
	if answer == nil {
		return time.Time{}
	}
	return answer.date
}

// now is what the API server's clock shows by now, zero before its first answer.
func (d *serverDate) now() time.Time {
	answer := d.answer.Load()
	if answer == nil {
		return time.Time{}
	}
	return answer.date.Add(time.Since(answer.at))
}

type roundTrip func(*http.Request) (*http.Response, error)

func (r roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// image learns the digest of this process's own image, which the kubelet publishes shortly after the start.
type image struct {
	pod   options.Pod
	live  client.Reader
	known atomic.Pointer[string]
}

func newImage(pod options.Pod, live client.Reader) *image { return &image{pod: pod, live: live} }

// digest returns the digest, or what the binary says of its version until the digest is known.
func (i *image) digest() string {
	if known := i.known.Load(); known != nil {
		return *known
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				return "revision " + setting.Value
			}
		}
		return "version " + info.Main.Version
	}
	return "unknown"
}

// Start asks until the digest is known.
func (i *image) Start(ctx context.Context) error {
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	for {
		known, err := i.ask(ctx)
		if err != nil {
			log.FromContext(ctx).Error(err, "own image not known yet")
		}
		if known != "" {
			i.known.Store(&known)
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

func (i *image) ask(ctx context.Context) (string, error) {
	pod := new(corev1.Pod)
	if err := i.live.Get(ctx, client.ObjectKey{Namespace: i.pod.Namespace, Name: i.pod.Name}, pod); err != nil {
		return "", fmt.Errorf("read the own pod: %w", err)
	}
	for _, status := range pod.Status.ContainerStatuses {
		if status.ImageID != "" {
			return status.ImageID, nil
		}
	}
	return "", nil
}

// readiness of the agent.
type readiness struct {
	manager ctrl.Manager
	client  *containerd.Client
}

func (r readiness) check(request *http.Request) error {
	ctx, cancel := context.WithTimeout(request.Context(), time.Second)
	defer cancel()
	if !r.manager.GetCache().WaitForCacheSync(ctx) {
		return fmt.Errorf("orders are not in the cache: %w", errNotReady)
	}
	serving, err := r.client.IsServing(ctx)
	if err != nil {
		return fmt.Errorf("ask containerd: %w", err)
	}
	if !serving {
		return fmt.Errorf("containerd does not serve: %w", errNotReady)
	}
	return nil
}
