package verify

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/worm"
)

// ErrTarget is returned where a key is neither a manifest's nor a custody record's, nor the prefix of an incident.
var ErrTarget = errors.New("not the key of a manifest or of a custody record, nor a prefix that ends in a slash")

// Target is where to begin.
type Target struct {
	// Key of a custody record or a manifest. One that ends in a slash is the prefix of an incident: its newest proven
	// record counts, and where none is proven, its only manifest.
	Key string
	// VersionID is empty for the newest, or the only one.
	VersionID string
}

// unlisted is a target as a version of which nothing is on record.
func (t Target) unlisted() evidence.StoredVersion {
	return evidence.StoredVersion{Key: t.Key, VersionID: t.VersionID}
}

// Incident checks everything that the target leads to. An error means that the target itself could not be read, so that
// nothing can be said; whatever can be said is in the report.
func Incident(ctx context.Context, source Source, prover Prover, target Target) (*Report, error) {
	v, err := whole(ctx, source, prover, target)
	if err != nil {
		return nil, err
	}
	return v.report, nil
}

func whole(ctx context.Context, source Source, prover Prover, target Target) (*verification, error) {
	v, err := begin(ctx, source, prover, target)
	if err != nil || v.refused {
		return v, err
	}
	v.proveRecords(ctx)
	v.proveStatements(ctx)
	v.checkChain()
	v.checkManifest(ctx)
	v.checkObjects(ctx)
	v.checkFacts()
	return v, nil
}

// begin reads what everything else is read by.
func begin(ctx context.Context, source Source, prover Prover, target Target) (*verification, error) {
	v := &verification{
		source: source, prover: prover, report: &Report{}, prefix: path.Dir(target.Key), listed: map[place]evidence.StoredVersion{},
		seals: map[string]seal{}, lost: map[string]error{},
	}
	switch {
	case strings.HasSuffix(target.Key, "/"):
	case isManifest(target.Key):
		v.manifestAt = &target
	case isRecord(target.Key):
		v.start = target
	default:
		return nil, fmt.Errorf("%q: %w", target.Key, ErrTarget)
	}
	if err := v.load(ctx); err != nil {
		return nil, err
	}
	return v, nil
}

// verification is one run over one incident.
type verification struct {
	source Source
	prover Prover
	report *Report
	prefix string
	// start is the record to begin with; empty where none was found.
	start Target
	// manifestAt is set when the caller named the manifest, or there is nothing else to begin with.
	manifestAt *Target
	// trigger is the uid that an unproven manifest gives; empty where there is a record.
	trigger string

	// record is the newest custody record, nil where the incident has none.
	record *record
	// links are the statements, in order.
	links    []*link
	manifest *evidence.Manifest
	// listed are the objects that statements name, by key and version.
	listed map[place]evidence.StoredVersion
	// partial is set when a statement or the manifest could not be read.
	partial bool
	// refused is set when the record to begin with is not what its name says: nothing that it names is looked at.
	refused bool

	// custody is what is called a record; nil until it was listed.
	custody *custodyKeys
	// seals say what came of the bundles over a record, by the record's key.
	seals map[string]seal
	// later is the proven record 2 where the record to begin with is the first.
	later string
	// lost says why a record with a statement that proves it is not to be had: its newest version is something else, cannot
	// be read or is not there. Nil is one that was read.
	lost map[string]error
}

// together is what becomes of an error between several statements: where one could not be read, it may be for that alone.
func (v *verification) together(err error) error {
	if err == nil || !v.partial {
		return err
	}
	return &unreadError{fmt.Errorf("not all statements could be read: %w", err)}
}

// place is a version of a key.
type place struct{ key, version string }

// load reads the newest record or, where there is none, the manifest.
func (v *verification) load(ctx context.Context) error {
	if v.start.Key != "" {
		return v.loadNamed(ctx)
	}
	key, data, err := v.newestRecord(ctx)
	if err != nil {
		return err
	}
	if key == "" {
		return v.loadManifest(ctx)
	}
	v.start.Key = key
	return v.begins(data)
}

// loadNamed reads the record that the caller named, and refuses another's content under its name.
func (v *verification) loadNamed(ctx context.Context) error {
	data, err := v.readRecord(ctx, v.start)
	if isUnread(err) || errors.Is(err, worm.ErrNotFound) {
		return fmt.Errorf("read custody record: %w", err)
	}
	if err != nil {
		v.refused = true
		v.report.Incident.Name = path.Base(v.prefix)
		number, _ := numberAndDigest(v.start.Key)
		v.report.add(fmt.Sprintf("custody-%d", number), CheckForm, err, "")
		return nil
	}
	return v.begins(data)
}

// begins takes the record to begin with.
func (v *verification) begins(data []byte) (err error) {
	if v.record, err = v.parseRecord(v.start, data); err != nil {
		return err
	}
	v.report.Incident, v.report.Pod, v.report.Records = v.record.custody.Incident, v.record.custody.Pod, v.record.custody.Number
	return nil
}

// loadManifest reads what an incident that is not sealed begins with.
func (v *verification) loadManifest(ctx context.Context) error {
	if v.manifestAt == nil {
		key, err := v.onlyManifest(ctx)
		if err != nil {
			return err
		}
		v.manifestAt = &Target{Key: key}
	}
	data, err := read(ctx, v.source, v.manifestAt.unlisted(), maxRecord)
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	manifest, err := parseManifest(data)
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	v.report.Incident, v.report.Pod, v.trigger = manifest.Incident, manifest.Pod, manifest.Trigger.UID
	return nil
}

// Find returns the incidents that a source holds a custody record or a manifest of below a prefix.
func Find(ctx context.Context, source Source, prefix string) ([]Target, error) {
	keys, err := source.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("list what is below %q: %w", prefix, err)
	}
	var found []Target
	for _, key := range keys {
		incident := Target{Key: path.Dir(key) + "/"}
		if (isRecord(key) || isManifest(key)) && !slices.Contains(found, incident) {
			found = append(found, incident)
		}
	}
	return found, nil
}
