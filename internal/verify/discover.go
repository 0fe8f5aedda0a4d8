package verify

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"ugallu.io/forensics/api/evidence"
)

// strays are what is found where bundles lie, and what there is to say of what does not count.
type strays struct {
	seen            map[string]bool
	unread, foreign map[string]string
}

// discover proves what lies below the incident and its trigger, and puts it in order. Whoever may write to the bucket can
// add an object there: what is not proven, or not of this incident, is noted and decides nothing.
func (v *verification) discover(ctx context.Context) {
	s := &strays{seen: map[string]bool{}, unread: map[string]string{}, foreign: map[string]string{}}
	v.discoverTrigger(ctx, s)
	firsts, besides := pairs(v.bundleKeys(ctx))
	for _, key := range firsts {
		found, err := v.stray(ctx, key, s.seen)
		if err == nil {
			found.listed.Countersignatures = besides[key]
			err = v.strayVouched(ctx, found, s)
			delete(besides, key)
		}
		switch {
		case isUnread(err):
			v.partial, s.unread[key] = true, err.Error()
		case err != nil:
			s.foreign[key] = err.Error()
		default:
			v.addSignature(found)
			v.take(found, s)
		}
	}
	for first, listed := range besides {
		for _, beside := range listed {
			s.foreign[beside.Key] = "it lies beside " + path.Base(first) + ", which is not there or not proven"
		}
	}
	v.note(Unread, s.unread)
	v.note(NotChecked, s.foreign)
	slices.SortStableFunc(v.links, func(a, b *link) int { return rank(a) - rank(b) })
}

// take keeps a statement.
func (v *verification) take(found *link, s *strays) {
	_, about := found.about()
	v.report.add(found.name, CheckStatement, nil, about.Name+": "+describe(found))
	v.links, s.seen[found.digest] = append(v.links, found), true
}

// discoverTrigger proves the statement about the event that the manifest names.
func (v *verification) discoverTrigger(ctx context.Context, s *strays) {
	key := evidence.TriggerBundleKey(v.trigger)
	listed := evidence.CustodyStatement{Bundle: evidence.StoredVersion{Key: key}}
	keys, err := v.source.List(ctx, strings.TrimSuffix(key, bundleSuffix)+".")
	if err != nil {
		v.partial, s.unread[key] = true, fmt.Sprintf("what lies beside it is not listed: %v", err)
	}
	_, besides := pairs(keys)
	listed.Countersignatures = besides[key]
	found := v.prove(ctx, bundleLink(key), listed)
	if found == nil {
		return
	}
	if err := v.strayVouched(ctx, found, s); err != nil {
		v.partial = v.partial || isUnread(err)
		v.report.add(found.name, CheckSignature, err, "")
		return
	}
	v.take(found, s)
}

// strayVouched is nil where a bundle and those beside it are by somebody of each sort that the caller named. No record says
// what lies beside it: what is not over the same statement decides nothing.
func (v *verification) strayVouched(ctx context.Context, first *link, s *strays) error {
	proven, unread := []*link{first}, map[signers]error{}
	for _, beside := range first.listed.Countersignatures {
		found, err := v.strayBeside(ctx, first, beside)
		switch {
		case isUnread(err):
			v.partial, s.unread[beside.Key], unread[signersIn(beside.Mode)] = true, err.Error(), err
		case err != nil:
			s.foreign[beside.Key] = err.Error()
		default:
			v.addSignature(found)
			proven = append(proven, found)
		}
	}
	return v.lacks(proven, unread)
}

func (v *verification) strayBeside(ctx context.Context, first *link, beside evidence.Countersignature) (*link, error) {
	data, err := read(ctx, v.source, beside.StoredVersion, maxRecord)
	if err != nil {
		return nil, err
	}
	found, err := v.checkSignature(data)
	if err != nil {
		return nil, err
	}
	found.name = besideLink(first, beside.Mode)
	return found, besideError(first, beside, found)
}

// pairs tells bundles from those that countersign them, by their names.
func pairs(keys []string) (firsts []string, besides map[string][]evidence.Countersignature) {
	besides = map[string][]evidence.Countersignature{}
	for _, key := range keys {
		first, mode := countersigned(key)
		if mode == "" {
			firsts = append(firsts, key)
			continue
		}
		besides[first] = append(besides[first], evidence.Countersignature{Mode: mode, StoredVersion: evidence.StoredVersion{Key: key}})
	}
	return firsts, besides
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
	found.name, found.listed.Bundle.Key = bundleLink(key), key
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
