package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

func TestAPIServerKeepsFrozenPods(t *testing.T) {
	c := startCluster(t)
	t.Run("refuses what would change, enter or delete one", func(t *testing.T) { refusesOnFrozen(t, c) })
	t.Run("refuses freezing by hand", func(t *testing.T) { refusesFreezing(t, c) })
	t.Run("lets the kubelet report status", func(t *testing.T) { admitsStatus(t, c) })
	t.Run("lets the controller release and delete", func(t *testing.T) { admitsController(t, c) })
	t.Run("is not asked about pods that are free", func(t *testing.T) { leavesFreeAlone(t, c) })
}

type attempt func(ctx context.Context, pods kubernetes.Interface, name string) error

func attempts() map[string]attempt {
	patch := func(patch string, sub ...string) attempt {
		return func(ctx context.Context, as kubernetes.Interface, name string) error {
			_, err := as.CoreV1().Pods("default").Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, sub...)
			return err
		}
	}
	return map[string]attempt{
		"label":                     patch(`{"metadata":{"labels":{"app":"other"}}}`),
		"unfreezing":                patch(`{"metadata":{"labels":{"ugallu.io/frozen":null}}}`),
		"unfreezing through status": patch(`{"metadata":{"labels":{"ugallu.io/frozen":null}}}`, "status"),
		"annotation":                patch(`{"metadata":{"annotations":{"a":"b"}}}`),
		"annotation through status": patch(`{"metadata":{"annotations":{"a":"b"}}}`, "status"),
		"spec":                      patch(`{"spec":{"activeDeadlineSeconds":1}}`),
		"resize":                    patch(`{"spec":{"containers":[{"name":"web","image":"nginx","resources":{"requests":{"cpu":"1m"}}}]}}`, "resize"),
		"ephemeral container": func(ctx context.Context, as kubernetes.Interface, name string) error {
			p, err := as.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debug", Image: "busybox", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			}}}
			_, err = as.CoreV1().Pods("default").UpdateEphemeralContainers(ctx, name, p, metav1.UpdateOptions{})
			return err
		},
		"delete": func(ctx context.Context, as kubernetes.Interface, name string) error {
			return as.CoreV1().Pods("default").Delete(ctx, name, metav1.DeleteOptions{})
		},
		"forced delete": func(ctx context.Context, as kubernetes.Interface, name string) error {
			return as.CoreV1().Pods("default").Delete(ctx, name, *metav1.NewDeleteOptions(0))
		},
		"delete of all": func(ctx context.Context, as kubernetes.Interface, name string) error {
			return as.CoreV1().Pods("default").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		},
		"eviction": func(ctx context.Context, as kubernetes.Interface, name string) error {
			return as.PolicyV1().Evictions("default").Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
		},
		"exec":        connect("exec", "command", "ls"),
		"attach":      connect("attach", "stdout", "true"),
		"portforward": connect("portforward", "ports", "80"),
	}
}

func connect(sub, parameter, value string) attempt {
	return func(ctx context.Context, as kubernetes.Interface, name string) error {
		return as.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name(name).SubResource(sub).
			Param(parameter, value).Do(ctx).Error()
	}
}

func refusesOnFrozen(t *testing.T, c cluster) {
	p := c.pod(t, "victim", true)
	for _, user := range []string{admin, kubelet, "system:serviceaccount:kube-system:namespace-controller"} {
		for name, try := range attempts() {
			err := try(t.Context(), c.core(t, user), p.Name)
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "incident "+incident) {
				t.Errorf("%s by %s: %v", name, user, err)
			}
		}
	}
}

func refusesFreezing(t *testing.T, c cluster) {
	p := c.pod(t, "free-of-label", false)
	as := c.core(t, admin).CoreV1().Pods("default")
	for _, sub := range [][]string{nil, {"status"}} {
		patch := []byte(`{"metadata":{"labels":{"ugallu.io/frozen":"x"}}}`)
		_, err := as.Patch(t.Context(), p.Name, types.MergePatchType, patch, metav1.PatchOptions{}, sub...)
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "may not set this label") {
			t.Errorf("update of %v: %v", sub, err)
		}
	}
	made := p.DeepCopy()
	made.ObjectMeta = metav1.ObjectMeta{Namespace: "default", Name: "born-frozen", Labels: map[string]string{"ugallu.io/frozen": "x"}}
	_, err := as.Create(t.Context(), made, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "may not set this label") {
		t.Errorf("create: %v", err)
	}
}

func admitsStatus(t *testing.T, c cluster) {
	p := c.pod(t, "reporting", true)
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "Frozen"}}
	c.calls.take()
	stored, err := c.core(t, kubelet).CoreV1().Pods("default").UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if stored.Status.Phase != corev1.PodRunning || len(stored.Status.Conditions) != 1 {
		t.Fatalf("status %+v", stored.Status)
	}
	if asked := c.calls.take(); len(asked) > 0 {
		t.Errorf("asked %d times about a status", len(asked))
	}
}

func admitsController(t *testing.T, c cluster) {
	released := c.pod(t, "released", true)
	unfreeze := []byte(`{"metadata":{"labels":{"ugallu.io/frozen":null},"annotations":{"a":"b"}}}`)
	pods := c.core(t, controller).CoreV1().Pods("default")
	if _, err := pods.Patch(t.Context(), released.Name, types.MergePatchType, unfreeze, metav1.PatchOptions{}); err != nil {
		t.Errorf("release: %v", err)
	}
	gone := c.pod(t, "gone", true)
	if err := pods.Delete(t.Context(), gone.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatalf("delete: %v", err)
	}
	dying, err := pods.Get(t.Context(), gone.Name, metav1.GetOptions{})
	if err != nil || dying.DeletionTimestamp == nil {
		t.Fatalf("the pod is not dying: %v", err)
	}
	if err := attempts()["forced delete"](t.Context(), c.core(t, "system:node:other"), gone.Name); !apierrors.IsForbidden(err) {
		t.Errorf("end by another kubelet: %v", err)
	}
	if err := attempts()["forced delete"](t.Context(), c.core(t, kubelet), gone.Name); err != nil {
		t.Errorf("end by the kubelet: %v", err)
	}
}

func leavesFreeAlone(t *testing.T, c cluster) {
	c.calls.take()
	for name, try := range attempts() {
		p := c.pod(t, "free-"+strings.ReplaceAll(name, " ", "-"), false)
		if err := try(t.Context(), c.core(t, admin), p.Name); err != nil && strings.Contains(err.Error(), "admission webhook") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := deleteFree(t.Context(), c.core(t, kubelet)); err != nil {
		t.Error(err)
	}
	// Entering and evicting do not say whether the pod is free.
	if asked := len(c.calls.take()); asked != 4 {
		t.Errorf("asked %d times, want once for each of eviction, exec, attach and portforward", asked)
	}
}

func deleteFree(ctx context.Context, as kubernetes.Interface) error {
	free := metav1.ListOptions{LabelSelector: "!ugallu.io/frozen"}
	if err := as.CoreV1().Pods("default").DeleteCollection(ctx, *metav1.NewDeleteOptions(0), free); err != nil {
		return fmt.Errorf("delete the free pods: %w", err)
	}
	return nil
}
