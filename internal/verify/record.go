package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"

	"ugallu.io/forensics/api/evidence"
)

// record is a custody record as it was read.
type record struct {
	at      Target
	link    string
	digest  string
	custody evidence.Custody
}

// parseRecord reads a record and checks its form.
func (v *verification) parseRecord(at Target, data []byte) (*record, error) {
	r := &record{at: at, digest: evidence.Digest(data)}
	if err := json.Unmarshal(data, &r.custody); err != nil {
		return nil, fmt.Errorf("parse custody record %s: %w", at.Key, err)
	}
	r.link = fmt.Sprintf("custody-%d", r.custody.Number)
	v.report.add(r.link, CheckForm, r.formError(data), "sha256 "+r.digest)
	return r, nil
}

func (r *record) formError(data []byte) error {
	custody := &r.custody
	if err := canonical(data); err != nil {
		return err
	}
	if want := evidence.CustodyKey(path.Dir(r.at.Key), custody.Number, r.digest); r.at.Key != want {
		return refuse("lies at %s, its content belongs to %s", r.at.Key, want)
	}
	if custody.Version != evidence.CustodyVersion {
		return refuse("has version %q, this program knows %q", custody.Version, evidence.CustodyVersion)
	}
	if custody.Number != evidence.CustodyCaptured && custody.Number != evidence.CustodyReleased {
		return refuse("has number %d", custody.Number)
	}
	if (custody.Number == evidence.CustodyCaptured) != (custody.Previous == nil) {
		return refuse("number %d, and a record before it: %t", custody.Number, custody.Previous != nil)
	}
	return nil
}

// canonical demands that data is canonical JSON already.
func canonical(data []byte) error {
	again, err := evidence.Canonical(json.RawMessage(data))
	if err != nil {
		return refuse("is no JSON: %v", err)
	}
	if !bytes.Equal(again, data) {
		return refuse("is not canonical JSON")
	}
	return nil
}

// proveRecords checks the statement over the newest record, and the record before it.
func (v *verification) proveRecords(ctx context.Context) {
	if v.record == nil {
		v.report.notChecked(LinkChain, CheckRecords, "no custody record is proven: nobody has signed what belongs to the incident")
		v.checkRivals(ctx)
		return
	}
	v.checkRivals(ctx)
	name := "statement over " + v.record.link
	bundle := evidence.StoredVersion{Key: evidence.CustodyBundleKey(v.record.at.Key), RetainUntil: v.record.custody.RetainUntil}
	statement := v.prove(ctx, name, evidence.CustodyStatement{
		Kind: evidence.StatementIncident, Subject: v.record.custody.Incident, Bundle: bundle, Countersignatures: v.record.promised(bundle),
	})
	v.checkKept(ctx, name, bundle, v.record.custody.LockMode)
	if statement != nil {
		v.report.add(statement.name, CheckPrevious, v.recordError(v.record, statement), "")
		v.vouched(ctx, statement)
	}
	v.checkKept(ctx, v.record.link, evidence.StoredVersion{
		Key: v.record.at.Key, VersionID: v.record.at.VersionID, RetainUntil: v.record.custody.RetainUntil,
	}, v.record.custody.LockMode)
	for _, gap := range v.record.custody.Gaps {
		if gap.Reason == evidence.GapModeWithdrawn {
			v.report.notChecked(v.record.link, CheckSignature, gap.Message)
		}
	}
	if previous := v.record.custody.Previous; previous != nil {
		v.provePrevious(ctx, *previous)
	}
}

// promised are the further bundles over a record, which are listed nowhere: their names come of the record's own.
func (r *record) promised(bundle evidence.StoredVersion) []evidence.Countersignature {
	var found []evidence.Countersignature
	for _, mode := range r.custody.CountersignedIn {
		at := evidence.StoredVersion{Key: evidence.CountersignatureKey(bundle.Key, mode), RetainUntil: bundle.RetainUntil}
		found = append(found, evidence.Countersignature{Mode: mode, StoredVersion: at})
	}
	return found
}

// provePrevious checks the record before the newest one; its statement is among those that the newest lists.
func (v *verification) provePrevious(ctx context.Context, listed evidence.StoredVersion) {
	const link = "custody-1"
	data, err := read(ctx, v.source, listed, maxRecord)
	if err == nil {
		err = sameBytes(listed, int64(len(data)), evidence.Digest(data))
	}
	if !v.report.add(link, CheckDigest, err, "") {
		return
	}
	v.checkKept(ctx, link, listed, v.record.custody.LockMode)
	before, err := v.parseRecord(Target{Key: listed.Key, VersionID: listed.VersionID}, data)
	if err != nil {
		v.report.add(link, CheckForm, refuse("%v", err), "")
		return
	}
	v.report.add(v.record.link, CheckRecords, keeps(&before.custody, &v.record.custody), "keeps what custody-1 lists")
}

// keeps checks that a later record lists everything that an earlier one does, unchanged.
func keeps(before, after *evidence.Custody) error {
	if before.Number != evidence.CustodyCaptured || before.Incident != after.Incident || before.Trigger != after.Trigger || before.Pod != after.Pod {
		return refuse("the record before it is number %d of incident %s", before.Number, before.Incident.Name)
	}
	if len(before.Statements) > len(after.Statements) {
		return refuse("it lists %d statements, the record before it %d", len(after.Statements), len(before.Statements))
	}
	for i, statement := range before.Statements {
		if !sameStatement(statement, after.Statements[i]) {
			return refuse("it lists another statement than the record before it in place of %s", statement.Subject.Name)
		}
	}
	for _, mode := range before.CountersignedIn {
		if !listsSeal(after, mode) {
			return refuse("it does not list the signature in mode %s that the record before it says is over that one", mode)
		}
	}
	for _, object := range before.Objects {
		if !slices.ContainsFunc(after.Objects, func(other evidence.CustodyObject) bool { return sameObject(object, other) }) {
			return refuse("it does not list %s as the record before it does", object.Key)
		}
	}
	return nil
}

// listsSeal is whether a record lists the signature in a mode over the record before it.
func listsSeal(custody *evidence.Custody, mode string) bool {
	return slices.ContainsFunc(custody.Statements, func(statement evidence.CustodyStatement) bool {
		return statement.Kind == evidence.StatementIncident && slices.ContainsFunc(statement.Countersignatures,
			func(beside evidence.Countersignature) bool { return beside.Mode == mode })
	})
}

func sameStatement(a, b evidence.CustodyStatement) bool {
	besides := slices.EqualFunc(a.Countersignatures, b.Countersignatures, func(a, b evidence.Countersignature) bool {
		return a.Mode == b.Mode && sameVersion(a.StoredVersion, b.StoredVersion)
	})
	return besides && a.Kind == b.Kind && a.Subject == b.Subject && a.Step == b.Step && a.PayloadSHA256 == b.PayloadSHA256 &&
		sameVersion(a.Bundle, b.Bundle)
}

func sameVersion(a, b evidence.StoredVersion) bool {
	sameDate := a.RetainUntil.Equal(b.RetainUntil)
	b.RetainUntil = a.RetainUntil
	return sameDate && a == b
}

func sameObject(a, b evidence.CustodyObject) bool {
	sameDate := a.RetainUntil.Equal(b.RetainUntil)
	b.RetainUntil = a.RetainUntil
	return sameDate && a == b
}

// recordError compares a record with the statement over it.
func (v *verification) recordError(r *record, over *link) error {
	if over.incident == nil {
		return refuse("it is no statement over a custody record")
	}
	subjects := []evidence.Subject{evidence.SHA256Subject(path.Base(r.at.Key), r.digest)}
	if !sameSubjects(over.subjects, subjects) {
		return refuse("its subject is not %s", r.at.Key)
	}
	said, custody := over.incident, &r.custody
	if said.Incident != custody.Incident || said.Number != custody.Number {
		return refuse("it is about record %d of incident %s", said.Number, said.Incident.Name)
	}
	previous := ""
	if custody.Previous != nil {
		previous = custody.Previous.SHA256
	}
	if said.PreviousCustody != previous {
		return refuse("it names %q as the record before, the record says %q", said.PreviousCustody, previous)
	}
	if len(custody.Statements) == 0 || said.Previous != custody.Statements[len(custody.Statements)-1].PayloadSHA256 {
		return refuse("it names %q as the statement before it, which is not the last that the record lists", said.Previous)
	}
	return nil
}
