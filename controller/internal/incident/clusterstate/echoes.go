package clusterstate

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// leastEcho is how long, in bytes, a value is that is looked for elsewhere: a shorter one, such as "true" or "8080", stands
// in texts that have nothing to do with it.
const leastEcho = 8

// echoes replaces the values that were redacted wherever people repeat them: in other variables, in what containers, probes
// and hooks run or ask for, in annotations and in the messages of events. It comes after every object was read, as an event may repeat an owner's value.
func (r *redaction) echoes(documents []document) {
	values := slices.DeleteFunc(slices.Collect(maps.Keys(r.values)), func(value string) bool { return len(value) < leastEcho })
	if len(values) == 0 {
		return
	}
	// A value may be a part of another one.
	slices.SortFunc(values, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) })
	pairs := make([]string, 0, 2*len(values))
	for _, value := range values {
		pairs = append(pairs, value, hashed(value))
	}
	in := echoed{strings.NewReplacer(pairs...)}
	for _, one := range documents {
		if object, ok := one.object.(map[string]any); ok {
			in.object(object)
		}
	}
}

type echoed struct{ replacer *strings.Replacer }

func (e echoed) object(object map[string]any) {
	for name, child := range object {
		switch name {
		case "command", "args", "annotations", "message", "note", "httpGet":
			object[name] = e.text(child)
		case "env":
			e.variables(child)
		default:
			e.walk(child)
		}
	}
}

// variables keep their names.
func (e echoed) variables(node any) {
	list, _ := node.([]any)
	for _, one := range list {
		if variable, ok := one.(map[string]any); ok && variable["value"] != nil {
			variable["value"] = e.text(variable["value"])
		}
	}
}

func (e echoed) walk(node any) {
	switch node := node.(type) {
	case map[string]any:
		e.object(node)
	case []any:
		for _, child := range node {
			e.walk(child)
		}
	}
}

// text replaces in every text below a node.
func (e echoed) text(node any) any {
	switch node := node.(type) {
	case string:
		return e.replacer.Replace(node)
	case []any:
		for i, child := range node {
			node[i] = e.text(child)
		}
	case map[string]any:
		for name, child := range node {
			if applied, ok := child.(string); ok && name == corev1.LastAppliedConfigAnnotation {
				// Its texts are quoted: a value with a quotation mark does not stand in it as it is.
				node[name] = inside(applied, e.object)
				continue
			}
			node[name] = e.text(child)
		}
	}
	return node
}
