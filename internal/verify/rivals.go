package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"ugallu.io/forensics/api/evidence"
)

// maxNoted objects that do not belong are named in a report; anybody who may write to the bucket can add any number.
const maxNoted = 100

// newestRecord is the last record that is proven, by its statement and its content; its key is empty where none is. One
// that each sort that is named signed comes before a later one that a single sort did.
// Whoever may write to the bucket can add an object with the name of a record: without a statement over it, it is
// nobody's word and takes no record's place. What cannot be read does not either: checkRivals says so.
func (v *verification) newestRecord(ctx context.Context) (key string, data []byte, err error) {
	found, err := v.custodyKeys(ctx)
	if err != nil {
		return "", nil, err
	}
	for _, number := range []int{evidence.CustodyReleased, evidence.CustodyCaptured} {
		for _, key := range slices.Backward(found.claimed[number]) {
			if !found.stored[key] || v.sealError(ctx, key) != nil {
				continue
			}
			data, err := v.readRecord(ctx, Target{Key: key})
			if err == nil {
				return key, data, nil
			}
			v.lost[key] = err
		}
	}
	return "", nil, nil
}

// findings are what checkRivals has to say of objects, by key.
type findings struct {
	// unread could be records, foreign are none or decide nothing.
	unread, foreign map[string]string
	contradictions  []error
}

// checkRivals refuses a second proven record of one number: the attestor contradicts itself, and it would be for the
// reader to choose. What is not proven is noted, and decides nothing; what a single sort of those that are named signed is
// not, beside a record that all of them did.
//
// A statement proves that its record was made. One whose record is not to be had is unread: a part of the evidence is
// missing, and its older version may be in the store.
//
// A bundle that cannot be read is unread where no record of its number is proven: that could be the record. Beside a proven
// one it is noted. An object that can be put and never read, with a key of the writer's own or in an archive, takes one put,
// and would otherwise keep every incident from being verified for as long as it is locked.
func (v *verification) checkRivals(ctx context.Context) {
	found, err := v.custodyKeys(ctx)
	if err != nil {
		v.report.add(LinkChain, CheckRecords, err, "")
		return
	}
	first := v.chosen()
	about := findings{unread: map[string]string{}, foreign: map[string]string{}}
	for _, number := range []int{evidence.CustodyCaptured, evidence.CustodyReleased} {
		v.compareRivals(ctx, number, first, &about)
	}
	for _, key := range found.others {
		about.foreign[key] = "no custody record has such a name"
	}
	if found.manyOthers {
		about.foreign[v.prefix+"/custody-…"] = "there are more objects than are listed"
	}
	if v.record != nil {
		v.report.add(LinkChain, CheckRecords, errors.Join(about.contradictions...), fmt.Sprintf("%d of 2", len(first)))
		if v.record.custody.Number == evidence.CustodyCaptured {
			v.later = first[evidence.CustodyReleased]
		}
		if first[evidence.CustodyReleased] == "" {
			v.report.notChecked(LinkChain, CheckRecords, "record 1; "+v.withoutReleased(ctx))
		}
	}
	v.note(Unread, about.unread)
	v.note(NotChecked, about.foreign)
}

// compareRivals looks at everything with the name of one record. A proven one takes the place that is empty.
func (v *verification) compareRivals(ctx context.Context, number int, first map[int]string, about *findings) {
	unread, signed := map[string]string{}, first[number]
	for _, key := range v.custody.claimed[number] {
		if key == first[number] {
			continue
		}
		unproven := v.sealError(ctx, key)
		switch {
		case isUnread(unproven):
			unread[key] = fmt.Sprintf("it has the name of record %d and cannot be read: %v", number, unproven)
		case unproven != nil:
			about.foreign[key] = fmt.Sprintf("it has the name of record %d and is not proven: %v", number, unproven)
		case signed != "":
			about.contradictions = append(about.contradictions,
				refuse("%s and %s are both record %d of the incident, and signed", signed, key, number))
		default:
			signed = key
			if err := v.lostError(ctx, key); err != nil {
				unread[key] = fmt.Sprintf("the statement over this record %d is there, the record is not: %v", number, err)
				continue
			}
			first[number] = key
		}
	}
	if more := v.custody.more[number]; more != "" {
		unread[fmt.Sprintf("%s/custody-%d-…", v.prefix, number)] = more
	}
	if first[number] != "" {
		maps.Copy(about.foreign, unread)
	} else {
		maps.Copy(about.unread, unread)
	}
}

// lostError says why a record that a statement proves is not to be had; nil where it is. Each is read once.
func (v *verification) lostError(ctx context.Context, key string) error {
	if _, known := v.lost[key]; !known {
		_, v.lost[key] = v.readRecord(ctx, Target{Key: key})
	}
	return v.lost[key]
}

// withoutReleased says what there is in place of a second record.
func (v *verification) withoutReleased(ctx context.Context) string {
	signed := func(key string) bool { return len(v.sealOf(ctx, key).by) > 0 }
	if slices.ContainsFunc(v.custody.claimed[evidence.CustodyReleased], signed) {
		return "a statement over a record 2 is there, see foreign"
	}
	return "no record 2 was found: the pod was not released, or somebody hid it behind a delete marker"
}

// chosen are the keys of the record to begin with, and of the one that it names, by number.
func (v *verification) chosen() map[int]string {
	keys := map[int]string{}
	if v.record == nil {
		return keys
	}
	if previous := v.record.custody.Previous; previous != nil && isRecord(previous.Key) {
		number, _ := numberAndDigest(previous.Key)
		keys[number] = previous.Key
	}
	number, _ := numberAndDigest(v.record.at.Key)
	keys[number] = v.record.at.Key
	return keys
}

// note names objects that nothing refers to, the first of them.
func (v *verification) note(status Status, reasons map[string]string) {
	keys := slices.Sorted(maps.Keys(reasons))
	for _, key := range keys[:min(len(keys), maxNoted)] {
		v.report.Checks = append(v.report.Checks, Check{Link: "object " + key, Check: CheckForeign, Status: status, Reason: reasons[key]})
	}
	if more := len(keys) - maxNoted; more > 0 {
		v.report.Checks = append(v.report.Checks, Check{
			Link: "object " + v.prefix + "/…", Check: CheckForeign, Status: status, Reason: fmt.Sprintf("%d more", more),
		})
	}
}
