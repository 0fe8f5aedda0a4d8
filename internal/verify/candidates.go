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

// sealError says why nothing proves that the record of this key is the attestor's. The key has the record's digest, so
// that the statement alone proves it. Each is read once.
func (v *verification) sealError(ctx context.Context, key string) error {
	err, known := v.seals[key]
	if !known {
		err = v.readSeals(ctx, key)
		v.seals[key] = err
	}
	return err
}

// readSeals looks for a bundle over the record that is by somebody whom the caller named: the first one, or one beside it.
func (v *verification) readSeals(ctx context.Context, key string) error {
	err := v.readSeal(ctx, key, evidence.CustodyBundleKey(key))
	for _, beside := range v.custody.besides[key] {
		if err == nil {
			return nil
		}
		if other := v.readSeal(ctx, key, beside); other == nil {
			return nil
		} else if isUnread(other) {
			err = other
		}
	}
	return err
}

func (v *verification) readSeal(ctx context.Context, key, at string) error {
	data, err := read(ctx, v.source, evidence.StoredVersion{Key: at}, maxSeal)
	if err != nil {
		return err
	}
	over, err := v.checkSignature(data)
	if err != nil {
		return err
	}
	if !over.asked {
		return notAsked(over)
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
