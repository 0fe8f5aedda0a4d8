package manifests_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

func selectByFields(t *testing.T, s server) {
	objects := []*unstructured.Unstructured{
		object("SecurityEvent", "one", with(eventSpec(), "type", "SelectMe")),
		object("SecurityEvent", "two", with(eventSpec(), "class", "Audit")),
		object("EventResponse", "one", with(responseSpec("PodFreeze", "podFreeze"), "nodeName", "chosen")),
		object("EventResponse", "two", with(responseSpec("PodFreeze", "podFreeze"), "incidentUID", "chosen")),
		object("AttestationBundle", "one", with(bundleSpec(), "incidentUID", "chosen")),
	}
	for _, o := range objects {
		if err := s.client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct{ kind, field, value, want string }{
		"type":             {"SecurityEvent", "spec.type", "SelectMe", "one"},
		"class":            {"SecurityEvent", "spec.class", "Audit", "two"},
		"node":             {"EventResponse", "spec.nodeName", "chosen", "one"},
		"incident":         {"EventResponse", "spec.incidentUID", "chosen", "two"},
		"bundle's":         {"AttestationBundle", "spec.incidentUID", "chosen", "one"},
		"name, as always":  {"SecurityEvent", "metadata.name", "two", "two"},
		"nothing of these": {"SecurityEvent", "spec.type", "Unknown", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var list unstructured.UnstructuredList
			list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(tt.kind + "List"))
			if err := s.client.List(t.Context(), &list, client.MatchingFields{tt.field: tt.value}); err != nil {
				t.Fatal(err)
			}
			var got string
			for _, item := range list.Items {
				got += item.GetName()
			}
			if got != tt.want {
				t.Errorf("%d objects: %s", len(list.Items), got)
			}
		})
	}
}

func printColumns(t *testing.T, s server) {
	config := rest.CopyConfig(s.config)
	config.GroupVersion, config.APIPath = &v1alpha1.GroupVersion, "/apis"
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	served, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"securityevents":     {"Name", "Type", "Class", "Severity", "Subject", "Phase", "Age"},
		"incidents":          {"Name", "State", "Namespace", "Pod", "Trigger", "Unfreeze-At", "Age"},
		"eventresponses":     {"Name", "Step", "Phase", "Pod", "Node", "Age"},
		"attestationbundles": {"Name", "Kind", "For", "Phase", "Log-Index", "Age", "Countersigns"},
		"forensicsconfigs":   {"Name", "Ready", "Backend", "In-Flight", "Age"},
		"wormconfigs":        {"Name", "Endpoint", "Bucket"},
		"attestorconfigs":    {"Name", "Modes", "Ready"},
		"ttlconfigs":         {"Name", "Age"},
	}
	for resource, columns := range want {
		var table metav1.Table
		err := served.Get().Resource(resource).SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").
			Do(t.Context()).Into(&table)
		if err != nil {
			t.Errorf("%s: %v", resource, err)
			continue
		}
		var got []string
		for _, column := range table.ColumnDefinitions {
			got = append(got, column.Name)
		}
		if diff := cmp.Diff(columns, got); diff != "" {
			t.Errorf("%s: %s", resource, diff)
		}
	}
}

func discover(t *testing.T, s server) {
	client, err := discovery.NewDiscoveryClientForConfig(s.config)
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	if err != nil {
		t.Fatal(err)
	}
	shortNames := map[string]string{
		"securityevents": "se", "incidents": "inc", "eventresponses": "er", "attestationbundles": "ab", "forensicsconfigs": "fc",
		"wormconfigs": "", "attestorconfigs": "", "ttlconfigs": "",
	}
	var names []string
	for _, resource := range list.APIResources {
		names = append(names, resource.Name)
		if short := shortNames[resource.Name]; short != "" && !slices.Contains(resource.ShortNames, short) {
			t.Errorf("%s has the short names %v", resource.Name, resource.ShortNames)
		}
	}
	for resource := range shortNames {
		if !slices.Contains(names, resource) || !slices.Contains(names, resource+"/status") {
			t.Errorf("%s or its status is not served: %v", resource, names)
		}
	}
}
