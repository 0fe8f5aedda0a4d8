package hold_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ugallu.io/forensics/nodeagent/internal/hold"
)

// BenchmarkHold holds fresh containers with 1,000 inodes in their upper layer each.
func BenchmarkHold(b *testing.B) {
	const inodes, samples = 1000, 100
	r := start(b, binaries(b)[0])
	h, image := hold.New(r.Client), r.image(b)
	var took []time.Duration
	number := 0
	for b.Loop() {
		for range samples {
			number++
			id := fmt.Sprintf("c%d", number)
			b.StopTimer()
			root := r.container(b, id, image)
			for i := range inodes {
				must(b, os.WriteFile(filepath.Join(root, fmt.Sprintf("f%d", i)), []byte("x"), 0o600))
			}
			b.StartTimer()
			began := time.Now()
			_, err := h.Hold(b.Context(), incident, id)
			must(b, err)
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100])/float64(time.Millisecond), "p99-ms")
	b.ReportMetric(float64(took[len(took)/2])/float64(time.Millisecond), "p50-ms")
}
