package custody

import (
	"errors"
	"fmt"
	"slices"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// ErrBroken is returned where a statement that a record would list does not name the one before it.
var ErrBroken = errors.New("the chain is broken")

// Chained refuses a record in which a statement does not name, by the digest of its payload, the statement that it follows
// from. What an earlier record lists is not looked at again. names tells what a statement names, as it is stored.
func Chained(m *Material, record *evidence.Custody, names func(*evidence.CustodyStatement) (string, error)) error {
	digests := map[string]string{}
	for i := range record.Statements {
		digests[record.Statements[i].Subject.UID] = record.Statements[i].PayloadSHA256
	}
	for i := begins(record); i < len(record.Statements); i++ {
		statement := &record.Statements[i]
		want := record.Statements[i-1].PayloadSHA256
		if statement.Kind == evidence.StatementEventResponse {
			want = digests[m.parent(statement.Subject.UID)]
		}
		got, err := names(statement)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%w: the statement about %s, %s, names %q as the one before it, which is %q: find out who exchanged it; then put a "+
				"delete marker over the bundles of this statement and of those after it, delete their AttestationBundles and restart "+
				"the attestor, which makes them again", ErrBroken, statement.Subject.Name, statement.Bundle.Key, got, want)
		}
	}
	return nil
}

// begins is the index of the first statement of a record that follows from another one and that no earlier record lists. The
// trigger follows from none.
func begins(record *evidence.Custody) int {
	if record.Number == evidence.CustodyCaptured {
		return 1
	}
	return slices.IndexFunc(record.Statements, func(s evidence.CustodyStatement) bool { return s.Kind == evidence.StatementIncident })
}

// parent of a response, by uid; empty where it has none.
func (m *Material) parent(uid string) string {
	at := slices.IndexFunc(m.Responses, func(r v1alpha1.EventResponse) bool { return string(r.UID) == uid })
	if at < 0 || m.Responses[at].Spec.ParentRef == nil {
		return ""
	}
	return m.Responses[at].Spec.ParentRef.UID
}
