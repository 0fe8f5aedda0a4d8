//go:build integration

package integration

import (
	"context"
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
		s.outside = suite.receive(b, s)
		suite.stream(b, s, "only", s.outside, senders(s.outside, "tcp"))
		b.StartTimer()
		suite.detect(b, s)
		attested := suite.attestedAt(b, s)
		suite.await(b, s, v1alpha1.ConditionAttested, captureTime)
		total := time.Since(s.emitted)
		b.StopTimer()
		freeze := suite.responses(b, s)[v1alpha1.StepFreeze]
		found.add("event-to-attested", attested.Sub(s.emitted))
		found.add("attested-to-contained", freeze.Status.Containment.ContainedAt.Sub(attested))
		found.add("event-to-zero-bytes", s.outside.must(b)["tcp"].last().Sub(s.emitted))
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
