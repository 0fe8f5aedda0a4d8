package manifests_test

import (
	"encoding/json"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	attestorAccount = system + "ugallu-attestor"
	readbackAccount = privileged + "ugallu-forensics-snapshot"
)

// as is a client of an account with the rights that our roles give it, and with extras in its token.
func (s server) as(t *testing.T, account string, extra map[string][]string) client.Client {
	t.Helper()
	config := rest.CopyConfig(s.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: account, Groups: []string{"system:authenticated"}, Extra: extra}
	return newClient(t, config)
}

// writer is the client of the workload that makes objects of a kind.
func (s server) writer(t *testing.T, kind string) client.Client {
	t.Helper()
	switch kind {
	case "EventResponse", "Incident":
		return s.as(t, forensics, nil)
	case "AttestationBundle":
		return s.as(t, attestorAccount, nil)
	}
	return s.client
}

func (s server) made(t *testing.T, kind string, spec fields) *unstructured.Unstructured {
	t.Helper()
	return madeBy(t, s.writer(t, kind), kind, spec)
}

func madeBy(t *testing.T, by client.Client, kind string, spec fields) *unstructured.Unstructured {
	t.Helper()
	o := object(kind, "", spec)
	o.SetGenerateName("x-")
	if err := by.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return o
}

func patchStatus(t *testing.T, by client.Client, o *unstructured.Unstructured, status fields) error {
	t.Helper()
	patch, err := json.Marshal(fields{"status": status})
	if err != nil {
		t.Fatal(err)
	}
	return by.Status().Patch(t.Context(), o.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
}

func patchMetadata(t *testing.T, by client.Client, o *unstructured.Unstructured, metadata fields) error {
	t.Helper()
	patch, err := json.Marshal(fields{"metadata": metadata})
	if err != nil {
		t.Fatal(err)
	}
	return by.Patch(t.Context(), o.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
}

func condition(kind string) fields {
	return fields{"type": kind, "status": "True", "reason": "Succeeded", "message": "m", "lastTransitionTime": now}
}

// observedObject is what the read-back workload writes of one object.
func observedObject() fields {
	return fields{"key": "k", "versionId": "1", "sha256": hex, "size": int64(1), "retainUntil": now, "lockMode": "COMPLIANCE"}
}

// The attestor got as far as waiting for the read-back, which then writes what it found.
func limitsReadBack(t *testing.T, s server) {
	waiting := condition("Signed")
	waiting["status"], waiting["reason"] = "False", "Waiting"
	found := fields{"observed": []any{observedObject()}, "conditions": []any{waiting, condition("ReadBack")}}
	tests := map[string]struct {
		spec   fields
		before fields
		patch  fields
		says   string // empty is allowed
	}{
		"what it found":            {patch: found},
		"what it found, corrected": {before: found, patch: fields{"observed": []any{}, "conditions": []any{waiting, condition("ReadBack")}}},
		"a staged envelope":        {patch: fields{"staged": "e30="}, says: "staged"},
		"a phase":                  {patch: fields{"phase": "Sealed"}, says: "phase"},
		"a digest":                 {patch: fields{"statementDigest": hex}, says: "statementDigest"},
		"a signer":                 {patch: fields{"signer": "me"}, says: "signer"},
		"a place in the log":       {patch: fields{"logIndex": int64(1)}, says: "logIndex"},
		"a time":                   {patch: fields{"timestamp": now}, says: "timestamp"},
		"an object":                {patch: fields{"object": storedObject()}, says: "object"},
		"a record":                 {patch: fields{"record": storedObject()}, says: "record"},
		"a phase taken away":       {before: fields{"phase": "Pending"}, patch: fields{"phase": nil}, says: "phase"},
		"a staged thing replaced":  {before: fields{"staged": "e30="}, patch: fields{"staged": "e31="}, says: "staged"},
		"what it found and more":   {patch: fields{"observed": []any{observedObject()}, "staged": "e30="}, says: "staged"},
		"the attestor's condition": {patch: fields{"conditions": []any{condition("Signed")}}, says: "ReadBack only"},
		"another condition":        {patch: fields{"conditions": []any{waiting, condition("Sealed")}}, says: "ReadBack only"},
		"no condition any more":    {patch: fields{"conditions": []any{condition("ReadBack")}}, says: "ReadBack only"},
		"a signed statement's":     {before: fields{"statementDigest": hex}, patch: found, says: "until the statement about it is signed"},
		"an event's":               {spec: with(bundleSpec(), "attestedFor.kind", "SecurityEvent"), patch: found, says: "attests SecurityEvent"},
		"a countersignature's": {
			spec: with(bundleSpec(), "countersigns", fields{"name": "ab-first", "mode": "fulcio-keyless"}), patch: found, says: "attests EventResponse",
		},
		"a custody record's": {
			spec: with(with(bundleSpec(), "attestedFor.kind", "Incident"), "number", int64(1)), patch: found, says: "attests Incident",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.spec == nil {
				tt.spec = bundleSpec()
			}
			bundle := s.made(t, "AttestationBundle", tt.spec)
			before := fields{"conditions": []any{waiting}}
			for key, value := range tt.before {
				before[key] = value
			}
			if err := patchStatus(t, s.as(t, attestorAccount, nil), bundle, before); err != nil {
				t.Fatalf("the attestor's own write: %v", err)
			}
			err := patchStatus(t, s.as(t, readbackAccount, nil), bundle, tt.patch)
			allowedOrSays(t, err, tt.says)
		})
	}
}

// allowedOrSays demands success where says is empty, and otherwise a refusal by admission that names the reason.
func allowedOrSays(t *testing.T, err error, says string) {
	t.Helper()
	switch {
	case says == "" && err != nil:
		t.Errorf("refused: %v", err)
	case says == "":
	case !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), says):
		t.Errorf("not refused with %q: %v", says, err)
	}
}

func limitsReporters(t *testing.T, s server) {
	tests := map[string]struct {
		reporter fields
		says     string
	}{
		"in its own name":    {fields{"account": agent, "nodeName": "worker"}, ""},
		"of another account": {fields{"account": attestorAccount, "nodeName": "worker"}, "in the name of another"},
		"of another node":    {fields{"account": agent, "nodeName": "other"}, "in the name of another"},
		"of no account":      {fields{"account": "", "nodeName": "worker"}, "in the name of another"},
		"of no node":         {fields{"account": agent, "nodeName": ""}, "in the name of another"},
		"of another pod":     {fields{"account": agent, "nodeName": "worker", "podUID": "other"}, "in the name of another"},
		"of no pod":          {fields{"account": agent, "nodeName": "worker", "podUID": ""}, "in the name of another"},
	}
	by := s.as(t, agent, map[string][]string{
		"authentication.kubernetes.io/node-name": {"worker"}, "authentication.kubernetes.io/pod-uid": {"p"},
	})
	completed := fields{"completedAt": "2026-11-24T01:02:04.000000Z"}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			response := s.made(t, "EventResponse", responseSpec("PodFreeze", "podFreeze"))
			reporter := fields{"podUID": "p", "bootID": "b", "imageDigest": "d", "realtime": "2026-11-24T01:02:03.000000Z", "boottimeNanos": int64(1), "maxErrorMicros": int64(1), "clockSynchronized": true}
			for key, value := range tt.reporter {
				reporter[key] = value
			}
			allowedOrSays(t, patchStatus(t, by, response, fields{"reporter": reporter}), tt.says)
			// What is reported already may stay while other fields change.
			if tt.says == "" {
				allowedOrSays(t, patchStatus(t, by, response, fields{"phase": "Running"}), "")
				allowedOrSays(t, patchStatus(t, by, response, fields{"completedAt": completed["completedAt"], "reporter": nil}), "in the name of another")
				allowedOrSays(t, patchStatus(t, by, response, completed), "")
			}
		})
	}
	t.Run("of nobody, at the end", func(t *testing.T) {
		response := s.made(t, "EventResponse", responseSpec("PodFreeze", "podFreeze"))
		allowedOrSays(t, patchStatus(t, by, response, completed), "a record that is completed says who reports")
	})
	t.Run("admits what the controller closes", func(t *testing.T) {
		response := s.made(t, "EventResponse", responseSpec("PodFreeze", "podFreeze"))
		allowedOrSays(t, patchStatus(t, s.as(t, system+"ugallu-forensics", nil), response, fields{"phase": string(v1alpha1.ResponsePartial)}), "")
	})
}
