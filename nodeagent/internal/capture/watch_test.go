package capture_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/capture"
)

// sluggish takes its time for the first segment of each root filesystem, as a store does that is hardly there.
type sluggish struct {
	worm.Putter
	pause time.Duration
}

func (s sluggish) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (worm.Object, error) {
	if strings.HasSuffix(key, "rootfs.tar.zst/0") {
		time.Sleep(s.pause)
	}
	return s.Putter.Put(ctx, key, body, lock)
}

// watched stores a root filesystem, the first segment of it in so long. It returns whether that was frozen throughout.
func watched(t *testing.T, pause time.Duration, frozen func(passed time.Duration) bool) bool {
	t.Helper()
	f := newFixture(t, "id")
	f.uppers["id"] = ""
	f.big(t, "id")
	begun := time.Now()
	f.frozen = func(string) bool { return frozen(time.Since(begun)) }
	f.putter = sluggish{f.store, pause}
	capturer := f.capturer()
	capturer.FirstSegment = 1 << 20
	result, err := capturer.Capture(t.Context(), order(capture.Container{ID: "id", Name: "c"}), nil)
	must(t, err)
	return artifact(t, result, "c/rootfs.tar.zst").FrozenThroughout
}

func TestAThawIsSeenWhileTheStoreIsWaitedFor(t *testing.T) {
	for name, from := range map[string]time.Duration{"thawed": 8 * time.Second, "not thawed": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				frozen := watched(t, 20*time.Second, func(passed time.Duration) bool { return passed < from || passed >= from+4*time.Second })
				if want := from == time.Hour; frozen != want {
					t.Errorf("frozen throughout = %t", frozen)
				}
			})
		})
	}
}

// TestAThawIsNotForgottenForALookThatBeganBefore has a look that takes three seconds, in which another one sees the thaw.
func TestAThawIsNotForgottenForALookThatBeganBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		frozen := watched(t, 6*time.Second, func(passed time.Duration) bool {
			switch passed {
			case 5 * time.Second:
				time.Sleep(3 * time.Second)
				return true
			case 6 * time.Second:
				return false
			default:
				return true
			}
		})
		if frozen {
			t.Error("frozen throughout")
		}
	})
}

func TestLooksThatTakeLongAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		watched(t, 200*time.Second, func(passed time.Duration) bool {
			if passed < 200*time.Second {
				looks.Add(1)
				time.Sleep(time.Second)
			}
			return true
		})
		// At the begin, and after 51, 102 and 153 seconds.
		if got := looks.Load(); got != 4 {
			t.Errorf("%d looks of a second each in 200 seconds", got)
		}
	})
}

func TestTheLastLookAtOnePartIsTheFirstAtTheNextForAMoment(t *testing.T) {
	for pause, want := range map[time.Duration]int64{0: 6, 200 * time.Millisecond: 7} {
		t.Run(fmt.Sprint(pause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, "id")
				var looks atomic.Int64
				f.frozen = func(string) bool { return looks.Add(1) > 0 }
				o := order(capture.Container{ID: "id", Name: "c"})
				o.Stored = func(r capture.Result) error {
					if len(r.Artifacts) == 1 && r.Storing == nil {
						time.Sleep(pause)
					}
					return nil
				}
				result, err := f.capturer().Capture(t.Context(), o, nil)
				must(t, err)
				// Of each part at the begin, at its one segment and at the end, and once more of the upper layer before the end.
				if got := looks.Load(); got != want || !result.Artifacts[1].FrozenThroughout {
					t.Errorf("%d looks, want %d", got, want)
				}
			})
		})
	}
}
