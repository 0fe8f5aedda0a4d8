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
		fits := v.report.add(name, CheckStatement, v.listedError(found), describe(found))
		if v.vouched(ctx, found) && fits {
			v.links = append(v.links, found)
		}
	}
}

// prove reads a bundle and checks its bytes, as far as they are on record, and its signature. Nil is returned, with the
// reason in the report, when there is nothing to read on.
func (v *verification) prove(ctx context.Context, name string, listed evidence.CustodyStatement) *link {
	data, err := v.readBundle(ctx, name, listed.Bundle, listed.Kind)
	if err != nil {
		v.partial = v.partial || isUnread(err)
		return nil
	}
	found, err := v.checkSignature(data)
	if err == nil && !found.asked && len(listed.Countersignatures) == 0 {
		err = notAsked(found)
	}
	if err != nil {
		v.report.add(name, CheckSignature, err, "")
		return nil
	}
	found.name, found.listed = name, listed
	v.addSignature(found)
	if err := found.parse(); err != nil {
		v.report.add(name, CheckStatement, err, "")
		return nil
	}
	return found
}

// readBundle reads a bundle and compares its bytes with what is on record.
func (v *verification) readBundle(
	ctx context.Context, name string, listed evidence.StoredVersion, kind evidence.StatementKind,
) ([]byte, error) {
	limit := int64(maxRecord)
	if kind == evidence.StatementIncident {
		limit = maxSeal
	}
	data, err := read(ctx, v.source, listed, limit)
	if err != nil {
		v.report.add(name, CheckDigest, err, "")
		return nil, err
	}
	if listed.SHA256 != "" {
		digest := evidence.Digest(data)
		v.report.add(name, CheckDigest, sameBytes(listed, int64(len(data)), digest), "sha256 "+digest)
	}
	return data, nil
}

// checkSignature proves that somebody whom the caller named signed a bundle, or, where nobody is named who signs as it is
// signed, whatever can be proven without.
func (v *verification) checkSignature(bundle []byte) (*link, error) {
	asked, err := v.prover.Asks(bundle)
	if err != nil {
		return nil, err
	}
	prove := v.prover.Verify
	if !asked {
		prove = v.prover.Witness
	}
	proof, err := prove(bundle)
	if err != nil {
		return nil, err
	}
	if err := labelsError(bundle); err != nil {
		return nil, err
	}
	return &link{proof: proof, digest: evidence.Digest(proof.Payload), asked: asked}, nil
}

// addSignature reports a signature that is as it should be, by whom it is asked about or by somebody else.
func (v *verification) addSignature(l *link) {
	if l.asked {
		v.report.add(l.name, CheckSignature, nil, signed(l))
		return
	}
	v.report.notChecked(l.name, CheckSignature, notAsked(l).Error())
}

func notAsked(l *link) error {
	return refuse("%s: nobody asked about %s, only the trusted root speaks for it", signed(l), l.signers())
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
