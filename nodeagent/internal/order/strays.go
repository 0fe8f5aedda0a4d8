package order

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"ugallu.io/forensics/api/v1alpha1"
)

// strayRounds are the rounds of stopping processes that left their containers' reach: one may have started another before
// it was stopped.
const strayRounds = 3

// stray stops the processes that the freeze of the containers does not reach, or counts them when nothing is to be frozen,
// and cuts off the networks that they are in.
func (f *freezeStep) stray(ctx context.Context, containment *v1alpha1.Containment, pod *corev1.Pod, found Pod) {
	strays := stopStrays(ctx, f.node, found, containment.FreezeMethod != v1alpha1.FreezeNone)
	// A container that ended may have reached the sandbox's process before.
	if ptr.Deref(pod.Spec.ShareProcessNamespace, false) && !errors.Is(strays.lookErr, ErrSandboxRuns) {
		strays.lookErr = errors.Join(strays.lookErr, ErrSandboxRuns)
	}
	if err := errors.Join(strays.lookErr, strays.stopErr); err != nil {
		f.fallShort("processes outside their containers' cgroups: %v", err)
	}
	containment.EscapedProcesses, containment.StoppedProcesses = counted(strays.found), counted(strays.stopped)
	if left := strays.found - strays.stopped; left > 0 {
		f.fallShort("%d processes of the pod left its cgroups and run", left)
	}
	f.dropAgain(ctx, containment, found, strays.seen)
}

// dropAgain cuts the pod off once more, this time knowing of the strays: the first drop knew only the networks of
// processes in the pod's cgroups. A pod that was frozen ran until then, and what it changed in its networks meanwhile is
// found now that it stands still. The first packet of the reporter proved what it proved, and where this attaches nothing
// the pod is contained since the first drop.
func (f *freezeStep) dropAgain(ctx context.Context, containment *v1alpha1.Containment, found Pod, strays []Stray) {
	if len(strays) == 0 && containment.FreezeMethod == v1alpha1.FreezeNone {
		return
	}
	began := f.node.Clock.Now()
	found.Processes = slices.Clone(found.Processes)
	for _, stray := range strays {
		found.Processes = append(found.Processes, stray.Process)
	}
	dropped := f.drop(ctx, found, Cut{Running: containment.FreezeMethod == v1alpha1.FreezeNone})
	nothingNew := len(strays) == 0 && len(attachedSince(dropped.Hooks, began)) == 0
	if dropped.ContainedAt.IsZero() || (nothingNew && containment.ContainedAt != nil) {
		return
	}
	probed := make(map[string]*metav1.MicroTime, len(containment.Hooks))
	for _, hook := range containment.Hooks {
		probed[hook.ID] = hook.ProbedAt
	}
	dropped.Hooks = slices.Clone(dropped.Hooks)
	for i := range dropped.Hooks {
		if at := probed[dropped.Hooks[i].ID]; at != nil {
			dropped.Hooks[i].ProbedAt = at
		}
	}
	takeDrop(containment, dropped)
}

// strays are what was found outside the reach of a pod's freeze.
type strays struct {
	// found and stopped count those as well that were stopped before.
	found, stopped int
	// seen are the others, each once.
	seen []Stray
	// lookErr is of the last look, which is the one that tells what is left.
	lookErr error
	stopErr error
}

// stopStrays looks again after it has stopped some, until a look finds no more. What the look after the last round finds
// was not stopped, whatever was said of it.
func stopStrays(ctx context.Context, node Node, pod Pod, stopping bool) strays {
	var all strays
	var already, stopped, left int
	for round := 0; ; round++ {
		running, before, err := node.Containers.Strays(ctx, pod.UID)
		all.lookErr = err
		left = len(running)
		if round == 0 {
			already = before
		}
		for _, stray := range running {
			if !slices.Contains(all.seen, stray) {
				all.seen = append(all.seen, stray)
			}
		}
		if left == 0 || !stopping || round == strayRounds {
			break
		}
		// One that cannot be stopped does not keep those that others start meanwhile.
		stood, err := node.Freeze.Stop(ctx, pod, running)
		stopped += stood
		all.stopErr = errors.Join(all.stopErr, err)
	}
	all.found = already + len(all.seen)
	all.stopped = already + min(stopped, len(all.seen)-left)
	return all
}

// maxCounted is what a status can say.
const maxCounted = 1 << 30

func counted(count int) int32 {
	return int32(min(count, maxCounted)) // #nosec G115 -- bounded here
}
