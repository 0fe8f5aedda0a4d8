package incident

import (
	"math"
	"testing"
	"time"

	"ugallu.io/forensics/api/v1alpha1"
)

func TestACaptureGetsTheTimeOfEachThingItStores(t *testing.T) {
	tests := map[string]struct {
		containers int
		memory     v1alpha1.MemoryCapture
		each, want time.Duration
	}{
		"two archives of a container, and the pod's": {1, v1alpha1.MemoryNone, time.Minute, 7*time.Minute + captureMargin},
		"memory":                    {1, v1alpha1.MemoryAuto, time.Minute, 8*time.Minute + captureMargin},
		"each container":            {3, v1alpha1.MemoryAlways, time.Minute, 14*time.Minute + captureMargin},
		"none on record":            {0, v1alpha1.MemoryNone, time.Minute, 7*time.Minute + captureMargin},
		"the defaults":              {2, v1alpha1.MemoryAuto, 30 * time.Minute, 330*time.Minute + captureMargin},
		"many containers":           {200, v1alpha1.MemoryAlways, 30 * time.Minute, captureLongest},
		"one that takes longer":     {1, v1alpha1.MemoryNone, 48 * time.Hour, 48*time.Hour + captureMargin},
		"more than can be added up": {200, v1alpha1.MemoryAlways, math.MaxInt64 / 100, math.MaxInt64/100 + captureMargin},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := captureWithin(tt.containers, tt.memory, tt.each); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
