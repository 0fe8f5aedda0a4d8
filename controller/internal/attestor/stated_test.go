package attestor

import (
	"testing"
	"time"

	"ugallu.io/forensics/api/evidence"
)

func TestAStatementOfAnotherMomentDiffersInTheMomentAlone(t *testing.T) {
	made := func(at time.Time) []byte {
		payload, err := evidence.Canonical(evidence.Statement{
			Type: evidence.StatementType, PredicateType: evidence.PredicateTypeSecurityEvent,
			Predicate: evidence.SecurityEventPredicate{
				Spec:     []byte(`{"description":"<&> \u2028 é","signals":{"large":9007199254740991,"small":1e-7}}`),
				Attestor: evidence.Attestor{Account: "attestor", At: at},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return payload
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	then := made(now.Add(-time.Hour))
	got, err := atMoment(made(now), then)
	if err != nil || string(got) != string(then) {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, then)
	}
	for _, other := range []string{`no JSON`, `{"predicate":{"attestor":{"at":"yesterday"}}}`} {
		if got, err := atMoment(then, []byte(other)); err == nil {
			t.Errorf("of the moment of %s: %s", other, got)
		}
	}
	if got, err := atMoment([]byte(`{"predicate":{}}`), then); err == nil {
		t.Errorf("without an attestor: %s", got)
	}
}
