package manifests_test

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type fields = map[string]any

// ageRecipient has the form of one.
const ageRecipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

var (
	hex = strings.Repeat("ab", 32)
	now = "2026-11-24T01:02:03Z"
)

func object(kind, name string, spec fields) *unstructured.Unstructured {
	metadata := fields{"name": name}
	if kind == "WORMConfig" || kind == "AttestorConfig" || kind == "TTLConfig" {
		metadata["namespace"] = "ugallu-system"
	}
	return &unstructured.Unstructured{Object: fields{
		"apiVersion": "security.ugallu.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec,
	}}
}

// The specs below are valid; a test changes one thing.

func eventSpec() fields {
	return fields{
		"class": "Detection", "type": "HoneypotTriggered", "severity": "critical",
		"source":  fields{"operator": "test"},
		"subject": fields{"kind": "Pod", "namespace": "sandbox", "name": "victim"},
	}
}

func destination() fields {
	return fields{"bucket": "evidence", "prefix": "forensics/0123456789abcdef", "lockMode": "COMPLIANCE", "retainUntil": now}
}

func snapshot() fields {
	return fields{
		"destination": destination(), "compression": "Zstd", "maxBytes": "1Gi", "maxEntries": int64(1), "maxDuration": "1m",
	}
}

func podRef() fields {
	return fields{"namespace": "sandbox", "name": "victim", "uid": "pod-1", "nodeName": "worker"}
}

func incidentSpec() fields {
	return fields{
		"trigger": fields{"name": "synth-1", "uid": "event-1", "type": "HoneypotTriggered", "severity": "critical", "specSHA256": hex},
		"pod":     podRef(), "subjectUID": "Resolved",
		"freeze":   fields{"processes": "UntilReleased", "memory": "Auto"},
		"snapshot": snapshot(), "autoUnfreezeAfter": "4h", "onFailure": "Hold", "disposition": "Resume",
		"requiredAcknowledgements": int64(1), "configGeneration": int64(1),
	}
}

func responseSpec(actionType, member string) fields {
	actions := map[string]fields{
		"podFreeze":          {"processes": "UntilReleased", "memory": "Auto"},
		"filesystemSnapshot": snapshot(),
		"evidenceUpload":     {"destination": destination(), "responses": []any{fields{"name": "er", "uid": "1"}}},
		"podUnfreeze":        {"reason": "Acknowledged", "disposition": "Resume"},
	}
	action := fields{"type": actionType}
	if member != "" {
		action[member] = actions[member]
	}
	return fields{
		"incidentUID": "incident-1", "incidentName": "0123456789abcdef", "securityEventRef": fields{"name": "synth-1", "uid": "event-1"},
		"attempt": int64(1), "nodeName": "worker", "podRef": podRef(), "deadline": now, "action": action,
	}
}

func bundleSpec() fields {
	return fields{"attestedFor": fields{"kind": "EventResponse", "name": "er", "uid": "er-1"}, "incidentUID": "incident-1"}
}

func storedObject() fields {
	return fields{"index": int64(0), "key": "k", "versionId": "1", "sha256": hex, "size": int64(1), "retainUntil": now}
}

func wormSpec() fields {
	return fields{"endpoint": "https://worm.example.internal", "bucket": "evidence"}
}

func attestorSpec() fields {
	return fields{
		"signingModes": []any{"openbao-transit"}, "transit": fields{"address": "https://bao:8200", "key": "k"},
		"rekorURL": "https://rekor", "timestampURL": "https://tsa/api/v1/timestamp",
	}
}

// with returns the fields with one of them set, or removed when the value is nil. The path is dotted.
func with(of fields, path string, value any) fields {
	in := of
	keys := strings.Split(path, ".")
	for _, key := range keys[:len(keys)-1] {
		next, is := in[key].(fields)
		if !is {
			next = fields{}
			in[key] = next
		}
		in = next
	}
	last := keys[len(keys)-1]
	if value == nil {
		delete(in, last)
	} else {
		in[last] = value
	}
	return of
}
