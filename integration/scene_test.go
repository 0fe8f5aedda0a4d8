//go:build integration

package integration

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// scene is one namespace with a victim, and the incident about it once there is one.
type scene struct {
	namespace string
	victim    corev1.Pod
	event     v1alpha1.SecurityEvent
	// emitted is this machine's time just before the event was created.
	emitted  time.Time
	incident string
	// outside counts what the victim sends.
	outside receiver
}

// victimName is the name of the suspect pod in every scene.
const victimName = "victim"

// stage makes a namespace with the victim, from containers that sleep or serve, and waits until it is ready.
func (c *cluster) stage(tb testing.TB, containers ...corev1.Container) *scene {
	tb.Helper()
	return c.stagePod(tb, newPod(c.namespace(tb), victimName, containers...))
}

// stagePod makes the victim that is given.
func (c *cluster) stagePod(tb testing.TB, victim *corev1.Pod) *scene {
	tb.Helper()
	c.startPod(tb, victim)
	return &scene{namespace: victim.Namespace, victim: c.pod(tb, client.ObjectKeyFromObject(victim))}
}

func (c *cluster) namespace(tb testing.TB) string {
	tb.Helper()
	name := "forensics-test-" + strings.ToLower(rand.Text()[:8])
	c.must(tb, "create", "namespace", name)
	return name
}

func newPod(namespace, name string, containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			Containers: containers, RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: new(int64(1)),
		},
	}
}

// startPod creates a pod and waits until it is ready.
func (c *cluster) startPod(tb testing.TB, pod *corev1.Pod) {
	tb.Helper()
	if err := c.Create(tb.Context(), pod); err != nil {
		tb.Fatalf("create pod %s: %v", pod.Name, err)
	}
	out, err := c.run(tb.Context(), "-n", pod.Namespace, "wait", "pod/"+pod.Name, "--for=condition=Ready", "--timeout=80s")
	if err != nil {
		described, _ := c.run(tb.Context(), "-n", pod.Namespace, "describe", "pod", pod.Name)
		tb.Fatalf("pod %s is not ready: %v\n%s\n%s", pod.Name, err, out, described)
	}
}

// idle is a container of busybox that does nothing until it is killed.
func idle(name string) corev1.Container {
	return corev1.Container{
		Name: name, Image: "busybox", ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sleep", "100000"},
	}
}

// web is a container of nginx with a real root filesystem.
func web(name string) corev1.Container {
	return corev1.Container{Name: name, Image: "nginx", ImagePullPolicy: corev1.PullIfNotPresent}
}

// look reads an object and ends the test when it is not there.
func (c *cluster) look(tb testing.TB, key client.ObjectKey, object client.Object) {
	tb.Helper()
	if err := c.Get(tb.Context(), key, object); err != nil {
		tb.Fatalf("get %T %s: %v", object, key, err)
	}
}

// pod reads a pod that must be there.
func (c *cluster) pod(tb testing.TB, key client.ObjectKey) corev1.Pod {
	tb.Helper()
	var pod corev1.Pod
	c.look(tb, key, &pod)
	return pod
}

// suspect is where a scene's victim is.
func (s *scene) suspect() client.ObjectKey {
	return client.ObjectKey{Namespace: s.namespace, Name: victimName}
}

// exec runs a command in a container of a scene's pod; the program is not affected by the pod's network.
func (c *cluster) exec(tb testing.TB, s *scene, pod, container string, command ...string) string {
	tb.Helper()
	return c.must(tb, append([]string{"-n", s.namespace, "exec", pod, "-c", container, "--"}, command...)...)
}

// detection reports the victim as the recipe's synthetic event does.
func detection(s *scene) v1alpha1.SecurityEvent {
	return v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "synth-"},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassDetection, Type: "HoneypotTriggered", Severity: v1alpha1.SeverityCritical,
			Source:      v1alpha1.EventSource{Operator: "integration-test", Cluster: "sandbox"},
			Subject:     v1alpha1.EventSubject{Kind: "Pod", Namespace: s.namespace, Name: victimName, UID: string(s.victim.UID)},
			Description: "synthetic detection of a test",
		},
	}
}

// detect creates the event; it does not wait for anything.
func (c *cluster) detect(tb testing.TB, s *scene) {
	tb.Helper()
	event := detection(s)
	s.emitted = time.Now()
	if err := c.Create(tb.Context(), &event); err != nil {
		tb.Fatalf("create the event: %v", err)
	}
	s.event, s.incident = event, v1alpha1.IncidentName(string(event.UID))
}

// await waits until the incident's condition is True, and ends the test with everything known about it otherwise.
func (c *cluster) await(tb testing.TB, s *scene, condition string, timeout time.Duration) v1alpha1.Incident {
	tb.Helper()
	incident, err := c.awaitIncident(tb.Context(), s, condition, timeout)
	if err != nil {
		tb.Fatal(err)
	}
	return incident
}

func (c *cluster) awaitIncident(ctx context.Context, s *scene, condition string, timeout time.Duration) (v1alpha1.Incident, error) {
	var incident v1alpha1.Incident
	err := eventually(ctx, timeout, func(ctx context.Context) (bool, string, error) {
		err := c.Get(ctx, client.ObjectKey{Name: s.incident}, &incident)
		if apierrors.IsNotFound(err) {
			return false, "no incident " + s.incident, nil
		}
		if err != nil {
			return false, "", fmt.Errorf("get incident %s: %w", s.incident, err)
		}
		return isTrue(incident.Status.Conditions, condition), describe(incident.Status.Conditions), nil
	})
	if err != nil {
		return incident, fmt.Errorf("incident %s of %s/%s is not %s: %w\n%s", s.incident, s.namespace, victimName, condition, err, c.account(ctx, s))
	}
	return incident, nil
}

// account tells what became of the event, the responses and the bundles, for a failure message.
func (c *cluster) account(ctx context.Context, s *scene) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var told strings.Builder
	var event v1alpha1.SecurityEvent
	if err := c.Get(ctx, client.ObjectKey{Name: s.event.Name}, &event); err != nil {
		fmt.Fprintf(&told, "event %s: %v\n", s.event.Name, err)
	} else {
		fmt.Fprintf(&told, "event %s phase %q\n%s", event.Name, event.Status.Phase, describe(event.Status.Conditions))
	}
	var responses v1alpha1.EventResponseList
	var bundles v1alpha1.AttestationBundleList
	if err := c.List(ctx, &responses); err != nil {
		fmt.Fprintf(&told, "responses: %v\n", err)
	}
	if err := c.List(ctx, &bundles); err != nil {
		fmt.Fprintf(&told, "bundles: %v\n", err)
	}
	uids := map[string]bool{string(s.event.UID): true}
	for _, response := range responses.Items {
		if response.Spec.IncidentName == s.incident {
			uids[string(response.UID)] = true
			fmt.Fprintf(&told, "response %s phase %q\n%s", response.Name, response.Status.Phase, describe(response.Status.Conditions))
		}
	}
	for _, bundle := range bundles.Items {
		if uids[bundle.Spec.AttestedFor.UID] {
			fmt.Fprintf(&told, "bundle %s of %s phase %q\n%s", bundle.Name, bundle.Spec.AttestedFor.Name,
				bundle.Status.Phase, describe(bundle.Status.Conditions))
		}
	}
	return told.String()
}

// responses lists the incident's responses by step; a second response of one step ends the test.
func (c *cluster) responses(tb testing.TB, s *scene) map[v1alpha1.Step]v1alpha1.EventResponse {
	tb.Helper()
	var list v1alpha1.EventResponseList
	var incident v1alpha1.Incident
	c.look(tb, client.ObjectKey{Name: s.incident}, &incident)
	if err := c.List(tb.Context(), &list, client.MatchingLabels{v1alpha1.LabelIncidentUID: string(incident.UID)}); err != nil {
		tb.Fatalf("list responses: %v", err)
	}
	byStep := map[v1alpha1.Step]v1alpha1.EventResponse{}
	for _, response := range list.Items {
		step := v1alpha1.Step(response.Labels[v1alpha1.LabelStep])
		if again, twice := byStep[step]; twice {
			tb.Fatalf("step %s has two responses, %s and %s", step, again.Name, response.Name)
		}
		byStep[step] = response
	}
	return byStep
}

func isTrue(conditions []metav1.Condition, kind string) bool {
	for _, condition := range conditions {
		if condition.Type == kind {
			return condition.Status == metav1.ConditionTrue
		}
	}
	return false
}

func describe(conditions []metav1.Condition) string {
	var told strings.Builder
	for _, condition := range conditions {
		fmt.Fprintf(&told, "  %s=%s %s: %s\n", condition.Type, condition.Status, condition.Reason, condition.Message)
	}
	return told.String()
}
