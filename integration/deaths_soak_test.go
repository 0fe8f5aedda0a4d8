//go:build integration && soak

package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// death ends a victim while it is captured.
type death struct {
	name string
	// prepare is done to the pod before it starts; nil does nothing.
	prepare func(t *testing.T, pod *corev1.Pod)
	end     func(ctx context.Context, s *scene) error
}

// deletedAs deletes the pod as the one account that the guard lets through.
func deletedAs(flags ...string) func(ctx context.Context, s *scene) error {
	return func(ctx context.Context, s *scene) error {
		args := []string{
			"--as=system:serviceaccount:" + v1alpha1.NamespaceSystem + ":ugallu-forensics", "-n", s.namespace, "delete", "pod", victimName, "--wait=false",
		}
		_, err := suite.run(ctx, append(args, flags...)...)
		return err
	}
}

// crashed kills the container's first process, as the kernel does for want of memory.
func crashed(ctx context.Context, s *scene) error { return killProcess(ctx, s.victim) }

// healthName is the pod that the kubelet asks whether the victim lives.
const healthName = "health"

// healthElsewhere has another pod answer for the victim, which a frozen one could not: it is killed when that stops.
func healthElsewhere(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	s := &scene{namespace: pod.Namespace}
	suite.startPod(t, newPod(s.namespace, healthName, idle(healthName)))
	suite.installProbe(t, s, healthName, healthName)
	suite.background(t, s, healthName, healthName, fmt.Sprintf("/tmp/probe serve %d", livePort))
	address := suite.pod(t, client.ObjectKey{Namespace: s.namespace, Name: healthName}).Status.PodIP
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	pod.Spec.Containers[0].LivenessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: address, Path: "/", Port: intstr.FromInt32(livePort)}},
		PeriodSeconds: 1, FailureThreshold: 2, TimeoutSeconds: 10, // a busy machine kills nobody
	}
}

// unhealthy has the kubelet kill the container.
func unhealthy(ctx context.Context, s *scene) error {
	_, err := suite.run(ctx, "-n", s.namespace, "exec", healthName, "--", "killall", "probe")
	return err
}

// TestCaptureOutlivesThePod ends a pod at ten points of its capture. What was held is captured as without that, to the
// same digests; what went with the pod is captured or named.
func TestCaptureOutlivesThePod(t *testing.T) {
	deaths := []death{
		{"deleted by force", nil, deletedAs("--grace-period=0", "--force")},
		{"drained", nil, deletedAs("--grace-period=1")},
		{"crashed", nil, crashed},
		{"killed by its liveness probe", healthElsewhere, unhealthy},
	}
	points := []struct {
		name string
		met  func(v1alpha1.EventResponse) bool
	}{{"ordered", ordered}, {"started", started}}
	for n := 1; n <= 8; n++ {
		points = append(points, struct {
			name string
			met  func(v1alpha1.EventResponse) bool
		}{fmt.Sprintf("%d artifacts", n), func(r v1alpha1.EventResponse) bool { return len(r.Status.Artifacts) >= n }})
	}
	for i, point := range points {
		death := deaths[i%len(deaths)]
		t.Run(point.name+" "+death.name, func(t *testing.T) {
			victim := memoryVictim(t)
			if death.prepare != nil {
				death.prepare(t, victim)
			}
			undisturbed := suite.stagePod(t, victim)
			suite.strikeAfter(t, undisturbed)
			suite.exec(t, undisturbed, victimName, "only", "sh", "-c", plantEverywhere+"; head -c 100000000 /dev/urandom > /ballast")
			suite.detect(t, undisturbed)
			suite.await(t, undisturbed, v1alpha1.ConditionUploaded, captureTime)
			want := suite.responses(t, undisturbed)[v1alpha1.StepSnapshot]
			// Another incident captures the same pod, which stands still since then.
			disturbed := &scene{namespace: undisturbed.namespace, victim: undisturbed.victim}
			suite.detect(t, disturbed)
			suite.awaitResponse(t, disturbed, v1alpha1.StepSnapshot, point.met)
			if err := death.end(t.Context(), disturbed); err != nil {
				t.Fatal(err)
			}
			suite.await(t, disturbed, v1alpha1.ConditionUploaded, 2*captureTime)
			got := suite.responses(t, disturbed)[v1alpha1.StepSnapshot]
			for _, kind := range []v1alpha1.ArtifactKind{v1alpha1.ArtifactRootFilesystem, v1alpha1.ArtifactUpperLayer} {
				before, after := only(t, want, kind), only(t, got, kind)
				if after.SHA256 != before.SHA256 || after.MerkleRoot != before.MerkleRoot || after.Truncated {
					t.Errorf("%s: %s and %s, undisturbed %s and %s", after.Name, after.SHA256, after.MerkleRoot, before.SHA256, before.MerkleRoot)
				}
			}
			demandCapturedOrNamed(t, want, got)
			demandEnded(t, disturbed)
			if err := suite.release(t.Context(), disturbed); err != nil {
				t.Error(err)
			}
		})
	}
}

// demandEnded demands that the victim's container did end: a death that did not come proves nothing.
func demandEnded(t *testing.T, s *scene) {
	t.Helper()
	before := s.victim.Status.ContainerStatuses[0].ContainerID
	err := eventually(t.Context(), 5*time.Minute, func(ctx context.Context) (bool, string, error) {
		found, err := states(ctx, s.victim.Spec.NodeName)
		state := found[strings.TrimPrefix(before, "containerd://")]
		return state == "" || strings.EqualFold(state, "stopped"), state, err
	})
	if err != nil {
		t.Errorf("the container did not end: %v", err)
	}
}

// demandCapturedOrNamed demands that each artifact of the undisturbed capture is there, or that a gap says why not.
func demandCapturedOrNamed(t *testing.T, want, got v1alpha1.EventResponse) {
	t.Helper()
	for _, artifact := range want.Status.Artifacts {
		same := func(a v1alpha1.Artifact) bool { return a.Name == artifact.Name }
		if slices.ContainsFunc(got.Status.Artifacts, same) {
			continue
		}
		named := slices.ContainsFunc(got.Status.Gaps, func(g v1alpha1.GapCount) bool {
			return strings.Contains(g.Message, artifact.Name) || g.Count > 1
		})
		if !named || got.Status.Phase != v1alpha1.ResponsePartial {
			t.Errorf("%s is missing, the response is %q, and its gaps do not say so: %+v", artifact.Name, got.Status.Phase, got.Status.Gaps)
		}
	}
	t.Logf("%d of %d artifacts, gaps %+v", len(got.Status.Artifacts), len(want.Status.Artifacts), got.Status.Gaps)
}

// TestCaptureGoesOnInsideAnArtifact kills the agent once a segment of an archive is recorded and the archive is not. The
// segment stays the artifact's, and is not stored again.
func TestCaptureGoesOnInsideAnArtifact(t *testing.T) {
	s := suite.stage(t, idle("only"))
	suite.strikeAfter(t, s)
	suite.exec(t, s, victimName, "only", "sh", "-c", "head -c 2700000000 /dev/urandom > /ballast")
	suite.detect(t, s)
	storing := suite.awaitResponse(t, s, v1alpha1.StepSnapshot, func(r v1alpha1.EventResponse) bool {
		storing := r.Status.Storing
		return storing != nil && strings.HasSuffix(storing.Artifact, "/changes.tar.zst") && len(storing.Segments) == 1
	}).Status.Storing
	var pods corev1.PodList
	if err := suite.List(t.Context(), &pods); err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		if strings.HasPrefix(pod.Name, "ugallu-forensics-nodeagent-") && pod.Spec.NodeName == s.victim.Spec.NodeName {
			if err := killProcess(t.Context(), pod); err != nil {
				t.Fatal(err)
			}
		}
	}
	suite.await(t, s, v1alpha1.ConditionUploaded, 4*captureTime)
	checkOnce(t, s, steps[:3])
	checkInterrupted(t, s)
	snapshot := suite.responses(t, s)[v1alpha1.StepSnapshot]
	at := slices.IndexFunc(snapshot.Status.Artifacts, func(a v1alpha1.Artifact) bool { return a.Name == storing.Artifact })
	if at < 0 {
		t.Fatalf("%s is not among the artifacts", storing.Artifact)
	}
	artifact := snapshot.Status.Artifacts[at]
	if first := artifact.Segments[0]; len(artifact.Segments) < 2 || first.Key != storing.Segments[0].Key || first.VersionID != storing.Segments[0].VersionID {
		t.Errorf("%d segments, the first %+v, recorded before the kill %+v", len(artifact.Segments), first, storing.Segments[0])
	}
	stored := 0
	for _, object := range suite.analyst(t).versions(t, "ugallu-forensics", v1alpha1.EvidencePrefix(s.incident)+"/artifacts/"+artifact.Name+"/") {
		if !strings.HasSuffix(object.Key, ".claim") {
			stored++
		}
	}
	if stored > len(artifact.Segments)+1 {
		t.Errorf("%d objects are stored for %d segments: more than one was repeated", stored, len(artifact.Segments))
	}
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}
