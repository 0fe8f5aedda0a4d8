//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// Where a privileged victim sees the node's cgroups, and the command of the escape that it makes.
const (
	nodeCgroups = "/node-cgroup"
	ownCgroups  = "/sys/fs/cgroup"
)

// escape is a way of a process into a cgroup of its own making: the folders, in hierarchies that this kind of node may
// not have, are tried in order; of v2 and of v1 the first that is there is taken.
type escape struct {
	name string
	// v2 and freezer say which memberships are left behind.
	v2, freezer bool
	root        string
}

var escapes = []escape{
	{name: "v2", v2: true, root: nodeCgroups},
	{name: "freezer", freezer: true, root: nodeCgroups},
	{name: "both", v2: true, freezer: true, root: nodeCgroups},
	// In its own view it can only go below its container's cgroup.
	{name: "below", v2: true, freezer: true, root: ownCgroups},
}

// command moves the shell that runs it and then becomes the sender. Where a hierarchy is missing, the kind of node is
// pure v2 and has no other way to freeze.
func (e escape) command(folder, then string) string {
	var moves []string
	into := func(roots string) {
		moves = append(moves, fmt.Sprintf("for root in %s; do if [ -e $root/cgroup.procs ]; then mkdir -p $root/%s && echo $$ >$root/%s/cgroup.procs && break; fi; done",
			roots, folder, folder))
	}
	if e.v2 {
		into(e.root + "/unified " + e.root)
	}
	if e.freezer {
		into(e.root + "/freezer")
	}
	return "sh -c '" + strings.Join(append(moves, "exec "+then), "; ") + "'"
}

// privilegedPod is a victim that is given the node's cgroups, as some monitoring agents are.
func privilegedPod(namespace string) *corev1.Pod {
	one := idle("only")
	one.SecurityContext = &corev1.SecurityContext{Privileged: new(true)}
	one.VolumeMounts = []corev1.VolumeMount{{Name: "cgroup", MountPath: nodeCgroups}}
	pod := newPod(namespace, victimName, one)
	source := corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/sys/fs/cgroup"}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "cgroup", VolumeSource: source}}
	return pod
}

// escapeNodePort is where the node of this pod counts.
const escapeNodePort = "9101"

// TestContainmentEscapedProcessesStaySilent has processes leave the pod's cgroup, or its freezer, before the event. What
// still runs must not get a byte out, not even over a link that comes later.
func TestContainmentEscapedProcessesStaySilent(t *testing.T) {
	s := suite.stagePod(t, privilegedPod(suite.namespace(t)))
	folder := s.namespace
	tidyCgroups(t, s, folder)
	suite.strikeAfter(t, s)
	suite.installProbe(t, s, victimName, "only")
	s.outside = suite.receive(t, s)
	commands, tags := map[string]string{}, []string{}
	for _, escape := range escapes {
		for _, kind := range []string{"udp", "tcp"} {
			tag := escape.name + "-" + kind
			commands[tag] = escape.command(folder, sender(kind, s.outside.address, tag))
			tags = append(tags, tag)
		}
	}
	suite.stream(t, s, "only", s.outside, commands)
	onNode := suite.receiveOnNode(t, s.victim.Spec.NodeName, s.namespace+"-sink", escapeNodePort, "")
	late := sender("udp", lateNodeAddress+":"+escapeNodePort, "late") + " " + lateDevice
	suite.background(t, s, victimName, "only", escapes[2].command(folder, late))
	logCgroups(t, s)
	suite.detect(t, s)
	containment := suite.containment(t, s)
	if containment.Level != v1alpha1.LevelFull {
		t.Errorf("level is %s, want Full: the pod's device has both hooks\n%s", containment.Level, suite.account(t.Context(), s))
	}
	demandFrozen(t, s, containment)
	demandSilence(t, s, s.outside, containment.ContainedAt.Time, tags...)
	link := suite.addLink(t, s, "only", "forensicslate1", func() {})
	covered := suite.awaitCovered(t, s, link)
	demandCovered(t, link, onNode, covered, "late")
	demandSilence(t, s, s.outside, containment.ContainedAt.Time, tags...)
	demandEscapesTold(t, s, containment)
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	demandRestored(t, s, s.outside, tags...)
	demandLateDropsTold(t, s, link)
}

// demandEscapesTold demands that the record counts the processes that left the pod's cgroup v2.
func demandEscapesTold(t *testing.T, s *scene, containment v1alpha1.Containment) {
	t.Helper()
	left, frozenElsewhere := 1, 1 // the late sender
	for _, escape := range escapes {
		if escape.root == nodeCgroups && escape.v2 {
			left += 2
		}
		if escape.root == nodeCgroups && (escape.v2 || escape.freezer) {
			frozenElsewhere += 2
		}
	}
	freeze := suite.responses(t, s)[v1alpha1.StepFreeze]
	if int(containment.EscapedProcesses) < left {
		t.Errorf("%d escaped processes are told, at least %d left the pod's cgroup\n%s", containment.EscapedProcesses, left,
			describe(freeze.Status.Conditions))
	}
	t.Logf("%d escaped processes are told; %d left the cgroup, %d the cgroup or its freezer\n%s", containment.EscapedProcesses, left,
		frozenElsewhere, describe(freeze.Status.Conditions))
}

// demandLateDropsTold demands that the record of the release counts what was dropped on a link that came late.
func demandLateDropsTold(t *testing.T, s *scene, link lateLink) {
	t.Helper()
	told := ""
	dropped := int64(0)
	for _, hook := range suite.responses(t, s)[v1alpha1.StepUnfreeze].Status.Containment.Hooks {
		told += fmt.Sprintf("%s: %d packets\n", hook.ID, hook.Packets)
		if strings.HasSuffix(hook.ID, "-"+link.index) || strings.Contains(hook.ID, "-inside-"+link.index+"-") {
			dropped += hook.Packets
		}
	}
	if dropped == 0 {
		t.Errorf("podunfreeze counts no packet that was dropped on device %s:\n%s", link.index, told)
	}
}

// logCgroups tells where the victim's processes are when the event comes.
func logCgroups(t *testing.T, s *scene) {
	t.Helper()
	t.Log(suite.exec(t, s, victimName, "only", "sh", "-c",
		`for p in /proc/[0-9]*; do echo $(tr "\0" " " <$p/cmdline 2>/dev/null) $(grep -E "^0::|freezer" $p/cgroup 2>/dev/null); done | grep "probe send"`))
}

// tidyCgroups removes the cgroups that the escapes made, once nothing is in them any more. A scene that is left for whoever
// looks into it keeps them.
func tidyCgroups(t *testing.T, s *scene, folder string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		err := eventually(context.WithoutCancel(t.Context()), time.Minute, func(ctx context.Context) (bool, string, error) {
			_, err := onNode(ctx, s.victim.Spec.NodeName, "sh", "-ec",
				"for made in $(find /sys/fs/cgroup -depth -type d -name "+folder+"); do rmdir $made; done")
			return err == nil, fmt.Sprint(err), nil
		})
		if err != nil {
			t.Errorf("remove the cgroups of the escapes: %v", err)
		}
	})
}

// bombed is how many processes the fork bomb keeps going, and pidsLimit what its pod may have.
const (
	bombed    = "200"
	pidsLimit = "600"
)

// TestContainmentForkBomb freezes a pod in which no process lives for longer than 20 ms.
func TestContainmentForkBomb(t *testing.T) {
	s := suite.stage(t, idle("only"))
	suite.strikeAfter(t, s)
	suite.installProbe(t, s, victimName, "only")
	s.outside = suite.receive(t, s)
	limitPids(t, s)
	suite.stream(t, s, "only", s.outside, map[string]string{"bomb": "/tmp/probe bomb " + s.outside.address + " " + bombed + " bomb"})
	suite.detect(t, s)
	containment := suite.containment(t, s)
	if containment.Level != v1alpha1.LevelFull {
		t.Errorf("level is %s, want Full\n%s", containment.Level, suite.account(t.Context(), s))
	}
	demandFrozen(t, s, containment)
	demandSilence(t, s, s.outside, containment.ContainedAt.Time, "bomb")
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
}

// limitPids bounds the pod's processes on its node, as the kubelet's podPidsLimit does.
func limitPids(t *testing.T, s *scene) {
	t.Helper()
	pattern := "*pod" + strings.ReplaceAll(string(s.victim.UID), "-", "_") + ".slice"
	told, err := onNode(t.Context(), s.victim.Spec.NodeName, "sh", "-c", "for slice in $(find /sys/fs/cgroup -type d -name '"+pattern+
		"'); do if [ -e $slice/pids.max ]; then echo "+pidsLimit+" >$slice/pids.max && echo $slice; fi; done")
	if err != nil {
		t.Fatal(err)
	}
	if told == "" {
		t.Log("not run: a limit of processes, for which the node has no controller; the bomb bounds itself")
	}
}
