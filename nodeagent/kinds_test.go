package main

import (
	"testing"

	"k8s.io/client-go/rest"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/options"
)

// TestManagerIsMadeWithTheAPIServerAway has nobody listen where the API server should.
func TestManagerIsMadeWithTheAPIServerAway(t *testing.T) {
	access := &rest.Config{Host: "https://127.0.0.1:1"}
	if _, err := managerFor(access, options.Options{MetricsAddress: "0", ProbeAddress: "0"}); err != nil {
		t.Fatal(err)
	}
}

func TestKindsAreMappedToWhatTheAPIServerServes(t *testing.T) {
	mapper, err := kinds(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]string{
		"EventResponse": "eventresponses", "Incident": "incidents", "ForensicsConfig": "forensicsconfigs", "WORMConfig": "wormconfigs",
	} {
		found, err := mapper.RESTMapping(v1alpha1.GroupVersion.WithKind(kind).GroupKind(), v1alpha1.GroupVersion.Version)
		if err != nil || found.Resource.Resource != want {
			t.Errorf("%s is %v, %v, want %s", kind, found, err, want)
		}
	}
}
