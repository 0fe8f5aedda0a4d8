//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// killer ends one pod of the system.
type killer func(ctx context.Context, pod corev1.Pod) error

func TestLifecycleKillControllerAndAgent(t *testing.T) {
	s := suite.stage(t, idle("only"))
	suite.strikeAfter(t, s)
	// Random bytes do not compress: enough of them that the capture takes long enough to be interrupted.
	suite.exec(t, s, victimName, "only", "sh", "-c", "head -c 300000000 /dev/urandom > /ballast")
	suite.detect(t, s)
	suite.awaitResponse(t, s, v1alpha1.StepSnapshot, started)
	// In its place, and with its pod once the capture goes on: the second kill finds those that came after the first.
	suite.killAll(t, s, killProcess)
	suite.awaitResponse(t, s, v1alpha1.StepSnapshot, func(r v1alpha1.EventResponse) bool { return r.Status.Attempts > 1 })
	suite.killAll(t, s, deletePod)
	suite.await(t, s, v1alpha1.ConditionUploaded, 2*captureTime)
	checkOnce(t, s, steps[:3])
	checkInterrupted(t, s)
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	checkOnce(t, s, steps)
}

func started(response v1alpha1.EventResponse) bool { return response.Status.StartedAt != nil }

// checkInterrupted demands that the capture was begun more than once: a kill that comes after its end proves nothing.
func checkInterrupted(t *testing.T, s *scene) {
	t.Helper()
	if snapshot := suite.responses(t, s)[v1alpha1.StepSnapshot]; snapshot.Status.Attempts < 2 {
		t.Errorf("the capture was begun %d times: no kill came in its middle", snapshot.Status.Attempts)
	}
}

// awaitResponse waits until a step's first response meets a demand.
func (c *cluster) awaitResponse(tb testing.TB, s *scene, step v1alpha1.Step, met func(v1alpha1.EventResponse) bool) v1alpha1.EventResponse {
	tb.Helper()
	var response v1alpha1.EventResponse
	err := eventually(tb.Context(), captureTime, func(ctx context.Context) (bool, string, error) {
		err := c.Get(ctx, client.ObjectKey{Name: v1alpha1.ResponseName(s.incident, step, 1)}, &response)
		return err == nil && met(response), describe(response.Status.Conditions), client.IgnoreNotFound(err)
	})
	if err != nil {
		tb.Fatalf("step %s: %v\n%s", step, err, c.account(tb.Context(), s))
	}
	return response
}

// killAll ends every controller that leads and the agent of the victim's node, as soon as both are there: those that were
// ended before may still be on their way back.
func (c *cluster) killAll(tb testing.TB, s *scene, kill killer) {
	tb.Helper()
	var killed []string
	err := eventually(tb.Context(), time.Minute, func(ctx context.Context) (bool, string, error) {
		targets, err := c.targets(ctx, s)
		if err != nil || len(targets) < 2 {
			return false, fmt.Sprintf("%d targets", len(targets)), err
		}
		killed = killed[:0]
		for _, pod := range targets {
			// Between the look and the act a container may have got a new id.
			if err := kill(ctx, pod); err != nil {
				return false, err.Error(), nil //nolint:nilerr // the next look finds the new id
			}
			killed = append(killed, pod.Name)
		}
		return true, "", nil
	})
	if err != nil {
		tb.Fatalf("kill the leading controllers and the node's agent: %v", err)
	}
	tb.Logf("killed %s", strings.Join(killed, ", "))
}

// targets are the pods of the system that lead, and the agent of the victim's node; nothing unless both are ready.
func (c *cluster) targets(ctx context.Context, s *scene) ([]corev1.Pod, error) {
	var pods corev1.PodList
	var leases coordinationv1.LeaseList
	if err := errors.Join(c.List(ctx, &pods), c.List(ctx, &leases, client.InNamespace(v1alpha1.NamespaceSystem))); err != nil {
		return nil, err
	}
	leaders := leaders(leases)
	var found []corev1.Pod
	agents, controllers := 0, 0
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp != nil || !ready(pod) {
			continue
		}
		switch {
		case pod.Namespace == v1alpha1.NamespacePrivileged && strings.HasPrefix(pod.Name, "ugallu-forensics-nodeagent-") &&
			pod.Spec.NodeName == s.victim.Spec.NodeName:
			agents++
		case leaders[pod.Name] && strings.HasPrefix(pod.Name, "ugallu-forensics-"):
			controllers++
		case !leaders[pod.Name]:
			continue
		}
		found = append(found, pod)
	}
	if agents == 0 || controllers == 0 {
		return nil, nil
	}
	return found, nil
}

func ready(pod corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// leaders are the pods that hold a lease of the system.
func leaders(leases coordinationv1.LeaseList) map[string]bool {
	found := map[string]bool{}
	for _, lease := range leases.Items {
		if holder := lease.Spec.HolderIdentity; holder != nil {
			name, _, _ := strings.Cut(*holder, "_")
			found[name] = true
		}
	}
	return found
}

// killProcess sends SIGKILL to the first process of each container, on its node.
func killProcess(ctx context.Context, pod corev1.Pod) error {
	for _, status := range pod.Status.ContainerStatuses {
		id := strings.TrimPrefix(status.ContainerID, "containerd://")
		if _, err := onNode(ctx, pod.Spec.NodeName, "ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", id); err != nil {
			return fmt.Errorf("kill %s: %w", pod.Name, err)
		}
	}
	return nil
}

func deletePod(ctx context.Context, pod corev1.Pod) error {
	_, err := suite.run(ctx, "-n", pod.Namespace, "delete", "pod", pod.Name, "--grace-period=0", "--force", "--wait=false")
	return err
}

// checkOnce demands one incident, one Completed event, one response a step, and one manifest in the store.
func checkOnce(t *testing.T, s *scene, wanted []v1alpha1.Step) {
	t.Helper()
	var incidents v1alpha1.IncidentList
	var events v1alpha1.SecurityEventList
	if err := errors.Join(suite.List(t.Context(), &incidents), suite.List(t.Context(), &events)); err != nil {
		t.Fatal(err)
	}
	opened, completed, failed := 0, 0, 0
	for _, incident := range incidents.Items {
		if incident.Spec.Trigger.UID == string(s.event.UID) {
			opened++
		}
	}
	for _, event := range events.Items {
		if event.Spec.Trigger != nil && event.Spec.Trigger.UID == string(s.event.UID) {
			switch event.Spec.Type {
			case v1alpha1.EventCaptureCompleted:
				completed++
			case v1alpha1.EventCaptureFailed:
				failed++
			}
		}
	}
	if opened != 1 || completed != 1 || failed != 0 {
		t.Errorf("%d incidents, %d Completed and %d Failed events, want 1, 1 and 0", opened, completed, failed)
	}
	responses := suite.responses(t, s)
	for _, step := range wanted {
		if response := responses[step]; response.Name != v1alpha1.ResponseName(s.incident, step, 1) || response.Status.Phase != v1alpha1.ResponseSucceeded {
			t.Errorf("%s: response %q is %q with gaps %+v\n%s", step, response.Name, response.Status.Phase,
				response.Status.Gaps, describe(response.Status.Conditions))
		}
	}
	if len(responses) != len(wanted) {
		t.Errorf("%d responses, want %d", len(responses), len(wanted))
	}
	if stored := suite.analyst(t).versions(t, "ugallu-forensics", v1alpha1.EvidencePrefix(s.incident)+"/manifest-"); len(stored) != 1 {
		t.Errorf("%d manifests are stored, want 1", len(stored))
	}
}

func TestLifecycleUnfreezeAt(t *testing.T) {
	const grace = 20 * time.Second
	short := strings.Replace(recipeConfig, "autoUnfreezeAfter: 4h", "autoUnfreezeAfter: "+grace.String(), 1)
	if _, err := suite.apply(t.Context(), short); err != nil {
		t.Fatal(err)
	}
	restored := false
	restore := func(ctx context.Context) error {
		_, err := suite.apply(ctx, recipeConfig)
		restored = err == nil
		return err
	}
	t.Cleanup(func() {
		if restored {
			return
		}
		if err := restore(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	s := suite.stage(t, idle("only"))
	suite.strikeAfter(t, s)
	suite.detect(t, s)
	suite.await(t, s, v1alpha1.ConditionContained, captureTime)
	// The running incident keeps the value it was opened with.
	if err := restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	incident := suite.await(t, s, v1alpha1.ConditionReleased, grace+time.Minute)
	unfreeze := suite.responses(t, s)[v1alpha1.StepUnfreeze]
	if reason := unfreeze.Spec.Action.PodUnfreeze.Reason; reason != v1alpha1.ReleaseDeadlineReached {
		t.Errorf("the pod was released for %s, want DeadlineReached", reason)
	}
	var completed v1alpha1.SecurityEvent
	suite.look(t, client.ObjectKey{Name: incident.Status.CompletionEvent.Name}, &completed)
	due := completed.CreationTimestamp.Add(grace)
	if completed.Status.UnfreezeAt == nil || !completed.Status.UnfreezeAt.Time.Equal(due) || !incident.Status.UnfreezeAt.Time.Equal(due) {
		t.Errorf("unfreezeAt is %v on the event and %v on the incident, want %s", completed.Status.UnfreezeAt, incident.Status.UnfreezeAt, due)
	}
	for _, container := range unfreeze.Status.Containment.Containers {
		if container.ThawedAt == nil || container.ThawedAt.Time.Before(due) {
			t.Errorf("container %s was thawed at %v, due was %s", container.Name, container.ThawedAt, due)
		}
	}
	suite.exec(t, s, victimName, "only", "true")
}
