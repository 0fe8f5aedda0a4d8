package frozen

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// pod is as much of a pod as the rules look at. The spec stays untyped, so that a field of a Kubernetes newer than
// this program is compared too.
type pod struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              map[string]any `json:"spec"`
}

// parse returns nil for an absent object: the old one of a create, the new one of a delete.
func parse(raw []byte) (*pod, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var p pod
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("parse pod: %w", err)
	}
	return &p, nil
}

func (p *pod) incident() (string, bool) {
	if p == nil {
		return "", false
	}
	incident, held := p.Labels[v1alpha1.LabelFrozen]
	return incident, held
}

func (p *pod) nodeName() string {
	name, scheduled := p.Spec["nodeName"].(string)
	if !scheduled {
		return ""
	}
	return name
}

// changes names the parts that differ, in the words of the refusal.
func changes(before, after *pod) []string {
	var parts []string
	if !reflect.DeepEqual(before.Spec, after.Spec) {
		parts = append(parts, partSpec)
	}
	if !sameEntries(before.Labels, after.Labels) {
		parts = append(parts, partLabels)
	}
	if !sameEntries(before.Annotations, after.Annotations) {
		parts = append(parts, partAnnotations)
	}
	// Taking one off is how its controller lets the pod end; one more would keep it from ending.
	for _, finalizer := range after.Finalizers {
		if !slices.Contains(before.Finalizers, finalizer) {
			parts = append(parts, partFinalizers)
			break
		}
	}
	return parts
}

const (
	partSpec        = "spec"
	partLabels      = "labels"
	partAnnotations = "annotations"
	partFinalizers  = "finalizers"
)

func sameEntries(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for key, value := range a {
		other, there := b[key]
		if !there || other != value {
			return false
		}
	}
	return true
}
