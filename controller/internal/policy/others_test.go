package policy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/policy"
)

func recordsOthers(t *testing.T, f fixture) {
	t.Helper()
	selecting := map[string]map[string]any{
		"everything": {}, "by-app": {"matchLabels": map[string]any{"app": "victim"}}, "another": {"matchLabels": map[string]any{"app": "other"}},
	}
	for name, selector := range selecting {
		for _, backend := range []v1alpha1.FreezeBackend{v1alpha1.BackendCoreV1, v1alpha1.BackendCilium} {
			field, spec := "podSelector", map[string]any{"ingress": []any{}}
			if backend == v1alpha1.BackendCilium {
				field = "endpointSelector"
			}
			spec[field] = selector
			object := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
			object.SetGroupVersionKind(policy.Kind(backend))
			object.SetNamespace(namespace)
			object.SetName(name + "-" + map[v1alpha1.FreezeBackend]string{v1alpha1.BackendCoreV1: "core", v1alpha1.BackendCilium: "cilium"}[backend])
			if err := f.client.Create(t.Context(), object); err != nil {
				t.Fatal(err)
			}
		}
	}
	createClusterwide(t, f)
	got := map[string]string{}
	for _, ref := range f.ensure(t, nil).Others {
		if ref.UID == "" {
			t.Errorf("%s has no uid", ref.Name)
		}
		got[ref.Name] = ref.Kind
	}
	want := map[string]string{
		"by-app-cilium": "CiliumNetworkPolicy", "by-app-core": "NetworkPolicy",
		"everything-cilium": "CiliumNetworkPolicy", "everything-core": "NetworkPolicy",
		"clusterwide": "CiliumClusterwideNetworkPolicy", "admin": "AdminNetworkPolicy",
		"default": "BaselineAdminNetworkPolicy", "cluster": "ClusterNetworkPolicy",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// createClusterwide makes two policies of each kind that has no namespace, the second of which is about other pods.
func createClusterwide(t *testing.T, f fixture) {
	t.Helper()
	endpoints := func(namespace string) map[string]any {
		return map[string]any{"endpointSelector": map[string]any{"matchLabels": map[string]any{"k8s:io.kubernetes.pod.namespace": namespace}}}
	}
	namespaces := func(name string) map[string]any {
		return map[string]any{"subject": map[string]any{"namespaces": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": name}}}}
	}
	pods := func(app string) map[string]any {
		return map[string]any{"subject": map[string]any{"pods": map[string]any{
			"namespaceSelector": map[string]any{}, "podSelector": map[string]any{"matchLabels": map[string]any{"app": app}},
		}}}
	}
	for _, object := range []struct {
		version, kind, name string
		ours, another       map[string]any
	}{
		{"cilium.io/v2", "CiliumClusterwideNetworkPolicy", "clusterwide", endpoints(namespace), endpoints("elsewhere")},
		{"policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "admin", namespaces(namespace), namespaces("elsewhere")},
		{"policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", "default", namespaces(namespace), namespaces("elsewhere")},
		{"policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "cluster", pods("victim"), pods("other")},
	} {
		for name, spec := range map[string]map[string]any{object.name: object.ours, object.name + "-another": object.another} {
			policy := &unstructured.Unstructured{Object: map[string]any{"apiVersion": object.version, "kind": object.kind, "spec": spec}}
			policy.SetName(name)
			if err := f.client.Create(t.Context(), policy); err != nil {
				t.Fatal(err)
			}
		}
	}
}
