package order

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// sameHook is how far apart the times of one hook may be, that on record and that of its pin: the first is read beside
	// the pin's making, between which an agent short of processor time stands still for some 100 ms, and the pin's is that of
	// the kernel's tick. Both stay as they are when the node's clock is set. Counters are as much newer than the record when
	// they are not those that it was read from.
	sameHook = time.Second
	// againSuffix ends the id of a hook whose counts began anew: the record has both.
	againSuffix = "-again"
)

// observed are the hooks of a pod as they are found, and since when they count. Whole says that none is left out.
type observed struct {
	hooks []v1alpha1.Hook
	since time.Time
	whole bool
}

// updateHooks brings hooks up to date, and adds those of devices that came later. A hook whose counts do not go on from those
// on record keeps these, and what counts in its place is added beside it: what was counted in between is in neither. It
// returns what is to be said of each hook that was interrupted.
func updateHooks(containment *v1alpha1.Containment, now observed) (interrupted []string) {
	later := slices.Clone(now.hooks)
	for i := range containment.Hooks {
		known := &containment.Hooks[i]
		at := slices.IndexFunc(later, func(hook v1alpha1.Hook) bool { return hook.ID == known.ID })
		switch {
		case at < 0 && now.whole:
			interrupted = append(interrupted, fmt.Sprintf("%s is not there any more", describe(*known)))
		case at < 0:
		case beganAnew(*known, later[at], now.since, readAt(containment.ContainedAt, *known)):
			later[at].ID += againSuffix
			interrupted = append(interrupted, fmt.Sprintf("%s is followed by %s, counted since %s",
				describe(*known), describe(later[at]), moment(&metav1.MicroTime{Time: now.since})))
		default:
			if attachedAnew(*known, later[at]) {
				interrupted = append(interrupted, fmt.Sprintf("%s is now %s", describe(*known), describe(later[at])))
			}
			known.Packets, known.Bytes, known.FirstDrop, known.LastDrop = later[at].Packets, later[at].Bytes, later[at].FirstDrop, later[at].LastDrop
			later = slices.Delete(later, at, at+1)
		}
	}
	room := max(v1alpha1.MaxHooks-len(containment.Hooks), 0)
	containment.Hooks = append(containment.Hooks, later[:min(room, len(later))]...)
	return interrupted
}

// readAt is when the counts on record had been read of a hook, zero when that is not known: at the containment, before which
// the counters may have begun anew under a hook that an earlier incident had attached. A record of no verified hook lacks that
// time. A hook that is younger by its time was attached before the node's clock was set back, and so were its counters made.
func readAt(contained *metav1.MicroTime, known v1alpha1.Hook) (at time.Time) {
	for _, one := range []*metav1.MicroTime{contained, known.AttachedAt} {
		if one != nil && one.After(at) {
			at = one.Time
		}
	}
	return at
}

// beganAnew says whether the counts of a hook are not those on record, carried on: they are fewer, or those of counters that
// are newer than the record.
func beganAnew(known, now v1alpha1.Hook, since, read time.Time) bool {
	if now.Packets < known.Packets || now.Bytes < known.Bytes {
		return true
	}
	return !read.IsZero() && since.Sub(read) > sameHook
}

// attachedAnew says whether a hook is another one than that on record. One that is older by its time is so as well: somebody
// set the clock back before it was attached.
func attachedAnew(known, now v1alpha1.Hook) bool {
	return known.AttachedAt != nil && now.AttachedAt != nil && now.AttachedAt.Sub(known.AttachedAt.Time).Abs() > sameHook
}

func describe(hook v1alpha1.Hook) string {
	return fmt.Sprintf("%s attached at %s with %d packets of %d bytes", hook.ID, moment(hook.AttachedAt), hook.Packets, hook.Bytes)
}

func moment(at *metav1.MicroTime) string {
	if at.IsZero() {
		return "an unknown time"
	}
	return at.UTC().Format(time.RFC3339Nano)
}

// interrupted says of hooks that the record of podfreeze does not tell all of them.
func (u *unfreezeStep) interrupted(hooks []string) {
	if len(hooks) == 0 {
		return
	}
	u.lack(evidence.GapDropInterrupted, int64(len(hooks)), "hooks, or their counts, ended or began anew after podfreeze recorded them: packets may have passed since, "+
		"or been dropped without being counted or listed as flows: "+strings.Join(hooks, "; "))
}
