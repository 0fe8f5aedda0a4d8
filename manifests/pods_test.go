package manifests_test

import (
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

const tenant = "system:serviceaccount:default:operator"

// TestAFrozenPodIsEndedByTheKubeletOfItsNodeAlone has accounts that may write the status of pods say that one ended. The
// policy stands by itself: where the webhook is away it still holds.
func TestAFrozenPodIsEndedByTheKubeletOfItsNodeAlone(t *testing.T) {
	s := startServer(t)
	content, err := os.ReadFile("base/admission.yaml")
	must(t, err)
	for _, o := range documents(t, content) {
		if o.GetName() == "ugallu-frozen-pods-run" {
			must(t, s.client.Create(t.Context(), o, client.FieldValidation("Strict")))
		}
	}
	s.allowPodStatus(t)
	tests := map[string]struct {
		by     string
		free   bool
		before corev1.PodPhase
		status corev1.PodStatus
		says   string // empty is allowed
	}{
		"failed":                              {by: tenant, status: corev1.PodStatus{Phase: corev1.PodFailed}, says: "may not say that it ended"},
		"succeeded":                           {by: tenant, status: corev1.PodStatus{Phase: corev1.PodSucceeded}, says: "may not say that it ended"},
		"failed, by another node":             {by: "system:node:other", status: corev1.PodStatus{Phase: corev1.PodFailed}, says: "may not say that it ended"},
		"failed, by its node":                 {by: "system:node:worker", status: corev1.PodStatus{Phase: corev1.PodFailed}},
		"failed, by the collector of pods":    {by: "system:serviceaccount:kube-system:pod-garbage-collector", status: corev1.PodStatus{Phase: corev1.PodFailed}},
		"failed, by the controllers' manager": {by: "system:kube-controller-manager", status: corev1.PodStatus{Phase: corev1.PodFailed}},
		"failed, by another of its accounts":  {by: "system:serviceaccount:kube-system:namespace-controller", status: corev1.PodStatus{Phase: corev1.PodFailed}, says: "may not say that it ended"},
		"failed, of a pod free":               {by: tenant, free: true, status: corev1.PodStatus{Phase: corev1.PodFailed}},
		"what does not end it":                {by: tenant, status: corev1.PodStatus{Phase: corev1.PodRunning, Message: "m"}},
		"a message, of one that did":          {by: tenant, before: corev1.PodFailed, status: corev1.PodStatus{Phase: corev1.PodFailed, Message: "m"}},
		"another end, of one that did":        {by: tenant, before: corev1.PodFailed, status: corev1.PodStatus{Phase: corev1.PodSucceeded}, says: "may not say that it ended"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			pod := s.victim(t, tt.free)
			if tt.before != "" {
				pod.Status.Phase = tt.before
				must(t, s.asNode(t, "system:node:worker").Status().Update(t.Context(), pod))
			}
			pod.Status = tt.status
			allowedOrSays(t, s.asNode(t, tt.by).Status().Update(t.Context(), pod), tt.says)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// victim is a pod of node worker.
func (s server) victim(t *testing.T, free bool) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "victim-"},
		Spec:       corev1.PodSpec{NodeName: "worker", Containers: []corev1.Container{{Name: "web", Image: "nginx"}}},
	}
	if !free {
		pod.Labels = map[string]string{v1alpha1.LabelFrozen: "incident"}
	}
	must(t, s.client.Create(t.Context(), pod))
	return pod
}

// asNode is a client of an account in the group of nodes, to which the test gives the right to write the status of pods.
func (s server) asNode(t *testing.T, account string) client.Client {
	t.Helper()
	config := rest.CopyConfig(s.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: account, Groups: []string{"system:authenticated", statusWriters}}
	return newClient(t, config)
}

const statusWriters = "test:status-writers"

// allowPodStatus returns when both the right and the policy are in effect.
func (s server) allowPodStatus(t *testing.T) {
	t.Helper()
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: statusWriters},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods/status"}, Verbs: []string{"update"}}},
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: statusWriters},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: statusWriters},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: statusWriters}},
	}
	must(t, s.client.Create(t.Context(), role))
	must(t, s.client.Create(t.Context(), binding))
	probe := s.victim(t, false)
	probe.Status.Phase = corev1.PodFailed
	awaitAnswer(t, func() error {
		return s.asNode(t, tenant).Status().Update(t.Context(), probe.DeepCopy(), client.DryRunAll)
	}, "may not say")
}
