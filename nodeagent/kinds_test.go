package main

import (
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/manifests"
)

// served is how the API server is asked for a kind.
type served struct {
	Resource schema.GroupVersionResource
	Scope    meta.RESTScopeName
}

// defined are the kinds of the project's definitions.
func defined(t *testing.T) map[schema.GroupVersionKind]served {
	t.Helper()
	files, err := manifests.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := map[schema.GroupVersionKind]served{}
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		var definition apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(content, &definition); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		spec := definition.Spec
		scope := meta.RESTScopeNameRoot
		if spec.Scope == apiextensionsv1.NamespaceScoped {
			scope = meta.RESTScopeNameNamespace
		}
		for _, version := range spec.Versions {
			if version.Served {
				group := schema.GroupVersion{Group: spec.Group, Version: version.Name}
				found[group.WithKind(spec.Names.Kind)] = served{group.WithResource(spec.Names.Plural), scope}
			}
		}
	}
	return found
}

// TestKindsAreMappedToWhatTheAPIServerServes compares what the agent knows without asking with the definitions.
func TestKindsAreMappedToWhatTheAPIServerServes(t *testing.T) {
	mapper, err := kinds(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	definitions := defined(t)
	known := 0
	for kind := range scheme.KnownTypes(v1alpha1.GroupVersion) {
		wanted := v1alpha1.GroupVersion.WithKind(kind)
		mapping, err := mapper.RESTMapping(wanted.GroupKind(), wanted.Version)
		if meta.IsNoMatchError(err) {
			continue // a kind that the agent does not read
		}
		if err != nil {
			t.Fatal(err)
		}
		known++
		if diff := cmp.Diff(definitions[wanted], served{mapping.Resource, mapping.Scope.Name()}); diff != "" {
			t.Errorf("%s (-defined +mapped):\n%s", kind, diff)
		}
	}
	if known == 0 || known > len(definitions) {
		t.Errorf("%d kinds are mapped, %d defined", known, len(definitions))
	}
	pod, err := mapper.RESTMapping(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), "v1")
	if err != nil || pod.Resource != corev1.SchemeGroupVersion.WithResource("pods") || pod.Scope.Name() != meta.RESTScopeNameNamespace {
		t.Errorf("Pod is %+v, %v", pod, err)
	}
}
