//go:build integration && soak

package integration

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// outage is how long a server stays away: longer than a client's own retries, shorter than any deadline.
const outage = time.Minute

// killAndReplace ends the processes of a pod at once and then the pod: its successor starts without the kubelet's
// growing pause between restarts.
func killAndReplace(ctx context.Context, pod corev1.Pod) error {
	if err := killProcess(ctx, pod); err != nil {
		return err
	}
	return deletePod(ctx, pod)
}

func completed(response v1alpha1.EventResponse) bool { return response.Status.CompletedAt != nil }

func ordered(v1alpha1.EventResponse) bool { return true }

// TestLifecycleCrashMatrix kills the leading controllers, the attestor and the victim's agent at each point of an
// incident that can be told from outside. Whatever the point, everything happens, and happens once.
func TestLifecycleCrashMatrix(t *testing.T) {
	points := []struct {
		name string
		step v1alpha1.Step
		met  func(v1alpha1.EventResponse) bool
	}{
		{"podfreeze ordered", v1alpha1.StepFreeze, ordered},
		{"podfreeze done", v1alpha1.StepFreeze, completed},
		{"snapshot ordered", v1alpha1.StepSnapshot, ordered},
		{"snapshot started", v1alpha1.StepSnapshot, started},
		{"snapshot done", v1alpha1.StepSnapshot, completed},
		{"upload ordered", v1alpha1.StepUpload, ordered},
		{"upload done", v1alpha1.StepUpload, completed},
		{"podunfreeze ordered", v1alpha1.StepUnfreeze, ordered},
		{"podunfreeze done", v1alpha1.StepUnfreeze, completed},
	}
	for _, point := range points {
		t.Run(point.name, func(t *testing.T) {
			s := suite.stage(t, idle("only"))
			suite.strikeAfter(t, s)
			suite.exec(t, s, victimName, "only", "sh", "-c", "head -c 300000000 /dev/urandom > /ballast")
			suite.detect(t, s)
			releasing := point.step == v1alpha1.StepUnfreeze
			if releasing {
				suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
				if err := suite.acknowledge(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			suite.awaitResponse(t, s, point.step, point.met)
			suite.killAll(t, s, killAndReplace)
			if !releasing {
				suite.await(t, s, v1alpha1.ConditionUploaded, 2*captureTime)
				if err := suite.acknowledge(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			suite.await(t, s, v1alpha1.ConditionReleased, captureTime)
			suite.await(t, s, v1alpha1.ConditionAttested, captureTime)
			checkOnce(t, s, steps)
			if point.name == "snapshot started" {
				checkInterrupted(t, s)
			}
			suite.exec(t, s, victimName, "only", "true")
		})
	}
}

// TestCustodyLogAway stops the transparency log after the pod is contained: nothing but the seals waits for it.
func TestCustodyLogAway(t *testing.T) {
	s := suite.stage(t, idle("only"))
	suite.strikeAfter(t, s)
	suite.exec(t, s, victimName, "only", "sh", "-c", "head -c 200000000 /dev/urandom > /ballast")
	suite.detect(t, s)
	suite.awaitResponse(t, s, v1alpha1.StepSnapshot, started)
	back := suite.stop(t, "rekor")
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	var incident v1alpha1.Incident
	suite.look(t, client.ObjectKey{Name: s.incident}, &incident)
	if isTrue(incident.Status.Conditions, v1alpha1.ConditionAttested) {
		t.Error("the incident says Attested while the log is away")
	}
	back()
	suite.await(t, s, v1alpha1.ConditionAttested, 2*captureTime)
	checkOnce(t, s, steps)
}

// TestCaptureStoreAway stops the store in the middle of an archive: the capture goes on when it is back, and what is
// stored then is what the manifest says.
func TestCaptureStoreAway(t *testing.T) {
	s := suite.stage(t, idle("only"))
	suite.strikeAfter(t, s)
	suite.exec(t, s, victimName, "only", "sh", "-c", "head -c 400000000 /dev/urandom > /ballast")
	suite.detect(t, s)
	suite.awaitResponse(t, s, v1alpha1.StepSnapshot, started)
	back := suite.stop(t, storeService)
	if snapshot := suite.responses(t, s)[v1alpha1.StepSnapshot]; snapshot.Status.CompletedAt != nil {
		t.Fatal("the capture ended before the store was stopped")
	}
	time.Sleep(outage)
	back()
	suite.await(t, s, v1alpha1.ConditionUploaded, 4*captureTime)
	checkOnce(t, s, steps[:3])
	snapshot := suite.responses(t, s)[v1alpha1.StepSnapshot]
	for _, artifact := range snapshot.Status.Artifacts {
		for _, segment := range artifact.Segments {
			suite.analyst(t).fetch(t, "ugallu-forensics", segment)
		}
	}
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// stop scales a server to nothing and returns what brings it back. A port forward that led to it is closed.
func (c *cluster) stop(tb testing.TB, server string) (back func()) {
	tb.Helper()
	scale := func(ctx context.Context, replicas string) error {
		_, err := c.run(ctx, "-n", storeNamespace, "scale", "deployment", server, "--replicas="+replicas)
		return err
	}
	start := func(ctx context.Context) error {
		if err := scale(ctx, "1"); err != nil {
			return err
		}
		_, err := c.run(ctx, "-n", storeNamespace, "rollout", "status", "deployment", server, "--timeout=80s")
		return err
	}
	tb.Cleanup(func() {
		if err := start(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	if server == storeService {
		c.leaveStore(tb)
	}
	if err := scale(tb.Context(), "0"); err != nil {
		tb.Fatal(err)
	}
	c.must(tb, "-n", storeNamespace, "wait", "pod", "-l", "app.kubernetes.io/name="+server, "--for=delete", "--timeout=80s")
	return func() {
		if err := start(tb.Context()); err != nil {
			tb.Fatal(err)
		}
	}
}
