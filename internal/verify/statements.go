package verify

import (
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	"ugallu.io/forensics/api/evidence"
)

// proveStatements proves what the record lists or, without a record, what lies where bundles lie.
func (v *verification) proveStatements(ctx context.Context) {
	if v.record == nil {
		v.discover(ctx)
		return
	}
	for _, listed := range v.record.custody.Statements {
		name := "statement " + listed.Subject.Name
		if listed.Kind == evidence.StatementIncident {
			name = "statement over custody-1"
		}
		found := v.prove(ctx, name, listed)
		v.checkKept(ctx, name, listed.Bundle, v.record.custody.LockMode)
		if found == nil {
			continue
		}
		if v.report.add(name, CheckStatement, v.listedError(found), describe(found)) {
			v.links = append(v.links, found)
		}
	}
}

// prove reads a bundle and checks its bytes, as far as they are on record, and its signature. Nil is returned, with the
// reason in the report, when there is nothing to read on.
func (v *verification) prove(ctx context.Context, name string, listed evidence.CustodyStatement) *link {
	limit := int64(maxRecord)
	if listed.Kind == evidence.StatementIncident {
		limit = maxSeal
	}
	data, err := read(ctx, v.source, listed.Bundle, limit)
	if err != nil {
		v.partial = v.partial || isUnread(err)
		v.report.add(name, CheckDigest, err, "")
		return nil
	}
	digest := evidence.Digest(data)
	if listed.Bundle.SHA256 != "" {
		v.report.add(name, CheckDigest, sameBytes(listed.Bundle, int64(len(data)), digest), "sha256 "+digest)
	}
	found, err := v.checkSignature(data)
	if err != nil {
		v.report.add(name, CheckSignature, err, "")
		return nil
	}
	found.name, found.listed = name, listed
	v.report.add(name, CheckSignature, nil, signed(found))
	if err := found.parse(); err != nil {
		v.report.add(name, CheckStatement, err, "")
		return nil
	}
	return found
}

func (v *verification) checkSignature(bundle []byte) (*link, error) {
	proof, err := v.prover.Verify(bundle)
	if err != nil {
		return nil, err
	}
	if err := labelsError(bundle); err != nil {
		return nil, err
	}
	return &link{proof: proof, digest: evidence.Digest(proof.Payload)}, nil
}

func signed(l *link) string {
	by := l.proof.Signer
	if l.proof.Issuer != "" {
		by += " of " + l.proof.Issuer
	}
	return fmt.Sprintf("by %s, entry %d, at %s", by, l.proof.LogIndex, l.proof.Timestamp.Format(time.RFC3339))
}

// listedError compares a statement with what the record lists it as.
func (v *verification) listedError(l *link) error {
	kind, about := l.about()
	switch {
	case kind != l.listed.Kind || about != l.listed.Subject || l.step() != l.listed.Step:
		return refuse("it is about %s %s (%s), listed as %s %s (%s)", kind, about.Name, about.UID,
			l.listed.Kind, l.listed.Subject.Name, l.listed.Subject.UID)
	case l.digest != l.listed.PayloadSHA256:
		return refuse("its payload has sha256 %s, on record is %s", l.digest, l.listed.PayloadSHA256)
	case kind == evidence.StatementIncident:
		return v.previousRecordError(l)
	}
	return nil
}

// previousRecordError compares the statement over the record before with that record.
func (v *verification) previousRecordError(l *link) error {
	previous := v.record.custody.Previous
	if previous == nil {
		return refuse("the record lists a statement over a record before it, and names none")
	}
	subjects := []evidence.Subject{evidence.SHA256Subject(path.Base(previous.Key), previous.SHA256)}
	if !sameSubjects(l.subjects, subjects) || l.incident.Number != evidence.CustodyCaptured {
		return refuse("its subject is not %s", previous.Key)
	}
	return nil
}

func describe(l *link) string {
	if l.response != nil {
		return l.response.Step + " " + l.response.outcome.Phase
	}
	if l.event != nil {
		return l.event.spec.Type
	}
	return ""
}

// discover proves what lies below the incident and its trigger, and puts it in order. Whoever may write to the bucket can
// add an object there: what is not proven, or not of this incident, is noted and decides nothing.
func (v *verification) discover(ctx context.Context) {
	seen := map[string]bool{}
	take := func(found *link) {
		_, about := found.about()
		v.report.add(found.name, CheckStatement, nil, about.Name+": "+describe(found))
		v.links, seen[found.digest] = append(v.links, found), true
	}
	trigger := evidence.TriggerBundleKey(v.trigger)
	if found := v.prove(ctx, bundleLink(trigger), evidence.CustodyStatement{Bundle: evidence.StoredVersion{Key: trigger}}); found != nil {
		take(found)
	}
	unread, foreign := map[string]string{}, map[string]string{}
	for _, key := range v.bundleKeys(ctx) {
		found, err := v.stray(ctx, key, seen)
		switch {
		case isUnread(err):
			v.partial, unread[key] = true, err.Error()
		case err != nil:
			foreign[key] = err.Error()
		default:
			v.report.add(found.name, CheckSignature, nil, signed(found))
			take(found)
		}
	}
	v.note(Unread, unread)
	v.note(NotChecked, foreign)
	slices.SortStableFunc(v.links, func(a, b *link) int { return rank(a) - rank(b) })
}

// bundleKeys are what lies where the bundles of an incident lie, maxCandidates of them.
func (v *verification) bundleKeys(ctx context.Context) []string {
	keys, err := v.list(ctx, "/bundles/")
	if more := len(keys) - maxCandidates; more > 0 {
		keys = keys[:maxCandidates]
		err = &unreadError{fmt.Errorf("%d more objects lie below %s/bundles/: they were not looked at", more, v.prefix)}
	}
	if err != nil {
		v.partial = true
		v.report.add(LinkChain, CheckComplete, err, "")
	}
	return keys
}

// stray proves a bundle that nothing names, and that it is of this incident and not one of those seen.
func (v *verification) stray(ctx context.Context, key string, seen map[string]bool) (*link, error) {
	data, err := read(ctx, v.source, evidence.StoredVersion{Key: key}, maxRecord)
	if err != nil {
		return nil, err
	}
	found, err := v.checkSignature(data)
	if err != nil {
		return nil, err
	}
	found.name = bundleLink(key)
	if err := found.parse(); err != nil {
		return nil, err
	}
	switch {
	case found.incident != nil || isTrigger(found):
		return nil, refuse("no statement of its kind lies here")
	case seen[found.digest]:
		return nil, refuse("it is a copy of a statement that lies elsewhere")
	}
	return found, belongs(found, v.report.Incident, v.trigger)
}

func bundleLink(key string) string { return "statement " + path.Base(key) }

// maxAttempts is above the attempts that a step can have.
const maxAttempts = 1000

// rank is where a statement stands when nothing but its kind says so.
func rank(l *link) int {
	switch {
	case l.incident != nil:
		return 5 * maxAttempts
	case l.event != nil && l.event.spec.Class != classForensic:
		return 0
	case l.event != nil:
		return 4 * maxAttempts
	}
	order := []string{stepFreeze, stepSnapshot, stepUpload, "", "", stepUnfreeze}
	return (slices.Index(order, l.response.Step)+1)*maxAttempts + l.response.spec.Attempt
}
