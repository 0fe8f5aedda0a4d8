package manifests_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestDefinitions(t *testing.T) {
	s := startServer(t)
	s.installDefinitions(t)
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ugallu-system"}}
	if err := s.client.Create(t.Context(), system); err != nil {
		t.Fatal(err)
	}
	t.Run("accept the samples", func(t *testing.T) { acceptSamples(t, s) })
	t.Run("accept the objects that the tests change", func(t *testing.T) { acceptValid(t, s) })
	t.Run("refuse what is wrong, naming the field", func(t *testing.T) { refuseWrong(t, s) })
	t.Run("refuse changes of specs", func(t *testing.T) { refuseChangedSpecs(t, s) })
	t.Run("refuse changes of final statuses", func(t *testing.T) { refuseChangedStatuses(t, s) })
	t.Run("leave to the controller what is its own", func(t *testing.T) { refuseClaimedKinds(t, s) })
	t.Run("select by fields", func(t *testing.T) { selectByFields(t, s) })
	t.Run("print columns", func(t *testing.T) { printColumns(t, s) })
	t.Run("have room for the largest capture", func(t *testing.T) { holdLargest(t, s) })
	t.Run("have short names and status subresources", func(t *testing.T) { discover(t, s) })
}

func (s server) dryRun(t *testing.T, o *unstructured.Unstructured) error {
	t.Helper()
	return s.client.Create(t.Context(), o, client.DryRunAll, client.FieldValidation("Strict"))
}

func acceptSamples(t *testing.T, s server) {
	for _, name := range []string{
		"forensics-config.yaml", "forensics-config-types-beside-trigger.yaml", "synthetic-event.yaml",
		"worm-config.yaml", "attestor-config.yaml", "attestor-config-keyless.yaml", "ttl-config.yaml",
	} {
		if err := s.dryRun(t, sample(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// As kubectl create does it: the namespace of the recipe's event is carried along, and the name is generated.
	event := sample(t, "synthetic-event.yaml")
	if err := s.client.Create(t.Context(), event, client.FieldValidation("Strict")); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(event.GetName(), "synth-") {
		t.Errorf("name %q", event.GetName())
	}
}

func acceptValid(t *testing.T, s server) {
	for name, o := range map[string]*unstructured.Unstructured{
		"event":             object("SecurityEvent", "valid", eventSpec()),
		"forensic event":    object("SecurityEvent", "valid", with(with(eventSpec(), "class", "Forensic"), "incident.uid", "incident-1")),
		"incident":          object("Incident", "valid", incidentSpec()),
		"freeze":            object("EventResponse", "valid", responseSpec("PodFreeze", "podFreeze")),
		"snapshot":          object("EventResponse", "valid", responseSpec("FilesystemSnapshot", "filesystemSnapshot")),
		"upload":            object("EventResponse", "valid", responseSpec("EvidenceUpload", "evidenceUpload")),
		"unfreeze":          object("EventResponse", "valid", responseSpec("PodUnfreeze", "podUnfreeze")),
		"bundle":            object("AttestationBundle", "valid", bundleSpec()),
		"empty forensics":   object("ForensicsConfig", "default", fields{}),
		"worm":              object("WORMConfig", "default", wormSpec()),
		"worm over http":    object("WORMConfig", "default", with(with(wormSpec(), "endpoint", "http://minio:9000"), "insecureAllowHTTP", true)),
		"worm with SSE-KMS": object("WORMConfig", "default", with(with(wormSpec(), "encryption", "SSEKMS"), "kmsKeyID", "key-1")),
		"worm with age": object("WORMConfig", "default",
			with(with(wormSpec(), "encryption", "Age"), "ageRecipients", []any{ageRecipient})),
		"redacted": object("ForensicsConfig", "default",
			fields{"snapshot": fields{"redactEnvironment": "Matching", "redactNames": "PASS|TOKEN", "maxBandwidth": "10Mi"}}),
		"an encrypted order": object("EventResponse", "valid", with(with(responseSpec("FilesystemSnapshot", "filesystemSnapshot"),
			"action.filesystemSnapshot.destination.encryption", "Age"),
			"action.filesystemSnapshot.destination.ageRecipients", []any{ageRecipient})),
		"attestor":       object("AttestorConfig", "default", attestorSpec()),
		"keyless":        object("AttestorConfig", "default", with(with(with(attestorSpec(), "signingModes", []any{"fulcio-keyless"}), "transit", nil), "fulcio.url", "https://fulcio")),
		"never expiring": object("ForensicsConfig", "default", with(fields{}, "cleanup.autoUnfreezeAfter", "0s")),
		"kept for ever":  object("TTLConfig", "default", fields{"retainAfterRelease": "0s"}),
	} {
		if err := s.dryRun(t, o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func refuseWrong(t *testing.T, s server) {
	for name, tt := range wrong() {
		t.Run(name, func(t *testing.T) { refused(t, s.dryRun(t, tt.object), tt.names...) })
	}
}

func refuseChangedSpecs(t *testing.T, s server) {
	tests := map[string]struct {
		object *unstructured.Unstructured
		path   string
		value  any
	}{
		"event":    {object("SecurityEvent", "immutable", eventSpec()), "description", "another"},
		"severity": {object("SecurityEvent", "immutable-severity", eventSpec()), "severity", "low"},
		"incident": {object("Incident", "immutable", incidentSpec()), "dryRun", true},
		"response": {object("EventResponse", "immutable", responseSpec("PodFreeze", "podFreeze")), "nodeName", "other"},
		"deadline": {object("EventResponse", "immutable-deadline", responseSpec("PodFreeze", "podFreeze")), "deadline", nil},
		"bundle":   {object("AttestationBundle", "immutable", bundleSpec()), "attestedFor.uid", "another"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := s.client.Create(t.Context(), tt.object); err != nil {
				t.Fatal(err)
			}
			spec, is := tt.object.Object["spec"].(fields)
			if !is {
				t.Fatal("no spec")
			}
			tt.object.Object["spec"] = with(spec, tt.path, tt.value)
			refused(t, s.client.Update(t.Context(), tt.object), "spec: Invalid value", "spec is immutable")
		})
	}
}

func refuseChangedStatuses(t *testing.T, s server) {
	response := object("EventResponse", "final", responseSpec("PodFreeze", "podFreeze"))
	bundle := object("AttestationBundle", "final", bundleSpec())
	running := fields{"phase": "Running"}
	completed := fields{"phase": "Succeeded", "completedAt": "2026-11-24T01:02:03.000000Z"}
	stored := fields{"phase": "Sealed", "object": storedObject()}
	signed := object("AttestationBundle", "final-destination", bundleSpec())
	bound := func(bucket string) fields {
		return fields{"phase": "Signed", "destination": fields{
			"bucket": bucket, "prefix": "forensics/i", "lockMode": "COMPLIANCE", "retainUntil": now,
		}}
	}
	recording := object("AttestationBundle", "final-record", with(with(bundleSpec(), "attestedFor.kind", "Incident"), "number", int64(1)))
	tests := map[string]struct {
		object   *unstructured.Unstructured
		statuses []fields // each is written; the last is the final one
		changes  map[string]any
		message  string
	}{
		"a response that is completed": {
			object: response, statuses: []fields{running, completed}, message: "status is immutable once completedAt is set",
			changes: map[string]any{
				"another phase": fields{"phase": "Failed", "completedAt": "2026-11-24T01:02:03.000000Z"},
				"reopened":      running, "emptied": fields{}, "removed": nil,
			},
		},
		"a record that is stored": {
			object: recording, statuses: []fields{{"phase": "Pending"}, {"record": storedObject()}}, message: "status.record is immutable once set",
			changes: map[string]any{
				"another record": fields{"record": with(storedObject(), "versionId", "2")},
				"no record":      fields{"phase": "Pending"}, "emptied": fields{}, "removed": nil,
			},
		},
		"a bundle that is signed": {
			object: signed, statuses: []fields{{"phase": "Pending"}, bound("evidence")}, message: "status.destination is immutable once set",
			changes: map[string]any{
				"another bucket": bound("another"),
				"no destination": fields{"phase": "Signed"}, "emptied": fields{}, "removed": nil,
			},
		},
		"a bundle that is stored": {
			object: bundle, statuses: []fields{{"phase": "Pending"}, stored}, message: "status.object is immutable once set",
			changes: map[string]any{
				"another object": fields{"phase": "Sealed", "object": with(storedObject(), "versionId", "2")},
				"no object":      fields{"phase": "Sealed"}, "emptied": fields{}, "removed": nil,
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := s.client.Create(t.Context(), tt.object); err != nil {
				t.Fatal(err)
			}
			for _, status := range tt.statuses {
				tt.object.Object["status"] = status
				if err := s.client.Status().Update(t.Context(), tt.object); err != nil {
					t.Fatal(err)
				}
			}
			for change, status := range tt.changes {
				attempt := tt.object.DeepCopy()
				attempt.Object["status"] = status
				if status == nil {
					delete(attempt.Object, "status")
				}
				err := s.client.Status().Update(t.Context(), attempt)
				if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.message) {
					t.Errorf("%s: %v", change, err)
				}
			}
		})
	}
}
