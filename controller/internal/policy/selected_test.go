package policy

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestSelected(t *testing.T) {
	pod := subject{
		namespace: "sandbox", labels: map[string]string{"app": "victim"},
		namespaceLabels: map[string]string{"kubernetes.io/metadata.name": "sandbox", "tier": "tenant"},
	}
	core, cilium, admin := subject.selectedByCore, subject.selectedByCilium, subject.selectedByAdmin
	const inNamespace, clusterwide = "metadata: {namespace: sandbox}\n", ""
	tests := map[string]struct {
		selects func(subject, *unstructured.Unstructured) bool
		policy  string
		want    bool
	}{
		"every pod":               {core, `spec: {podSelector: {}}`, true},
		"no selector":             {core, `spec: {}`, true},
		"its label":               {core, `spec: {podSelector: {matchLabels: {app: victim}}}`, true},
		"another label":           {core, `spec: {podSelector: {matchLabels: {app: other}}}`, false},
		"unreadable selector":     {core, `spec: {podSelector: {matchLabels: {app: [victim]}}}`, true},
		"unknown operator":        {core, `spec: {podSelector: {matchExpressions: [{key: app, operator: Like}]}}`, true},
		"absence of another":      {core, `spec: {podSelector: {matchExpressions: [{key: role, operator: DoesNotExist}]}}`, true},
		"absence of its label":    {core, `spec: {podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}`, false},
		"every endpoint":          {cilium, inNamespace + `spec: {endpointSelector: {}}`, true},
		"no rule":                 {cilium, inNamespace + `status: {}`, true},
		"label, any source":       {cilium, inNamespace + `spec: {endpointSelector: {matchLabels: {"any:app": victim}}}`, true},
		"label, source k8s":       {cilium, inNamespace + `spec: {endpointSelector: {matchLabels: {"k8s:app": other}}}`, false},
		"label, reserved":         {cilium, inNamespace + `spec: {endpointSelector: {matchLabels: {"reserved:init": ""}}}`, true},
		"ignored namespace":       {cilium, inNamespace + `spec: {endpointSelector: {matchLabels: {io.kubernetes.pod.namespace: elsewhere}}}`, true},
		"one of several rules":    {cilium, inNamespace + `specs: [{endpointSelector: {matchLabels: {app: other}}}, {endpointSelector: {}}]`, true},
		"none of several rules":   {cilium, inNamespace + `specs: [{endpointSelector: {matchLabels: {app: other}}}]`, false},
		"its service account":     {cilium, inNamespace + `spec: {endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: web}}}`, true},
		"and another label":       {cilium, inNamespace + `spec: {endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: web, app: other}}}`, false},
		"its namespace":           {cilium, clusterwide + `spec: {endpointSelector: {matchLabels: {"k8s:io.kubernetes.pod.namespace": sandbox}}}`, true},
		"another namespace":       {cilium, clusterwide + `spec: {endpointSelector: {matchLabels: {io.kubernetes.pod.namespace: elsewhere}}}`, false},
		"all but its namespace":   {cilium, clusterwide + `spec: {endpointSelector: {matchExpressions: [{key: "k8s:io.kubernetes.pod.namespace", operator: NotIn, values: [sandbox]}]}}`, false},
		"label of its namespace":  {cilium, clusterwide + `spec: {endpointSelector: {matchLabels: {io.cilium.k8s.namespace.labels.tier: tenant}}}`, true},
		"label of another":        {cilium, clusterwide + `spec: {endpointSelector: {matchLabels: {io.cilium.k8s.namespace.labels.tier: system}}}`, false},
		"label of none":           {cilium, clusterwide + `spec: {endpointSelector: {matchLabels: {io.cilium.k8s.namespace.labels.team: red}}}`, false},
		"absence, may be filter":  {cilium, clusterwide + `spec: {endpointSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}`, true},
		"nodes":                   {cilium, clusterwide + `spec: {nodeSelector: {}}`, false},
		"every namespace":         {admin, `spec: {subject: {namespaces: {}}}`, true},
		"namespace by its label":  {admin, `spec: {subject: {namespaces: {matchLabels: {tier: tenant}}}}`, true},
		"namespace by another":    {admin, `spec: {subject: {namespaces: {matchLabels: {tier: system}}}}`, false},
		"pods of its namespace":   {admin, `spec: {subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: victim}}}}}`, true},
		"other pods of it":        {admin, `spec: {subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: other}}}}}`, false},
		"pods of another":         {admin, `spec: {subject: {pods: {namespaceSelector: {matchLabels: {tier: system}}, podSelector: {}}}}`, false},
		"subject of a later kind": {admin, `spec: {subject: {services: {}}}`, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			policy := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(tt.policy), &policy.Object); err != nil {
				t.Fatal(err)
			}
			if got := tt.selects(pod, policy); got != tt.want {
				t.Errorf("selected %t, want %t", got, tt.want)
			}
		})
	}
}
