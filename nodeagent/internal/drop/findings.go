package drop

import (
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"ugallu.io/forensics/api/v1alpha1"
)

// findings of one containment, gathered from several goroutines.
type findings struct {
	mutex      sync.Mutex
	hooks      []v1alpha1.Hook
	shortfalls []string
}

func (f *findings) add(hook v1alpha1.Hook, err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if err != nil {
		f.shortfalls = append(f.shortfalls, err.Error())
	}
	if hook.ID == "" {
		return
	}
	// A device that moved between two looks is attached to twice.
	if at := slices.IndexFunc(f.hooks, func(known v1alpha1.Hook) bool { return known.ID == hook.ID }); at >= 0 {
		f.hooks[at] = hook
		return
	}
	f.hooks = append(f.hooks, hook)
}

func (f *findings) fallShort(format string, args ...any) {
	f.add(v1alpha1.Hook{}, fmt.Errorf(format, args...))
}

// result is Full only when every hook that was wanted is in place and verified.
func (f *findings) result(now time.Time) Result {
	sort.Slice(f.hooks, func(i, j int) bool { return f.hooks[i].ID < f.hooks[j].ID })
	if more := len(f.hooks) - v1alpha1.MaxHooks; more > 0 {
		f.hooks = f.hooks[:v1alpha1.MaxHooks]
		f.shortfalls = append(f.shortfalls, fmt.Sprintf("%d more hooks are in place than the record can name", more))
	}
	sort.Strings(f.shortfalls)
	result := Result{Level: v1alpha1.LevelPolicyOnly, Hooks: f.hooks, Shortfalls: f.shortfalls}
	verified := 0
	for _, hook := range f.hooks {
		if hook.Verified {
			verified++
		}
	}
	switch {
	case verified == 0:
		return result
	case verified == len(f.hooks) && len(f.shortfalls) == 0:
		result.Level = v1alpha1.LevelFull
	default:
		result.Level = v1alpha1.LevelPartial
	}
	result.ContainedAt = now
	return result
}
