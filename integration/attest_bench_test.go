//go:build integration

package integration

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// attestedAlone is how many events are attested one after the other.
	attestedAlone = 50
	// attestedTogether is how many are created at once.
	attestedTogether = 100
	// attestTime bounds the wait for all of them.
	attestTime = 2 * time.Minute
)

// BenchmarkAttest measures from an event's creation until a watch of this process sees it Attested, by this machine's
// clock: first of one event at a time, then of many that are created at once, until the last one.
func BenchmarkAttest(b *testing.B) {
	var once sync.Once
	for b.Loop() {
		once.Do(func() { benchmarkAttest(b) })
	}
}

func benchmarkAttest(b *testing.B) {
	b.Helper()
	var events v1alpha1.SecurityEventList
	if err := suite.List(b.Context(), &events); err != nil {
		b.Fatal(err)
	}
	// From here on: what happened before would have to be read first. The API server ends a watch that it finds slow.
	watched, err := watchtools.NewRetryWatcherWithContext(b.Context(), events.ResourceVersion, eventWatcher{})
	if err != nil {
		b.Fatal(err)
	}
	defer watched.Stop()
	alone := make([]time.Duration, attestedAlone)
	for i := range alone {
		alone[i] = attestAll(b, watched, 1)
	}
	slices.Sort(alone)
	b.ReportMetric(float64(alone[len(alone)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(alone[len(alone)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(attestAll(b, watched, attestedTogether).Seconds(), fmt.Sprintf("%d-parallel-s", attestedTogether))
}

// eventWatcher begins watches of events.
type eventWatcher struct{}

// WatchWithContext implements cache.WatcherWithContext.
func (eventWatcher) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return suite.Watch(ctx, &v1alpha1.SecurityEventList{}, &client.ListOptions{Raw: &options})
}

// attestAll creates events at once and returns how long it took until the last one was Attested.
func attestAll(b *testing.B, watched watch.Interface, count int) time.Duration {
	b.Helper()
	prefix := "bench-" + strings.ToLower(rand.Text()[:12])
	ctx, cancel := context.WithTimeout(b.Context(), attestTime)
	defer cancel()
	refused := make(chan error, count)
	var creating sync.WaitGroup
	defer creating.Wait()
	begun := time.Now()
	for i := range count {
		creating.Go(func() {
			event := harmless(fmt.Sprintf("%s-%d", prefix, i))
			if err := suite.Create(ctx, &event); err != nil {
				refused <- err
			}
		})
	}
	attested := map[string]bool{}
	for len(attested) < count {
		select {
		case <-ctx.Done():
			b.Fatalf("%d of %d events are attested", len(attested), count)
		case err := <-refused:
			b.Fatalf("create an event: %v", err)
		case change, open := <-watched.ResultChan():
			if !open {
				b.Fatal("the watch has ended")
			}
			event, is := change.Object.(*v1alpha1.SecurityEvent)
			if is && strings.HasPrefix(event.Name, prefix) && event.Status.Phase == v1alpha1.EventAttested {
				attested[event.Name] = true
			}
		}
	}
	return time.Since(begun)
}

// harmless is an event that opens no incident; it is attested as every other.
func harmless(name string) v1alpha1.SecurityEvent {
	return v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassDetection, Type: "HoneypotTriggered", Severity: v1alpha1.SeverityLow,
			Source:      v1alpha1.EventSource{Operator: "integration-test", Cluster: "sandbox"},
			Subject:     v1alpha1.EventSubject{Kind: "Pod", Namespace: "forensics-test-none", Name: victimName},
			Description: "an event below every threshold",
		},
	}
}
