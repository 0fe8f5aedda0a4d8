package clusterstate

import (
	"encoding/json"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// redaction replaces values of environment variables by their sha256, in the pod and in the templates of its owners, and
// then the same values where they were written out a second time.
type redaction struct {
	mode  v1alpha1.Redaction
	names *regexp.Regexp
	// values that were replaced.
	values map[string]struct{}
}

func newRedaction(action v1alpha1.FilesystemSnapshotAction) *redaction {
	r := &redaction{mode: action.RedactEnvironment, values: map[string]struct{}{}}
	if r.mode != v1alpha1.RedactMatching {
		return r
	}
	names, err := regexp.Compile(action.RedactNames)
	if err != nil {
		// Less may be stored than was asked for, and nothing that was to stay out.
		r.mode = v1alpha1.RedactAll
	}
	r.names = names
	return r
}

func (r *redaction) redacts(name string) bool {
	switch r.mode {
	case v1alpha1.RedactAll:
		return true
	case v1alpha1.RedactMatching:
		return r.names.MatchString(name)
	case v1alpha1.RedactNone:
	}
	return false
}

func (r *redaction) wanted() bool {
	return r.mode == v1alpha1.RedactAll || r.mode == v1alpha1.RedactMatching
}

// tree rewrites every list that is named env, and the copy of the object that kubectl apply leaves in an annotation.
func (r *redaction) tree(node any) {
	if !r.wanted() {
		return
	}
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			r.tree(child)
		}
	case map[string]any:
		for name, child := range node {
			switch value := child.(type) {
			case string:
				if name == corev1.LastAppliedConfigAnnotation {
					node[name] = r.applied(value)
				}
			case []any:
				if name == "env" {
					r.variables(value)
					continue
				}
				r.tree(value)
			default:
				r.tree(value)
			}
		}
	}
}

func (r *redaction) variables(list []any) {
	for _, one := range list {
		variable, ok := one.(map[string]any)
		if !ok {
			continue
		}
		name, _ := variable["name"].(string)
		value, valued := variable["value"].(string)
		if valued && r.redacts(name) {
			variable["value"] = hashed(value)
			r.values[value] = struct{}{}
		}
	}
}

// applied redacts inside of the annotation.
func (r *redaction) applied(annotation string) string {
	return inside(annotation, func(tree map[string]any) { r.tree(tree) })
}

// inside changes an object that is written in JSON; one that cannot be read is redacted as a whole.
func inside(annotation string, change func(map[string]any)) string {
	decoder := json.NewDecoder(strings.NewReader(annotation))
	// Numbers stay as they are written.
	decoder.UseNumber()
	var tree map[string]any
	if err := decoder.Decode(&tree); err != nil {
		return hashed(annotation)
	}
	change(tree)
	redacted, err := json.Marshal(tree)
	if err != nil {
		return hashed(annotation)
	}
	return string(redacted)
}

func hashed(value string) string { return "sha256:" + evidence.Digest([]byte(value)) }
