package policy

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// What Cilium makes labels of that are not the pod's own.
const (
	ciliumNamespace       = "io.kubernetes.pod.namespace"
	ciliumNamespaceLabels = "io.cilium.k8s.namespace.labels."
	ciliumOwn             = "io.cilium."
)

// subject is a pod as selectors see it.
//
// A selector that cannot be read, or asks for what is not known here, is counted as selecting: too long a list misleads
// less than one with a hole.
type subject struct {
	namespace               string
	labels, namespaceLabels map[string]string
}

func (s subject) selectedByCore(policy *unstructured.Unstructured) bool {
	return within(policy.Object, s.labels, "spec", "podSelector")
}

// selectedByAdmin evaluates a subject of namespaces, or of pods in them.
func (s subject) selectedByAdmin(policy *unstructured.Unstructured) bool {
	if _, byNamespace, _ := unstructured.NestedMap(policy.Object, "spec", "subject", "namespaces"); byNamespace {
		return within(policy.Object, s.namespaceLabels, "spec", "subject", "namespaces")
	}
	return within(policy.Object, s.namespaceLabels, "spec", "subject", "pods", "namespaceSelector") &&
		within(policy.Object, s.labels, "spec", "subject", "pods", "podSelector")
}

// selectedByCilium evaluates every rule of the policy. A rule about nodes selects no pod.
func (s subject) selectedByCilium(policy *unstructured.Unstructured) bool {
	rules, _, err := unstructured.NestedSlice(policy.Object, "specs")
	if err != nil {
		return true
	}
	if spec, found := policy.Object["spec"]; found {
		rules = append(rules, spec)
	}
	for _, rule := range rules {
		fields, isMap := rule.(map[string]any)
		if !isMap || s.selectedByRule(fields, policy.GetNamespace() == "") {
			return true
		}
	}
	return len(rules) == 0
}

func (s subject) selectedByRule(rule map[string]any, clusterwide bool) bool {
	selector, found, err := selectorAt(rule, "endpointSelector")
	if err != nil {
		return true
	}
	if !found {
		_, nodes := rule["nodeSelector"]
		return !nodes
	}
	known, visible := metav1.LabelSelector{MatchLabels: map[string]string{}}, s.visible(clusterwide)
	for key, value := range selector.MatchLabels {
		if name := visible.name(key, metav1.LabelSelectorOpIn); name != "" {
			known.MatchLabels[name] = value
		}
	}
	for _, expression := range selector.MatchExpressions {
		if expression.Key = visible.name(expression.Key, expression.Operator); expression.Key != "" {
			known.MatchExpressions = append(known.MatchExpressions, expression)
		}
	}
	return matches(known, visible.labels)
}

// visible are the labels by which Cilium's selectors know the pod.
type visible struct {
	labels map[string]string
	// derived of them are sure to be seen by Cilium. A label of the pod's own may have been taken out by its filter.
	derived map[string]bool
}

func (s subject) visible(clusterwide bool) visible {
	v := visible{labels: map[string]string{}, derived: map[string]bool{}}
	for key, value := range s.labels {
		v.labels[key] = value
	}
	add := func(key, value string) { v.labels[key], v.derived[key] = value, true }
	for key, value := range s.namespaceLabels {
		add(ciliumNamespaceLabels+key, value)
	}
	// In a policy with a namespace Cilium ignores what it says of one.
	if clusterwide {
		add(ciliumNamespace, s.namespace)
	}
	return v
}

// name is the key without the source that Cilium writes in front of it. It is empty for a requirement that cannot be
// decided here: one about what only Cilium knows, or about the absence of a label, which Cilium's filter may have brought
// about.
func (v visible) name(key string, operator metav1.LabelSelectorOperator) string {
	source, name, found := strings.Cut(key, ":")
	if !found {
		source, name = "any", key
	}
	absence := operator == metav1.LabelSelectorOpNotIn || operator == metav1.LabelSelectorOpDoesNotExist
	switch {
	case source != "any" && source != "k8s":
		return ""
	case v.derived[name], strings.HasPrefix(name, ciliumNamespaceLabels):
		return name
	case name == ciliumNamespace, strings.HasPrefix(name, ciliumOwn), absence:
		return ""
	}
	return name
}

func within(object map[string]any, of map[string]string, path ...string) bool {
	selector, found, err := selectorAt(object, path...)
	return err != nil || !found || matches(selector, of)
}

func selectorAt(object map[string]any, path ...string) (metav1.LabelSelector, bool, error) {
	var selector metav1.LabelSelector
	raw, found, err := unstructured.NestedMap(object, path...)
	if err != nil || !found {
		return selector, found, err
	}
	return selector, true, runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &selector)
}

func matches(selector metav1.LabelSelector, of map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(&selector)
	return err != nil || parsed.Matches(labels.Set(of))
}
