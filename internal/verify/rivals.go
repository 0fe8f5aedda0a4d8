package verify

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"

	"ugallu.io/forensics/api/evidence"
)

// maxNoted objects that do not belong are named in a report; anybody who may write to the bucket can add any number.
const maxNoted = 100

var (
	manifestName = regexp.MustCompile(`^manifest-[0-9a-f]{64}\.json$`)
	recordName   = regexp.MustCompile(`^custody-([12])-([0-9a-f]{64})\.json$`)
	sealName     = regexp.MustCompile(`^(custody-[12]-[0-9a-f]{64})\.sigstore\.json$`)
)

func isManifest(key string) bool { return manifestName.MatchString(path.Base(key)) }

func isRecord(key string) bool { return recordName.MatchString(path.Base(key)) }

// numberAndDigest that the name of a record's key gives; zero for the key of anything else.
func numberAndDigest(key string) (number int, digest string) {
	parts := recordName.FindStringSubmatch(path.Base(key))
	if parts == nil {
		return 0, ""
	}
	number, _ = strconv.Atoi(parts[1]) // a single digit
	return number, parts[2]
}

// custodyKeys is what lies where custody records lie, each in order.
type custodyKeys struct {
	// records are there themselves; claimed are also those of which only the statement is there.
	records, claimed []string
	// others have the name of neither a record nor the statement over one.
	others []string
}

func (v *verification) custodyKeys(ctx context.Context) (custodyKeys, error) {
	keys, err := v.source.List(ctx, v.prefix+"/custody-")
	if err != nil {
		return custodyKeys{}, sourceError(fmt.Errorf("list custody records of %s: %w", v.prefix, err))
	}
	var found custodyKeys
	for _, key := range keys {
		seal := sealName.FindStringSubmatch(path.Base(key))
		switch {
		case path.Dir(key) == v.prefix && isRecord(key):
			found.records, found.claimed = append(found.records, key), append(found.claimed, key)
		case path.Dir(key) == v.prefix && seal != nil:
			found.claimed = append(found.claimed, v.prefix+"/"+seal[1]+".json")
		default:
			found.others = append(found.others, key)
		}
	}
	slices.Sort(found.claimed)
	found.claimed = slices.Compact(found.claimed)
	return found, nil
}

// newestRecord is the key of the last record that is proven; empty where none is. Whoever may write to the bucket can add
// an object with the name of a record: without a statement over it, it is nobody's word and takes no record's place.
func (v *verification) newestRecord(ctx context.Context) (string, error) {
	found, err := v.custodyKeys(ctx)
	if err != nil {
		return "", err
	}
	for _, key := range slices.Backward(found.records) {
		unproven := v.sealError(ctx, key)
		if unproven == nil {
			return key, nil
		}
		if isUnread(unproven) {
			return "", fmt.Errorf("read the statement over %s: %w", key, unproven)
		}
	}
	return "", nil
}

// sealError says why nothing proves that the record of this key is the attestor's. The key has the record's digest, so
// that the statement alone proves it.
func (v *verification) sealError(ctx context.Context, key string) error {
	data, err := read(ctx, v.source, evidence.StoredVersion{Key: evidence.CustodyBundleKey(key)}, maxSeal)
	if err != nil {
		return err
	}
	over, err := v.checkSignature(data)
	if err != nil {
		return err
	}
	if err := over.parse(); err != nil {
		return err
	}
	number, digest := numberAndDigest(key)
	subjects := []evidence.Subject{evidence.SHA256Subject(path.Base(key), digest)}
	if over.incident == nil || !sameSubjects(over.subjects, subjects) || over.incident.Number != number ||
		over.incident.Incident.Name != path.Base(v.prefix) {
		return refuse("the statement over it is about something else")
	}
	return nil
}

// checkRivals refuses a second proven record of one number: the attestor contradicts itself, and it would be for the
// reader to choose. What is not proven is noted, and decides nothing.
func (v *verification) checkRivals(ctx context.Context) {
	found, err := v.custodyKeys(ctx)
	if err != nil {
		v.report.add(LinkChain, CheckRecords, err, "")
		return
	}
	first, notes := v.chosen(), map[string]string{}
	var contradictions []error
	for _, key := range found.claimed {
		number, _ := numberAndDigest(key)
		if key == first[number] {
			continue
		}
		unproven := v.sealError(ctx, key)
		switch {
		case isUnread(unproven):
			v.report.add("object "+key, CheckForeign, unproven, "")
		case unproven != nil:
			notes[key] = fmt.Sprintf("it has the name of record %d and is not proven: %v", number, unproven)
		case first[number] != "":
			contradictions = append(contradictions,
				refuse("%s and %s are both record %d of the incident, and signed", first[number], key, number))
		case !slices.Contains(found.records, key):
			notes[key] = fmt.Sprintf("the statement over this record %d is there, the record is not", number)
		default:
			first[number] = key
		}
	}
	for _, key := range found.others {
		notes[key] = "no custody record has such a name"
	}
	if v.record != nil {
		v.report.add(LinkChain, CheckRecords, errors.Join(contradictions...), fmt.Sprintf("%d of 2", len(first)))
	}
	v.note(notes)
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

// note names objects that nothing refers to.
func (v *verification) note(reasons map[string]string) {
	keys := make([]string, 0, len(reasons))
	for key := range reasons {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys[:min(len(keys), maxNoted)] {
		v.report.notChecked("object "+key, CheckForeign, reasons[key])
	}
	if more := len(keys) - maxNoted; more > 0 {
		v.report.notChecked("object "+v.prefix+"/custody-…", CheckForeign, fmt.Sprintf("%d more", more))
	}
}
