//go:build integration

package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// responder is the account that the default configuration lets acknowledge.
const responder = "ugallu-responder"

// captureTime bounds an incident from its event to its manifest and all seals: seconds on an idle machine.
const captureTime = 150 * time.Second

// shared is a scene that is made by the first test that asks, and looked at by others. When making it failed, the
// others fail as well.
type shared struct {
	asked bool
	scene *scene
}

func (s *shared) get(tb testing.TB, build func(testing.TB) *scene) *scene {
	tb.Helper()
	if !s.asked {
		s.asked = true
		s.scene = build(tb)
	}
	if s.scene == nil {
		tb.Fatal("the shared incident was not made; the first test that asked for it says why")
	}
	return s.scene
}

// acknowledge annotates the incident's outcome event as an authorised account, as the recipe does.
func (c *cluster) acknowledge(ctx context.Context, s *scene) error {
	var incident v1alpha1.Incident
	if err := c.Get(ctx, client.ObjectKey{Name: s.incident}, &incident); err != nil {
		return fmt.Errorf("get incident %s: %w", s.incident, err)
	}
	if incident.Status.CompletionEvent == nil {
		return fmt.Errorf("incident %s has no outcome event to acknowledge", s.incident)
	}
	user, err := c.as(ctx, v1alpha1.NamespaceSystem, responder)
	if err != nil {
		return err
	}
	_, err = user.run(ctx, "-n", "ugallu-system", "annotate", "securityevent", incident.Status.CompletionEvent.Name,
		"ugallu.io/incident-acknowledged=true")
	return err
}

// release acknowledges and waits until the pod is free.
func (c *cluster) release(ctx context.Context, s *scene) error {
	if err := c.acknowledge(ctx, s); err != nil {
		return err
	}
	_, err := c.awaitIncident(ctx, s, v1alpha1.ConditionReleased, time.Minute)
	return err
}

// strike removes a scene: the pod is released when it is held, then the namespace goes.
func (c *cluster) strike(ctx context.Context, s *scene) error {
	var pod corev1.Pod
	err := c.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: victimName}, &pod)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("get the victim of %s: %w", s.namespace, err)
	}
	if err == nil && pod.Labels[v1alpha1.LabelFrozen] != "" {
		if err := c.release(ctx, s); err != nil {
			return fmt.Errorf("release %s: %w", s.namespace, err)
		}
	}
	_, err = c.run(ctx, "delete", "namespace", s.namespace, "--wait=false")
	return err
}

// strikeAfter removes the scene when the test ends well; after a failure it stays for whoever looks into it.
func (c *cluster) strikeAfter(tb testing.TB, s *scene) {
	tb.Helper()
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("namespace %s and incident %q are left as they are", s.namespace, s.incident)
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), 2*time.Minute)
		defer cancel()
		if err := c.strike(ctx, s); err != nil {
			tb.Error(err)
		}
	})
}
