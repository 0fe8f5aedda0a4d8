package drop

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

func dropper(t *testing.T, config Config) *Dropper {
	t.Helper()
	d, err := New(config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d
}

func attached(t *testing.T, d *Dropper, target Target) Result {
	t.Helper()
	result, err := d.Attach(t.Context(), target)
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	return result
}

func byID(hooks []v1alpha1.Hook) map[string]v1alpha1.Hook {
	out := make(map[string]v1alpha1.Hook, len(hooks))
	for _, hook := range hooks {
		out[hook.ID] = hook
	}
	return out
}

// asAttached demands that each hook is observed as old as it is, by its pin, whose time is that of the kernel's tick.
func asAttached(t *testing.T, d *Dropper, podUID string, want []v1alpha1.Hook) {
	t.Helper()
	hooks, err := d.Observe(podUID)
	if err != nil || len(hooks) != len(want) {
		t.Fatalf("Observe = %+v, %v, want %d hooks", hooks, err, len(want))
	}
	observed := byID(hooks)
	for _, hook := range want {
		got := observed[hook.ID]
		if got.AttachedAt == nil || got.AttachedAt.Sub(hook.AttachedAt.Time).Abs() > 100*time.Millisecond {
			t.Errorf("hook %s is observed as attached at %v, want %v", hook.ID, got.AttachedAt, hook.AttachedAt)
		}
	}
}

// countedSince is when the pod's counters began.
func countedSince(t *testing.T, d *Dropper, podUID string) time.Time {
	t.Helper()
	since, err := d.CountedSince(podUID)
	if err != nil {
		t.Fatal(err)
	}
	return since
}

func TestAttachStopsAnEstablishedStreamAndRawFramesAndDetachLetsThemPass(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	start := time.Now()
	result := attached(t, d, p.target)
	t.Logf("attached and verified in %v", time.Since(start))
	if result.Level != v1alpha1.LevelFull || len(result.Hooks) != 5 || len(result.Shortfalls) != 0 {
		t.Fatalf("Attach = %+v, want Full with 5 hooks", result)
	}
	for _, hook := range result.Hooks {
		if !hook.Verified || hook.AttachedAt == nil {
			t.Errorf("hook %s is not verified: %+v", hook.ID, hook)
		}
	}
	p.quiet(t)

	hooks, err := d.Observe(p.target.PodUID)
	if err != nil {
		t.Fatal(err)
	}
	asAttached(t, d, p.target.PodUID, result.Hooks)
	dropped := 0
	for _, hook := range hooks {
		if hook.Packets == 0 {
			continue
		}
		dropped++
		if hook.FirstDrop == nil || hook.LastDrop.Before(hook.FirstDrop) || hook.FirstDrop.Time.Before(start.Add(-50*time.Millisecond)) ||
			hook.LastDrop.After(time.Now().Add(50*time.Millisecond)) {
			t.Errorf("hook %s dropped from %v to %v, attached after %v", hook.ID, hook.FirstDrop, hook.LastDrop, start)
		}
	}
	if len(hooks) != 5 || dropped < 2 {
		t.Errorf("%d hooks observed, %d of which dropped something, want 5 and at least 2: %+v", len(hooks), dropped, hooks)
	}

	for range 2 {
		if err := d.Detach(p.target.PodUID); err != nil {
			t.Fatalf("Detach: %v", err)
		}
	}
	p.loud(t)
	if pods, err := d.Pods(); err != nil || len(pods) != 0 {
		t.Errorf("Pods after Detach = %v, %v", pods, err)
	}
}

func TestAttachAdoptsWhatAnEarlierProcessPinned(t *testing.T) {
	p := newPod(t)
	first := attached(t, dropper(t, p.config), p.target)
	p.quiet(t)
	d := dropper(t, p.config) // as after a restart
	if pods, err := d.Pods(); err != nil || len(pods) != 1 || pods[0] != p.target.PodUID {
		t.Fatalf("Pods = %v, %v", pods, err)
	}
	second := attached(t, d, p.target)
	p.quiet(t)
	if second.Level != v1alpha1.LevelFull || len(second.Hooks) != 5 {
		t.Fatalf("Attach = %+v, want the five hooks again", second)
	}
	before := byID(first.Hooks)
	dropped := int64(0)
	for id, hook := range byID(second.Hooks) {
		// The pin's time is that of the kernel's tick, 10 ms at the most.
		if moved := hook.AttachedAt.Sub(before[id].AttachedAt.Time); moved > 20*time.Millisecond || moved < -20*time.Millisecond {
			t.Errorf("hook %s was attached again, %v later", id, moved)
		}
		dropped += hook.Packets
	}
	if dropped == 0 {
		t.Error("the counters started again from zero")
	}
}

func TestAttachReplacesAHookThatIsNoLongerInPlace(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	first := attached(t, d, p.target)
	for _, hook := range first.Hooks {
		if err := os.Remove(filepath.Join(d.folder(p.target.PodUID), hook.ID)); err != nil {
			t.Fatal(err)
		}
	}
	second := attached(t, d, p.target)
	if second.Level != v1alpha1.LevelFull || len(second.Hooks) != 5 {
		t.Fatalf("Attach = %+v, want Full with 5 hooks", second)
	}
	p.quiet(t)
	asAttached(t, d, p.target.PodUID, second.Hooks)
}

func TestADropWhosePinsWereRemovedIsObservedAsANewOne(t *testing.T) {
	p := newPod(t)
	d := dropper(t, p.config)
	attached(t, d, p.target)
	began := countedSince(t, d, p.target.PodUID)
	if err := os.RemoveAll(d.folder(p.target.PodUID)); err != nil {
		t.Fatal(err)
	}
	if since := countedSince(t, d, p.target.PodUID); !since.IsZero() {
		t.Errorf("without pins: counted since %v", since)
	}
	p.loud(t)
	time.Sleep(100 * time.Millisecond) // the kernel's tick is far shorter
	second := attached(t, d, p.target)
	p.quiet(t)
	asAttached(t, d, p.target.PodUID, second.Hooks)
	if since := countedSince(t, d, p.target.PodUID); !since.After(began) {
		t.Errorf("counted since %v, before that since %v", since, began)
	}
}

func TestLevelIsThatOfTheWorstPart(t *testing.T) {
	p := newPod(t)
	tests := map[string]struct {
		change func(t *testing.T, target *Target)
		level  v1alpha1.ContainmentLevel
		hooks  int
	}{
		"no cgroup": {
			func(_ *testing.T, target *Target) { target.Cgroup = "" }, v1alpha1.LevelPartial, 3,
		},
		"no process": {
			func(_ *testing.T, target *Target) { target.Processes = nil }, v1alpha1.LevelFull, 5,
		},
		"no process, and no network is known": {
			func(_ *testing.T, target *Target) { target.Processes, target.Networks = nil, nil }, v1alpha1.LevelPartial, 2,
		},
		"nothing": {
			func(_ *testing.T, target *Target) { *target = Target{PodUID: target.PodUID} }, v1alpha1.LevelPolicyOnly, 0,
		},
		"bridge in the pod": {
			func(t *testing.T, _ *Target) { run(t, "ip -n "+p.prefix+"pod link add br0 type bridge") }, v1alpha1.LevelFull, 5,
		},
		"veth to a third namespace": {
			func(t *testing.T, _ *Target) {
				run(t, "ip -n "+p.prefix+"pod link add side type veth peer name side netns "+p.prefix+"out")
				t.Cleanup(func() { run(t, "ip -n "+p.prefix+"pod link del side") })
			}, v1alpha1.LevelPartial, 5,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := dropper(t, p.config)
			target := p.target
			test.change(t, &target)
			result := attached(t, d, target)
			if result.Level != test.level || len(result.Hooks) != test.hooks {
				t.Errorf("Attach = %+v, want %s with %d hooks", result, test.level, test.hooks)
			}
			if (test.level == v1alpha1.LevelFull) != (len(result.Shortfalls) == 0) {
				t.Errorf("level %s with shortfalls %v", result.Level, result.Shortfalls)
			}
			if err := d.Detach(target.PodUID); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAProcessInTheNodesNetworkIsPartial(t *testing.T) {
	p := newPod(t)
	p.config.NodeNetns = p.netns("pod") // the pod's own network plays the node's
	result := attached(t, dropper(t, p.config), p.target)
	if result.Level != v1alpha1.LevelPartial || len(result.Hooks) != 2 {
		t.Errorf("Attach = %+v, want Partial with the cgroup's hooks", result)
	}
}

func TestResultClaimsNothingThatWasNotVerified(t *testing.T) {
	at := metav1.NewMicroTime(time.Unix(1, 0))
	hook := func(id string, verified bool) v1alpha1.Hook {
		return v1alpha1.Hook{ID: id, Verified: verified, AttachedAt: &at}
	}
	now := time.Unix(2, 0)
	tests := map[string]struct {
		hooks      []v1alpha1.Hook
		shortfalls []string
		want       Result
	}{
		"all verified": {
			[]v1alpha1.Hook{hook("b", true), hook("a", true)},
			nil,
			Result{Level: v1alpha1.LevelFull, Hooks: []v1alpha1.Hook{hook("a", true), hook("b", true)}, ContainedAt: now},
		},
		"one not verified": {
			[]v1alpha1.Hook{hook("a", true), hook("b", false)},
			nil,
			Result{Level: v1alpha1.LevelPartial, Hooks: []v1alpha1.Hook{hook("a", true), hook("b", false)}, ContainedAt: now},
		},
		"none verified": {
			[]v1alpha1.Hook{hook("a", false)},
			nil,
			Result{Level: v1alpha1.LevelPolicyOnly, Hooks: []v1alpha1.Hook{hook("a", false)}},
		},
		"verified but short": {
			[]v1alpha1.Hook{hook("a", true)},
			[]string{"why"},
			Result{Level: v1alpha1.LevelPartial, Hooks: []v1alpha1.Hook{hook("a", true)}, Shortfalls: []string{"why"}, ContainedAt: now},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			found := findings{hooks: test.hooks, shortfalls: test.shortfalls}
			if diff := cmp.Diff(test.want, found.result(now)); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
		})
	}
}
