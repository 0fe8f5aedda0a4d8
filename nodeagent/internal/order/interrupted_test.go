package order

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// hookAt is a hook that was attached so many seconds after the first and dropped so many packets.
func hookAt(id string, seconds int64, packets int64) v1alpha1.Hook {
	at := metav1.NewMicroTime(time.Unix(1_700_000_000+seconds, 0))
	return v1alpha1.Hook{ID: id, AttachedAt: &at, Packets: packets, Bytes: 100 * packets}
}

// TestRecordSaysWhatTheDropCountedAndWhereItWasInterrupted releases a pod that podfreeze recorded with one hook.
func TestRecordSaysWhatTheDropCountedAndWhereItWasInterrupted(t *testing.T) {
	recorded := hookAt("hook", 0, 5)
	soon := hookAt("hook", 0, 9)
	pinned := metav1.NewMicroTime(soon.AttachedAt.Add(-10 * time.Millisecond))
	soon.AttachedAt = &pinned
	tests := map[string]struct {
		observed   []v1alpha1.Hook
		observeErr error
		// since and contained are in seconds after the first hook; at 0 podfreeze recorded no verified hook.
		since, contained int64
		want             []v1alpha1.Hook
		gaps             map[string]int64
		says             []string
	}{
		"it goes on": {
			observed: []v1alpha1.Hook{soon}, want: []v1alpha1.Hook{hookAt("hook", 0, 9)}, gaps: map[string]int64{},
		},
		"a device came later": {
			observed: []v1alpha1.Hook{soon, hookAt("later", 60, 3)},
			want:     []v1alpha1.Hook{hookAt("hook", 0, 9), hookAt("later", 60, 3)}, gaps: map[string]int64{},
		},
		"all of it was made again": {
			observed: []v1alpha1.Hook{hookAt("hook", 3600, 7), hookAt("device", 3600, 1)}, since: 3600,
			want: []v1alpha1.Hook{recorded, hookAt("hook-again", 3600, 7), hookAt("device", 3600, 1)},
			gaps: map[string]int64{"DropInterrupted": 1},
			says: []string{
				"may have passed", "hook attached at 2023-11-14T22:13:20Z with 5 packets of 500 bytes",
				"hook-again attached at 2023-11-14T23:13:20Z with 7 packets of 700 bytes",
			},
		},
		"fewer packets": {
			observed: []v1alpha1.Hook{hookAt("hook", 0, 4)}, want: []v1alpha1.Hook{recorded, hookAt("hook-again", 0, 4)},
			gaps: map[string]int64{"DropInterrupted": 1},
			says: []string{"with 5 packets of 500 bytes", "with 4 packets of 400 bytes"},
		},
		"the hook stayed and its counters are new": {
			observed: []v1alpha1.Hook{hookAt("hook", 0, 7)}, since: 60,
			want: []v1alpha1.Hook{recorded, hookAt("hook-again", 0, 7)}, gaps: map[string]int64{"DropInterrupted": 1},
			says: []string{"counted since 2023-11-14T22:14:20Z"},
		},
		"the counters are newer than a hook that an earlier incident attached, and older than the record": {
			observed: []v1alpha1.Hook{hookAt("hook", 0, 7)}, since: 3600, contained: 3660,
			want: []v1alpha1.Hook{hookAt("hook", 0, 7)}, gaps: map[string]int64{},
		},
		"the counters were made for the record": {
			observed: []v1alpha1.Hook{hookAt("hook", 0, 7)}, since: 3660, contained: 3660,
			want: []v1alpha1.Hook{hookAt("hook", 0, 7)}, gaps: map[string]int64{},
		},
		"the counters are newer than the record": {
			observed: []v1alpha1.Hook{hookAt("hook", 0, 7)}, since: 3720, contained: 3660,
			want: []v1alpha1.Hook{recorded, hookAt("hook-again", 0, 7)}, gaps: map[string]int64{"DropInterrupted": 1},
			says: []string{"after podfreeze recorded", "counted since 2023-11-14T23:15:20Z"},
		},
		"fewer packets in counters that are older than the record": {
			observed: []v1alpha1.Hook{hookAt("hook", 0, 4)}, since: 3600, contained: 3660,
			want: []v1alpha1.Hook{recorded, hookAt("hook-again", 0, 4)}, gaps: map[string]int64{"DropInterrupted": 1},
		},
		"the clock was set back before the record": {
			observed: []v1alpha1.Hook{hookAt("hook", 0, 7)}, contained: -1800,
			want: []v1alpha1.Hook{hookAt("hook", 0, 7)}, gaps: map[string]int64{},
		},
		"the hook is new and its counters stayed": {
			observed: []v1alpha1.Hook{hookAt("hook", 60, 7)},
			want:     []v1alpha1.Hook{hookAt("hook", 0, 7)}, gaps: map[string]int64{"DropInterrupted": 1},
			says: []string{"2023-11-14T22:13:20Z with 5 packets", "2023-11-14T22:14:20Z with 7 packets"},
		},
		"the hook is new and the clock was set back": {
			observed: []v1alpha1.Hook{hookAt("hook", -60, 7)},
			want:     []v1alpha1.Hook{hookAt("hook", 0, 7)}, gaps: map[string]int64{"DropInterrupted": 1},
			says: []string{"2023-11-14T22:12:20Z with 7 packets"},
		},
		"its device is another one": {
			observed: []v1alpha1.Hook{hookAt("other", 60, 7)}, since: 60,
			want: []v1alpha1.Hook{recorded, hookAt("other", 60, 7)}, gaps: map[string]int64{"DropInterrupted": 1},
			says: []string{"hook attached at", "is not there any more"},
		},
		"not all of it was read": {
			observed: []v1alpha1.Hook{hookAt("other", 0, 7)}, observeErr: errors.New("away"),
			want: []v1alpha1.Hook{recorded, hookAt("other", 0, 7)}, gaps: map[string]int64{"DropCountsNotRead": 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), wasCutOff, func(r *v1alpha1.EventResponse) {
				r.Status.Containment.Hooks = []v1alpha1.Hook{recorded}
				if tt.contained != 0 {
					r.Status.Containment.ContainedAt = hookAt("", tt.contained, 0).AttachedAt
				}
			})
			w.observed, w.observeErr, w.since = tt.observed, tt.observeErr, recorded.AttachedAt.Add(time.Duration(tt.since)*time.Second)
			record, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, record.Status.Containment.Hooks); diff != "" {
				t.Errorf("hooks (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.gaps, signedGaps(t, record)); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			for _, gap := range record.Status.Gaps {
				for _, part := range tt.says {
					if !strings.Contains(gap.Message, part) {
						t.Errorf("%q does not say %q", gap.Message, part)
					}
				}
			}
		})
	}
}

// TestInterruptedHooksDoNotOutgrowTheRecord has every hook that a record can name begin anew.
func TestInterruptedHooksDoNotOutgrowTheRecord(t *testing.T) {
	w := newWorld(t)
	containment := new(v1alpha1.Containment)
	var now []v1alpha1.Hook
	for i := range v1alpha1.MaxHooks {
		id := "tcx-ingress-" + strings.Repeat("1", i+1)
		containment.Hooks, now = append(containment.Hooks, hookAt(id, 0, 5)), append(now, hookAt(id, 60, 1))
	}
	step := &unfreezeStep{node: w.agent.node, record: newRecord(w.agent.node, new(v1alpha1.EventResponse))}
	step.interrupted(updateHooks(containment, observed{hooks: now, whole: true}))
	if len(containment.Hooks) != v1alpha1.MaxHooks || containment.Hooks[0].Packets != 5 {
		t.Errorf("%d hooks, the first %+v", len(containment.Hooks), containment.Hooks[0])
	}
	gaps := step.record.status().Gaps
	if len(gaps) == 1 && !strings.Contains(gaps[0].Message, "counted since an unknown time") {
		t.Errorf("message %q", gaps[0].Message)
	}
	if len(gaps) != 1 || gaps[0].Reason != evidence.GapDropInterrupted || gaps[0].Count != v1alpha1.MaxHooks || len(gaps[0].Message) > v1alpha1.MaxGapMessage {
		t.Errorf("gaps %+v", gaps)
	}
}

func TestHooksThatAPodLackedAreToldFromThoseThatWereInPlace(t *testing.T) {
	hooks := []v1alpha1.Hook{hookAt("adopted", 0, 1), hookAt("anew", 60, 0), {ID: "of an unknown time"}}
	if diff := cmp.Diff([]string{"anew"}, attachedSince(hooks, hooks[1].AttachedAt.Time)); diff != "" {
		t.Errorf("attached since (-want +got):\n%s", diff)
	}
}
