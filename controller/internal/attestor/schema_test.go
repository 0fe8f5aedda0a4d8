package attestor_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// schemas are the published ones, by predicate type.
func schemas(t *testing.T) map[string]*spec.Schema {
	t.Helper()
	all := map[string]*spec.Schema{}
	for _, kind := range []string{
		evidence.PredicateTypeSecurityEvent, evidence.PredicateTypeEventResponse, evidence.PredicateTypeIncident,
	} {
		name := strings.ReplaceAll(strings.TrimPrefix(kind, "https://ugallu.io/attestation/"), "/", "-") + ".json"
		data, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "schemas", name))
		if err != nil {
			t.Fatal(err)
		}
		published := &spec.Schema{}
		var named struct {
			ID string `json:"$id"`
		}
		if err := errors.Join(json.Unmarshal(data, published), json.Unmarshal(data, &named)); err != nil {
			t.Fatal(err)
		}
		if named.ID != kind {
			t.Errorf("%s has the id %s", name, named.ID)
		}
		all[kind] = published
	}
	return all
}

type publishedStatement struct {
	PredicateType string         `json:"predicateType"`
	Predicate     map[string]any `json:"predicate"`
}

// statements that lie in the store, as they were signed.
func (w *world) statements() (found []publishedStatement) {
	w.t.Helper()
	for _, object := range w.store.Objects() {
		if !strings.HasSuffix(object.Key, ".sigstore.json") {
			continue
		}
		verified, err := w.notary.Verify(w.content(object))
		if err != nil {
			w.t.Fatal(err)
		}
		var statement publishedStatement
		if err := json.Unmarshal(verified.Payload, &statement); err != nil {
			w.t.Fatal(err)
		}
		found = append(found, statement)
	}
	return found
}

// followSchemas compares every statement of two whole incidents with what is published of its predicate.
func followSchemas(t *testing.T, config *rest.Config) {
	published := schemas(t)
	w := newWorld(t, config)
	for _, ending := range []string{v1alpha1.EventCaptureCompleted, v1alpha1.EventCaptureFailed} {
		s := w.play(ending)
		s.release()
		w.record(s.incident, 1)
		w.record(s.incident, 2)
	}
	counts := map[string]int{}
	for _, statement := range w.statements() {
		counts[statement.PredicateType]++
		follows(t, published[statement.PredicateType], statement)
	}
	want := map[string]int{
		evidence.PredicateTypeSecurityEvent: 4, evidence.PredicateTypeEventResponse: 7, evidence.PredicateTypeIncident: 4,
	}
	for kind, number := range want {
		if counts[kind] != number {
			t.Errorf("%d statements of %s, want %d", counts[kind], kind, number)
		}
	}
}

// follows demands that a predicate is valid as it is, and that it is not with one member more, or without one that must be
// there.
func follows(t *testing.T, schema *spec.Schema, statement publishedStatement) {
	t.Helper()
	if err := validate.AgainstSchema(schema, statement.Predicate, strfmt.Default); err != nil {
		t.Errorf("%s: %v", statement.PredicateType, err)
	}
	statement.Predicate["another"] = "member"
	if validate.AgainstSchema(schema, statement.Predicate, strfmt.Default) == nil {
		t.Errorf("%s: a member that is not published is accepted", statement.PredicateType)
	}
	delete(statement.Predicate, "another")
	delete(statement.Predicate, "attestor")
	if validate.AgainstSchema(schema, statement.Predicate, strfmt.Default) == nil {
		t.Errorf("%s: nobody needs to have signed", statement.PredicateType)
	}
}
