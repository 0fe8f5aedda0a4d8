package manifests_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// keepsChain tries to delete as the cluster's administrator. Forensic events cannot be made without the webhook; that they
// stay is shown on a real cluster.
func keepsChain(t *testing.T, s server) {
	matched := func(is string) fields { return fields{"conditions": []any{with(condition("Matched"), "status", is)}} }
	event := func() *unstructured.Unstructured { return s.made(t, "SecurityEvent", eventSpec()) }
	tests := map[string]struct {
		object *unstructured.Unstructured
		status fields
		says   string // empty is allowed
	}{
		"a response":                     {s.made(t, "EventResponse", responseSpec("PodFreeze", "podFreeze")), nil, "may not delete"},
		"a bundle":                       {s.made(t, "AttestationBundle", bundleSpec()), nil, "may not delete"},
		"an event of no incident":        {event(), nil, ""},
		"one that did not match":         {event(), matched("False"), ""},
		"a trigger":                      {event(), matched("True"), "until it is attested"},
		"a trigger that is not attested": {event(), with(matched("True"), "phase", "Pending"), "until it is attested"},
		"a trigger that is attested":     {event(), with(matched("True"), "phase", "Attested"), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.status != nil {
				if err := patchStatus(t, s.client, tt.object, tt.status); err != nil {
					t.Fatal(err)
				}
			}
			allowedOrSays(t, s.client.Delete(t.Context(), tt.object), tt.says)
		})
	}
	t.Run("by the ttl workload", func(t *testing.T) {
		// Its role is not there yet: with one, admission is not in the way.
		s.allow(t, "delete", "securityevents")
		ttl := s.as(t, system+"ugallu-ttl", nil)
		awaitAnswer(t, func() error { return ttl.Delete(t.Context(), tests["a trigger"].object, client.DryRunAll) }, "")
	})
}

// refuseClaimedKinds shows that what the controller stores cannot be claimed by whoever reports another step.
func refuseClaimedKinds(t *testing.T, s server) {
	artifact := func(kind string) fields {
		return fields{"artifacts": []any{fields{
			"name": "claimed", "kind": kind, "mediaType": "m", "size": int64(1), "sha256": hex, "segments": []any{with(storedObject(), "index", int64(0))},
		}}}
	}
	const says = "the kinds ClusterState and Manifest belong to responses of spec.action.type EvidenceUpload"
	for member, action := range map[string]string{
		"podFreeze": "PodFreeze", "filesystemSnapshot": "FilesystemSnapshot", "podUnfreeze": "PodUnfreeze", "evidenceUpload": "EvidenceUpload",
	} {
		for _, kind := range []string{"ClusterState", "Manifest", "Logs"} {
			t.Run(action+" "+kind, func(t *testing.T) {
				err := patchStatus(t, s.client, madeBy(t, s.client, "EventResponse", responseSpec(action, member)), artifact(kind))
				if action == "EvidenceUpload" || kind == "Logs" {
					allowedOrSays(t, err, "")
					return
				}
				allowedOrSays(t, err, says)
			})
		}
	}
}
