//go:build integration

package integration

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// talkative are the kinds that show every layer: a stream, sockets, and frames that no socket hook sees.
var talkative = []string{"tcp", "udp", "ping", "packet"}

// talkingScene is a victim of one container that talks in several ways.
func talkingScene(t *testing.T) *scene {
	t.Helper()
	pod := newPod(suite.namespace(t), victimName, idle("only"))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ping_group_range", Value: "0 2147483647"}},
	}
	s := suite.stagePod(t, pod)
	suite.strikeAfter(t, s)
	suite.installProbe(t, s, victimName, "only")
	s.outside = suite.receive(t, s)
	suite.stream(t, s, "only", s.outside, senders(s.outside, talkative...))
	return s
}

func TestContainmentReleaseRestores(t *testing.T) {
	s := talkingScene(t)
	suite.detect(t, s)
	containment := suite.containment(t, s)
	demandSilence(t, s, s.outside, containment.ContainedAt.Time, talkative...)
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	demandRestored(t, s, s.outside, talkative...)
}

// killedBy is how long after its restart containerd has ended what it took for unknown, and the kubelet started another.
const killedBy = 70 * time.Second

// restoredTCP is longer than the longest pause of a TCP stream between two attempts, which doubles with each: two minutes.
const restoredTCP = 150 * time.Second

// vital tells a container that stood still from one that ran or was replaced: its first process, when that started, and the
// processor time of its cgroup.
type vital struct{ id, process, started, used string }

// lookAlive prints the second and the third of these. Each cgroup of the second version counts its time.
const lookAlive = `sed 's/.*) //' /proc/%[1]s/stat | cut -d' ' -f20
root=/sys/fs/cgroup/unified; [ -d $root ] || root=/sys/fs/cgroup
sed -n 's/^usage_usec //p' $root$(sed -n 's/^0:://p' /proc/%[1]s/cgroup)/cpu.stat`

// vitals are those of the victim's containers, by name.
func (c *cluster) vitals(tb testing.TB, s *scene) map[string]vital {
	tb.Helper()
	node := s.victim.Spec.NodeName
	running, err := tasks(tb.Context(), node)
	if err != nil {
		tb.Fatal(err)
	}
	found := map[string]vital{}
	for name, id := range c.containerIDs(tb, s.suspect()) {
		process := running[id].process
		said, err := onNode(tb.Context(), node, "sh", "-ec", fmt.Sprintf(lookAlive, process))
		lines := strings.Fields(said)
		if err != nil || len(lines) != 2 {
			tb.Fatalf("look at process %q of container %s: %q, %v", process, name, said, err)
		}
		found[name] = vital{id, process, lines[0], lines[1]}
	}
	return found
}

// demandUntouched demands that the victim's containers are those from before and did not run since.
func demandUntouched(t *testing.T, s *scene, before map[string]vital) {
	t.Helper()
	if after := suite.vitals(t, s); !maps.Equal(before, after) {
		t.Errorf("the containers were %+v and are %+v", before, after)
	}
}

// TestContainmentOutlivesContainerd restarts the container runtime under a contained pod, in the middle of its capture. The
// same containers are frozen a while later, with the memory they had.
func TestContainmentOutlivesContainerd(t *testing.T) {
	s := talkingScene(t)
	suite.exec(t, s, victimName, "only", "sh", "-c", "head -c 300000000 /dev/urandom > /ballast")
	suite.detect(t, s)
	containment := suite.containment(t, s)
	demandFrozen(t, s, containment)
	before := suite.vitals(t, s)
	// The way to the store leads through the runtime.
	suite.leaveStore(t)
	if _, err := onNode(t.Context(), s.victim.Spec.NodeName, "systemctl", "restart", "containerd"); err != nil {
		t.Fatal(err)
	}
	restarted := time.Now()
	watchStill(restarted)
	demandSilence(t, s, s.outside, containment.ContainedAt.Time, talkative...)
	demandPaused(t, s)
	suite.await(t, s, v1alpha1.ConditionUploaded, 2*captureTime)
	checkOnce(t, s, steps[:3])
	watchStill(restarted.Add(killedBy - stillness))
	demandPaused(t, s)
	demandUntouched(t, s, before)
	letGoAtLast(t, s)
}

// letGoAtLast releases a pod that was contained for long and demands that it talks again, the stream with its longest pause.
func letGoAtLast(t *testing.T, s *scene) {
	t.Helper()
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	released := time.Now()
	demandRestored(t, s, s.outside, talkative[1:]...)
	if err := s.outside.awaitFlows(t, released, restoredTCP, talkative[0]); err != nil {
		t.Errorf("the stream does not go on: %v", err)
	}
}

// livePort is where the victim says that it is healthy.
const livePort = 8080

// TestContainmentSuccessorOfAKilledContainer lets the kubelet kill a frozen container, whose probe gets no answer, and
// start another one, which would send at once.
func TestContainmentSuccessorOfAKilledContainer(t *testing.T) {
	s := &scene{namespace: suite.namespace(t)}
	s.outside = suite.receive(t, s)
	pod := livingPod(s, 3)
	startWithProbe(t, s, pod)
	suite.strikeAfter(t, s)
	if err := s.outside.awaitFlows(t, time.Time{}, 30*time.Second, "life"); err != nil {
		t.Fatal(err)
	}
	before := suite.containerIDs(t, s.suspect())["only"]
	suite.detect(t, s)
	containment := suite.containment(t, s)
	demandFrozen(t, s, containment)
	awaitSuccessor(t, s, before)
	demandPaused(t, s)
	watchStill(time.Now())
	demandSilence(t, s, s.outside, containment.ContainedAt.Time, "life")
	demandPaused(t, s)
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
}

// livingPod sends under the tag life and answers its probes; so many failures a second apart end its container.
func livingPod(s *scene, failures int32) *corev1.Pod {
	one, side := idle("only"), idle(sideName)
	side.VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: sharedDir}}
	one.VolumeMounts = side.VolumeMounts
	probe := sharedDir + "/probe"
	one.Command = []string{"sh", "-c", fmt.Sprintf("until [ -x %[1]s ]; do sleep 0.1; done; %[1]s send udp %[2]s life & exec %[1]s serve %[3]d",
		probe, s.outside.address, livePort)}
	healthy := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(livePort)}}
	one.StartupProbe = &corev1.Probe{ProbeHandler: healthy, PeriodSeconds: 1, FailureThreshold: 600}
	one.LivenessProbe = &corev1.Probe{ProbeHandler: healthy, PeriodSeconds: 1, FailureThreshold: failures}
	pod := newPod(s.namespace, victimName, one, side)
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	pod.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	return pod
}

// startWithProbe starts a pod whose containers wait for the probe in their shared folder.
func startWithProbe(t *testing.T, s *scene, pod *corev1.Pod) {
	t.Helper()
	if err := suite.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	err := eventually(t.Context(), time.Minute, func(ctx context.Context) (bool, string, error) {
		binary, err := os.Open(suite.probe)
		if err != nil {
			return false, "", err
		}
		defer func() { _ = binary.Close() }()
		_, err = suite.runWith(ctx, binary, "-n", s.namespace, "exec", "-i", victimName, "-c", sideName, "--", "sh", "-c",
			"cat > "+sharedDir+"/.probe && chmod 755 "+sharedDir+"/.probe && mv "+sharedDir+"/.probe "+sharedDir+"/probe")
		return err == nil, fmt.Sprint(err), nil
	})
	if err != nil {
		t.Fatalf("put the probe into the pod's shared folder: %v", err)
	}
	suite.must(t, "-n", s.namespace, "wait", "pod/"+victimName, "--for=condition=Ready", "--timeout=80s")
	s.victim = suite.pod(t, s.suspect())
}

// awaitSuccessor waits until another container runs in the place of one. A kill that meets the freezer at work leaves the
// process frozen, and the kubelet tries again after two minutes.
func awaitSuccessor(t *testing.T, s *scene, before string) {
	t.Helper()
	err := eventually(t.Context(), 5*time.Minute, func(ctx context.Context) (bool, string, error) {
		var pod corev1.Pod
		if err := suite.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: victimName}, &pod); err != nil {
			return false, "", err
		}
		now := suite.containerIDs(t, s.suspect())["only"]
		found, err := states(ctx, s.victim.Spec.NodeName)
		return now != before && found[now] != "", fmt.Sprintf("container %.12s is %q", now, found[now]), err
	})
	if err != nil {
		t.Fatalf("the kubelet did not replace the container: %v", err)
	}
}

// TestContainmentExecProbesOfAFrozenPod has the runtime refuse what the kubelet wants to run in a frozen container, at once:
// an answer that is no failure of the probe. One that waited for the frozen process would be, as is the one that may be under
// way at the freeze: it takes two to have the container killed.
func TestContainmentExecProbesOfAFrozenPod(t *testing.T) {
	one := idle("only")
	one.LivenessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}},
		PeriodSeconds: 1, FailureThreshold: 2, TimeoutSeconds: 2,
	}
	s := suite.stage(t, one)
	suite.strikeAfter(t, s)
	before := suite.containerIDs(t, s.suspect())
	suite.detect(t, s)
	containment := suite.containment(t, s)
	demandFrozen(t, s, containment)
	for _, container := range containment.Containers {
		if container.ProbeKillExpectedAt != nil || container.ProbeKill != "" {
			t.Errorf("container %s is said to be killed by %s", container.Name, container.ProbeKill)
		}
	}
	began := time.Now()
	output, err := onNode(t.Context(), s.victim.Spec.NodeName, "ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", "look", before["only"], "true")
	if err == nil || !strings.Contains(err.Error(), "paused") {
		t.Errorf("exec into a frozen container: %q, %v", output, err)
	}
	t.Logf("exec was refused after %s", time.Since(began).Round(time.Millisecond))
	watchStill(began.Add(20*time.Second - stillness))
	demandPaused(t, s)
	if after := suite.containerIDs(t, s.suspect()); !maps.Equal(before, after) {
		t.Errorf("the containers were %v and are %v", before, after)
	}
}
