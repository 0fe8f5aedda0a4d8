//go:build integration

package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/watch"

	"ugallu.io/forensics/api/v1alpha1"
)

// upperMB is how much the victim's upper layer holds: random bytes, which no compression makes smaller.
const upperMB = 100

// BenchmarkUpper100MB measures from the order to capture until the upper layer is in the store. Both ends are the same
// clock, that of the machine which the nodes run on. An order's creation time in the API has whole seconds, so its
// appearance in a watch of this process, a few milliseconds later, stands for it; the end is the time that the store
// gives to the last segment, in milliseconds, when the segment is complete, which is when it is locked.
func BenchmarkUpper100MB(b *testing.B) {
	total := time.Duration(0)
	for b.Loop() {
		b.StopTimer()
		s := suite.stage(b, idle("only"))
		suite.exec(b, s, victimName, "only", "dd", "if=/dev/urandom", "of=/planted", "bs=1000000", fmt.Sprintf("count=%d", upperMB))
		watched, err := suite.Watch(b.Context(), &v1alpha1.EventResponseList{})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		suite.detect(b, s)
		ordered := suite.orderedAt(b, s, watched)
		suite.await(b, s, v1alpha1.ConditionUploaded, captureTime)
		b.StopTimer()
		watched.Stop()
		took := suite.upperStoredAt(b, s).Sub(ordered)
		b.Logf("in the store %v after the order", took)
		total += took
		if err := suite.strike(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(total.Microseconds())/1000/float64(b.N), "order-to-worm-ms")
}

// orderedAt waits for the order to capture and returns when this machine learned of it.
func (c *cluster) orderedAt(b *testing.B, s *scene, watched watch.Interface) time.Time {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), captureTime)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			b.Fatalf("no order to capture %s\n%s", s.namespace, c.account(b.Context(), s))
		case change, open := <-watched.ResultChan():
			if !open {
				b.Fatalf("the watch ended before there was an order to capture %s", s.namespace)
			}
			order, is := change.Object.(*v1alpha1.EventResponse)
			if is && order.Spec.IncidentName == s.incident && order.Labels[v1alpha1.LabelStep] == string(v1alpha1.StepSnapshot) {
				return time.Now()
			}
		}
	}
}

// upperStoredAt is when the store had the last segment of the upper layer, which must hold all that was planted.
func (c *cluster) upperStoredAt(b *testing.B, s *scene) time.Time {
	b.Helper()
	snapshot := c.responses(b, s)[v1alpha1.StepSnapshot]
	upper := ofKind(snapshot, v1alpha1.ArtifactUpperLayer)
	if len(upper) != 1 || upper[0].Truncated || !upper[0].FrozenThroughout || upper[0].Size < upperMB*1e6 {
		b.Fatalf("the upper layer's artifacts are %+v", upper)
	}
	bucket, store := snapshot.Spec.Action.FilesystemSnapshot.Destination.Bucket, c.analyst(b)
	var last time.Time
	for _, segment := range upper[0].Segments {
		store.locked(b, bucket, segment)
		found := false
		for _, version := range store.versions(b, bucket, segment.Key) {
			if version.Key != segment.Key || version.VersionID != segment.VersionID {
				continue
			}
			found = true
			if version.LastModified.After(last) {
				last = version.LastModified
			}
		}
		if !found {
			b.Fatalf("%s has no version %s in the store", segment.Key, segment.VersionID)
		}
	}
	return last
}
