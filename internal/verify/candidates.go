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
	"ugallu.io/forensics/internal/worm"
)

// maxCandidates objects are looked at of those that anybody could have added: the names of one custody record, manifests,
// and bundles that nothing names.
const maxCandidates = 1000

var (
	manifestName = regexp.MustCompile(`^manifest-([0-9a-f]{64})\.json$`)
	recordName   = regexp.MustCompile(`^custody-([12])-([0-9a-f]{64})\.json$`)
	sealName     = regexp.MustCompile(`^(custody-[12]-[0-9a-f]{64})(\.(fulcio-keyless|openbao-transit))?\.sigstore\.json$`)
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
	// claimed are records, and those of which only the statement is there, by number; stored are there themselves.
	claimed map[int][]string
	stored  map[string]bool
	// besides are the further bundles over a record, by its key.
	besides map[string][]string
	// more says by number why not all that have such a name are claimed.
	more map[int]string
	// others have the name of neither a record nor the statement over one; not all of them where manyOthers is set.
	others     []string
	manyOthers bool
}

// custodyKeys lists once.
func (v *verification) custodyKeys(ctx context.Context) (*custodyKeys, error) {
	if v.custody != nil {
		return v.custody, nil
	}
	found := &custodyKeys{claimed: map[int][]string{}, stored: map[string]bool{}, besides: map[string][]string{}, more: map[int]string{}}
	keys, err := v.list(ctx, "/custody-")
	found.manyOthers = errors.Is(err, worm.ErrManyKeys)
	if err != nil && !found.manyOthers {
		return nil, fmt.Errorf("list custody records: %w", err)
	}
	found.sort(v.prefix, keys)
	for _, number := range []int{evidence.CustodyCaptured, evidence.CustodyReleased} {
		if found.manyOthers { // what has other names is not to hide the records
			keys, err := v.list(ctx, fmt.Sprintf("/custody-%d-", number))
			if err != nil && !errors.Is(err, worm.ErrManyKeys) {
				return nil, fmt.Errorf("list custody records: %w", err)
			}
			found.sort(v.prefix, keys)
		}
		found.bound(number)
	}
	slices.Sort(found.others)
	found.others = slices.Compact(found.others)
	v.custody = found
	return found, nil
}

// list returns what lies below the incident, and of too much the first keys with worm.ErrManyKeys.
func (v *verification) list(ctx context.Context, below string) ([]string, error) {
	keys, err := v.source.List(ctx, v.prefix+below)
	if err != nil {
		return keys, sourceError(err)
	}
	return keys, nil
}

// sort tells records from what else is called custody.
func (c *custodyKeys) sort(prefix string, keys []string) {
	for _, key := range keys {
		seal := sealName.FindStringSubmatch(path.Base(key))
		switch {
		case path.Dir(key) == prefix && isRecord(key):
			c.stored[key] = true
		case path.Dir(key) == prefix && seal != nil:
			record := prefix + "/" + seal[1] + ".json"
			if seal[2] != "" && !slices.Contains(c.besides[record], key) {
				c.besides[record] = append(c.besides[record], key)
			}
			key = record
		default:
			c.others = append(c.others, key)
			continue
		}
		number, _ := numberAndDigest(key)
		c.claimed[number] = append(c.claimed[number], key)
	}
}

// bound keeps maxCandidates of the names of a record.
func (c *custodyKeys) bound(number int) {
	slices.Sort(c.claimed[number])
	keys := slices.Compact(c.claimed[number])
	if more := len(keys) - maxCandidates; more > 0 {
		c.more[number] = fmt.Sprintf("%d more objects have the name of record %d: they were not looked at", more, number)
		keys = keys[more:]
	}
	c.claimed[number] = keys
}

// seal is what came of the bundles over a record.
type seal struct {
	// by are the sorts that somebody whom the caller named signed it as.
	by []signers
	// err says why not each sort that is named is among them; nil where each is.
	err error
}

// sealError says why nothing proves that the record of this key is the attestor's. The key has the record's digest, so
// that the statements alone prove it.
//
// One by a single sort of those that are named proves it only where no record of the incident has them all: who stole one
// mode of signing is to take no record's place, and the reader of an incident that was sealed in one mode is to be told.
func (v *verification) sealError(ctx context.Context, key string) error {
	found := v.sealOf(ctx, key)
	if found.err == nil || len(found.by) == 0 || v.anySealed(ctx) {
		return found.err
	}
	return nil
}

// anySealed is whether each sort that is named signed some record of the incident.
func (v *verification) anySealed(ctx context.Context) bool {
	keys := slices.Concat(v.custody.claimed[evidence.CustodyReleased], v.custody.claimed[evidence.CustodyCaptured])
	if v.record != nil { // which may be one of too many to be claimed
		keys = append(keys, v.record.at.Key)
	}
	return slices.ContainsFunc(keys, func(key string) bool { return v.sealOf(ctx, key).err == nil })
}

// sealOf reads the bundles over each record once.
func (v *verification) sealOf(ctx context.Context, key string) seal {
	found, known := v.seals[key]
	if !known {
		found = v.readSeals(ctx, key)
		v.seals[key] = found
	}
	return found
}

// readSeals looks for a bundle over the record by somebody of each sort that the caller named: the first one, and those
// beside it.
func (v *verification) readSeals(ctx context.Context, key string) seal {
	var by []signers
	var unproven error
	for _, at := range slices.Concat([]string{evidence.CustodyBundleKey(key)}, v.custody.besides[key]) {
		sort, err := v.readSeal(ctx, key, at)
		switch {
		case err == nil:
			by = append(by, sort)
		case unproven == nil || isUnread(err):
			unproven = err
		}
		if err == nil && v.lacking(by) == "" {
			return seal{by: by}
		}
	}
	if len(by) > 0 && !isUnread(unproven) {
		unproven = refuse("the statement over it is signed by one of the %s asked about and by none of the %s: somebody stole that mode of "+
			"signing, or the incident was sealed in it alone, and then it is verified with that sort alone", by[0], v.lacking(by))
	}
	return seal{by: by, err: unproven}
}

// lacking is a sort that the caller named and that is not among these; empty where there is none.
func (v *verification) lacking(by []signers) signers {
	for _, sort := range v.named() {
		if !slices.Contains(by, sort) {
			return sort
		}
	}
	return ""
}

// readSeal returns the sort that one bundle over the record is signed by.
func (v *verification) readSeal(ctx context.Context, key, at string) (signers, error) {
	data, err := read(ctx, v.source, evidence.StoredVersion{Key: at}, maxSeal)
	if err != nil {
		return "", err
	}
	over, err := v.checkSignature(data)
	if err != nil {
		return "", err
	}
	if !over.asked {
		return "", notAsked(over)
	}
	if err := over.parse(); err != nil {
		return "", err
	}
	number, digest := numberAndDigest(key)
	subjects := []evidence.Subject{evidence.SHA256Subject(path.Base(key), digest)}
	if over.incident == nil || !sameSubjects(over.subjects, subjects) || over.incident.Number != number ||
		over.incident.Incident.Name != path.Base(v.prefix) {
		return "", refuse("the statement over it is about something else")
	}
	return over.signers(), nil
}

// readRecord returns the bytes of a record, which have the digest that its name gives: nothing else is walked.
func (v *verification) readRecord(ctx context.Context, at Target) ([]byte, error) {
	data, err := read(ctx, v.source, at.unlisted(), maxRecord)
	if err != nil {
		return nil, err
	}
	if _, digest := numberAndDigest(at.Key); evidence.Digest(data) != digest {
		return nil, refuse("the content of %s has sha256 %s: it was put over the record, of which an older version may be there", at.Key, evidence.Digest(data))
	}
	return data, nil
}
