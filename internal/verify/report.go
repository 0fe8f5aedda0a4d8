package verify

import (
	"errors"
	"fmt"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/worm"
)

// Status is what came of a check.
type Status string

// Statuses. NotChecked is where there is nothing to check by, or nothing is claimed: it neither proves nor refutes.
// Unread is where the source could not be read, which may pass.
const (
	Passed     Status = "passed"
	Failed     Status = "failed"
	NotChecked Status = "notChecked"
	Unread     Status = "unread"
)

// Check is one question about one link of the chain.
type Check struct {
	// Link is what was looked at: a record, a statement, an artifact, an object, the chain, or a fact.
	Link string `json:"link"`
	// Check names the question; each has a line in docs/verify.md.
	Check  string `json:"check"`
	Status Status `json:"status"`
	// Reason says why the status is not Passed, or what was found.
	Reason string `json:"reason,omitempty"`
}

// Report is every check, in the order in which they were made: that of the evidence, so that two reports of the same
// evidence are the same.
type Report struct {
	Incident evidence.Reference `json:"incident"`
	Pod      evidence.Pod       `json:"pod"`
	// Records is the number of the custody record that was checked: 1 when captured, 2 when released; 0 where none is proven.
	Records int     `json:"records"`
	Checks  []Check `json:"checks"`
}

// Verdict is what a report comes to.
type Verdict string

// Verdicts: Refused if any check failed; otherwise Incomplete if anything could not be read; otherwise Unsealed if no
// custody record is proven, so that nobody has signed that there is no more than what was checked.
const (
	Verified   Verdict = "verified"
	Refused    Verdict = "refused"
	Incomplete Verdict = "incomplete"
	Unsealed   Verdict = "unsealed"
)

// Verdict of all checks. Nothing that passed at all is no verification.
func (r *Report) Verdict() Verdict {
	counts := map[Status]int{}
	for _, check := range r.Checks {
		counts[check.Status]++
	}
	switch {
	case counts[Failed] > 0:
		return Refused
	case counts[Unread] > 0 || counts[Passed] == 0:
		return Incomplete
	case r.Records == 0:
		return Unsealed
	}
	return Verified
}

// refusal is what evidence is refused for, apart from errors of reading it.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

func refuse(format string, arguments ...any) error {
	return &refusal{reason: fmt.Sprintf(format, arguments...)}
}

// unreadError is an error of the source.
type unreadError struct{ err error }

func (e *unreadError) Error() string { return e.err.Error() }
func (e *unreadError) Unwrap() error { return e.err }

// sourceError tells what the source does not have, which refutes what names it, from what it could not give.
func sourceError(err error) error {
	if err == nil || errors.Is(err, worm.ErrNotFound) {
		return err
	}
	return &unreadError{err}
}

func isUnread(err error) bool {
	_, unread := errors.AsType[*unreadError](err)
	return unread
}

// add notes a check: passed with what was found, or as the error says.
func (r *Report) add(link, check string, err error, found string) bool {
	status := Passed
	if err != nil {
		status, found = Failed, err.Error()
		if isUnread(err) {
			status = Unread
		}
	}
	r.Checks = append(r.Checks, Check{Link: link, Check: check, Status: status, Reason: found})
	return err == nil
}

func (r *Report) notChecked(link, check, reason string) {
	r.Checks = append(r.Checks, Check{Link: link, Check: check, Status: NotChecked, Reason: reason})
}
