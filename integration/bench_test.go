//go:build integration

package integration

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// samples collects durations of one kind over the iterations of a benchmark.
type samples map[string][]time.Duration

func (s samples) add(name string, took time.Duration) { s[name] = append(s[name], took) }

// report prints the 99th percentile of each kind, which for few iterations is the worst.
func (s samples) report(b *testing.B) {
	b.Helper()
	for name, all := range s {
		slices.Sort(all)
		worst := all[min(len(all)-1, len(all)*99/100)]
		b.ReportMetric(float64(worst.Microseconds())/1000, name+"-p99-ms")
	}
}

// BenchmarkIncident measures one incident at a time, from the event to the last seal of the capture.
func BenchmarkIncident(b *testing.B) {
	found, totals := samples{}, time.Duration(0)
	for b.Loop() {
		b.StopTimer()
		s := suite.stage(b, idle("only"))
		suite.installProbe(b, s, victimName, "only")
		suite.stream(b, s, "only", "tcp", suite.receive(b, s))
		b.StartTimer()
		suite.detect(b, s)
		attested := suite.attestedAt(b, s)
		suite.await(b, s, v1alpha1.ConditionAttested, captureTime)
		total := time.Since(s.emitted)
		b.StopTimer()
		freeze := suite.responses(b, s)[v1alpha1.StepFreeze]
		arrivals := suite.mustArrivals(b, s, "tcp")
		found.add("event-to-attested", attested.Sub(s.emitted))
		found.add("attested-to-contained", freeze.Status.Containment.ContainedAt.Sub(attested))
		found.add("event-to-zero-bytes", arrivals[len(arrivals)-1].at.Sub(s.emitted))
		totals += total
		if err := suite.strike(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	found.report(b)
	b.ReportMetric(totals.Seconds()/float64(b.N), "total-s")
}

// attestedAt watches for the seal of the event and returns when this machine learned of it.
func (c *cluster) attestedAt(tb testing.TB, s *scene) time.Time {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), captureTime)
	defer cancel()
	watched, err := c.Watch(ctx, &v1alpha1.SecurityEventList{}, client.MatchingFields{"metadata.name": s.event.Name})
	if err != nil {
		tb.Fatal(err)
	}
	defer watched.Stop()
	for change := range watched.ResultChan() {
		if event, is := change.Object.(*v1alpha1.SecurityEvent); is && event.Status.Phase == v1alpha1.EventAttested {
			return time.Now()
		}
	}
	tb.Fatalf("event %s was not attested\n%s", s.event.Name, c.account(tb.Context(), s))
	return time.Time{}
}

// BenchmarkContain measures the agent alone, from the order's creation. An order's creation time in the API has
// whole seconds, so the order's appearance in a watch of this process, a few milliseconds later, stands for it.
func BenchmarkContain(b *testing.B) {
	found := samples{}
	for b.Loop() {
		b.StopTimer()
		s := suite.stage(b, idle("only"))
		suite.installProbe(b, s, victimName, "only")
		suite.stream(b, s, "only", "tcp", suite.receive(b, s))
		b.StartTimer()
		ordered, err := suite.orderedAt(b, s)
		if err != nil {
			b.Fatal(err)
		}
		suite.await(b, s, v1alpha1.ConditionUploaded, captureTime)
		b.StopTimer()
		addContainment(b, found, suite.responses(b, s)[v1alpha1.StepFreeze], ordered)
		arrivals := suite.mustArrivals(b, s, "tcp")
		found.add("order-to-last-byte", arrivals[len(arrivals)-1].at.Sub(ordered))
		if err := suite.strike(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	found.report(b)
}

// orderedAt emits the event and returns when the podfreeze order about it appeared.
func (c *cluster) orderedAt(tb testing.TB, s *scene) (time.Time, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), captureTime)
	defer cancel()
	watched, err := c.Watch(ctx, &v1alpha1.EventResponseList{})
	if err != nil {
		return time.Time{}, fmt.Errorf("watch orders: %w", err)
	}
	defer watched.Stop()
	c.detect(tb, s)
	for change := range watched.ResultChan() {
		if order, is := change.Object.(*v1alpha1.EventResponse); is && order.Name == v1alpha1.ResponseName(s.incident, v1alpha1.StepFreeze, 1) {
			return time.Now(), nil
		}
	}
	return time.Time{}, fmt.Errorf("no order came for event %s\n%s", s.event.Name, c.account(tb.Context(), s))
}

func addContainment(b *testing.B, found samples, freeze v1alpha1.EventResponse, ordered time.Time) {
	b.Helper()
	containment := freeze.Status.Containment
	first := containment.ContainedAt.Time
	for _, hook := range containment.Hooks {
		if hook.AttachedAt != nil && hook.AttachedAt.Time.Before(first) {
			first = hook.AttachedAt.Time
		}
	}
	found.add("order-to-first-hook", first.Sub(ordered))
	for _, container := range containment.Containers {
		if container.FrozenAt != nil {
			found.add("order-to-frozen", container.FrozenAt.Sub(ordered))
		}
	}
}
