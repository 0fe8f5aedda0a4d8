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

// discover proves every bundle that lies below the incident, and that of its trigger, and puts them in order.
func (v *verification) discover(ctx context.Context) {
	keys, err := v.source.List(ctx, v.prefix+"/bundles/")
	if err != nil {
		v.partial = true
		v.report.add(LinkChain, CheckComplete, sourceError(err), "")
	}
	keys = append([]string{evidence.TriggerBundleKey(v.trigger)}, keys...)
	for _, key := range keys {
		found := v.prove(ctx, "statement "+path.Base(key), evidence.CustodyStatement{Bundle: evidence.StoredVersion{Key: key}})
		if found == nil {
			continue
		}
		_, about := found.about()
		v.report.add(found.name, CheckStatement, nil, about.Name+": "+describe(found))
		v.links = append(v.links, found)
	}
	slices.SortStableFunc(v.links, func(a, b *link) int { return rank(a) - rank(b) })
}

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
