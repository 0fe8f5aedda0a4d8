package custody_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/custody"
)

func stored(t *testing.T, record *evidence.Custody) []byte {
	t.Helper()
	data, err := evidence.Canonical(record)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTheStatementIsOverTheStoredRecord(t *testing.T) {
	record := wantCaptured()
	previous := listed(first)
	record.Number, record.Previous = 2, &previous
	parsed, err := custody.Parse(stored(t, record), v1alpha1.Ref{Name: "inc", UID: "uid-inc"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	by := evidence.Attestor{Account: "attestor", At: until}
	want := evidence.Statement{
		Type: evidence.StatementType, PredicateType: "https://ugallu.io/attestation/incident/v1",
		Subject: []evidence.Subject{evidence.SHA256Subject("custody-2", digest("custody-2"))},
		Predicate: evidence.IncidentPredicate{
			Incident: record.Incident, Number: 2, PreviousCustody: previous.SHA256, Previous: digest("payload of completed"), Attestor: by,
		},
	}
	if diff := cmp.Diff(want, custody.Statement(parsed, pointer("custody-2"), by)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseRefusesWhatIsNotTheRecord(t *testing.T) {
	good := stored(t, wantCaptured())
	for name, row := range map[string]struct {
		data   []byte
		ref    v1alpha1.Ref
		number int32
	}{
		"no JSON":          {[]byte("{"), v1alpha1.Ref{Name: "inc", UID: "uid-inc"}, 1},
		"not canonical":    {append(bytes.Clone(good), '\n'), v1alpha1.Ref{Name: "inc", UID: "uid-inc"}, 1},
		"another field":    {bytes.Replace(good, []byte(`{"incident"`), []byte(`{"a":1,"incident"`), 1), v1alpha1.Ref{Name: "inc", UID: "uid-inc"}, 1},
		"another number":   {good, v1alpha1.Ref{Name: "inc", UID: "uid-inc"}, 2},
		"another incident": {good, v1alpha1.Ref{Name: "inc", UID: "another"}, 1},
		"no statement":     {stored(t, &evidence.Custody{Number: 1, Incident: evidence.Reference{Name: "inc", UID: "uid-inc"}}), v1alpha1.Ref{Name: "inc", UID: "uid-inc"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := custody.Parse(row.data, row.ref, row.number); err == nil {
				t.Error("took it")
			}
		})
	}
}
